//! The limit that a call ran into, and its value.

use windows_sys::Win32::Foundation::{
    ERROR_COMMITMENT_LIMIT, ERROR_NO_SYSTEM_RESOURCES, ERROR_NOT_ENOUGH_MEMORY,
};
use windows_sys::Win32::System::SystemInformation::{GlobalMemoryStatusEx, MEMORYSTATUSEX};

use crate::error::limit::Limit;

/// Returns the limit that an error code points to, if it points to one. These codes mean the same
/// from every call.
pub(super) fn limit_for(code: u32) -> Option<Limit> {
    match code {
        ERROR_COMMITMENT_LIMIT | ERROR_NOT_ENOUGH_MEMORY | ERROR_NO_SYSTEM_RESOURCES => commit(),
        _ => None,
    }
}

/// Returns how much memory the system can still commit, and its commit limit. A section is charged
/// against that limit when it is created.
fn commit() -> Option<Limit> {
    let mut status = MEMORYSTATUSEX {
        dwLength: u32::try_from(size_of::<MEMORYSTATUSEX>()).unwrap_or(0),
        ..MEMORYSTATUSEX::default()
    };
    // SAFETY: the pointer is to a local structure whose `dwLength` is its size, so the call reads
    // and writes only that structure.
    let done = unsafe { GlobalMemoryStatusEx(&raw mut status) };
    (done != 0).then_some(Limit::Commit {
        free: status.ullAvailPageFile,
        total: status.ullTotalPageFile,
    })
}
