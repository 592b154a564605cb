//! Which limit stood behind a refusal, and what its value is.

use windows_sys::Win32::Foundation::{
    ERROR_COMMITMENT_LIMIT, ERROR_NO_SYSTEM_RESOURCES, ERROR_NOT_ENOUGH_MEMORY,
};
use windows_sys::Win32::System::SystemInformation::{GlobalMemoryStatusEx, MEMORYSTATUSEX};

use crate::error::limit::Limit;

/// The limit behind a call that failed, where the error tells it.
pub(super) fn behind(code: u32) -> Option<Limit> {
    match code {
        ERROR_COMMITMENT_LIMIT | ERROR_NOT_ENOUGH_MEMORY | ERROR_NO_SYSTEM_RESOURCES => commit(),
        _ => None,
    }
}

/// How much memory the system can still promise, of how much. A section takes its part of it when it
/// is made.
fn commit() -> Option<Limit> {
    let mut status = MEMORYSTATUSEX {
        dwLength: u32::try_from(size_of::<MEMORYSTATUSEX>()).unwrap_or(0),
        ..MEMORYSTATUSEX::default()
    };
    // SAFETY: the pointer is valid for reads and writes, and the length is set.
    let done = unsafe { GlobalMemoryStatusEx(&raw mut status) };
    (done != 0).then_some(Limit::Commit {
        free: status.ullAvailPageFile,
        total: status.ullTotalPageFile,
    })
}
