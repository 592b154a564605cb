//! What differs on Windows: the same functions as in `unix.rs`.
#![allow(unsafe_code)]

use std::mem;
use std::ptr;

use shmem_providers::Error;
use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, MEM_MAPPED, MEMORY_BASIC_INFORMATION, PAGE_READWRITE, VirtualProtect, VirtualQuery,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, GetProcessHandleCount};

/// Returns a reason if this error means that there is no memory for a large section. Every Windows has
/// sections.
pub fn lacking(error: &Error) -> Option<String> {
    const ERROR_NOT_ENOUGH_MEMORY: i32 = 8;
    const ERROR_DISK_FULL: i32 = 112;
    const ERROR_COMMITMENT_LIMIT: i32 = 1455;
    let out_of_memory = [
        ERROR_NOT_ENOUGH_MEMORY,
        ERROR_DISK_FULL,
        ERROR_COMMITMENT_LIMIT,
    ];
    let missing = error
        .raw_os_error()
        .is_some_and(|code| out_of_memory.contains(&code));
    missing.then(|| format!("not available here: {error}"))
}

/// Returns `None`: a process may have as many handles as any test needs.
pub fn too_few_descriptors(_needed: u64) -> Option<String> {
    None
}

/// Returns the number of open handles of this process.
pub fn open_files() -> u32 {
    let mut count = 0;
    // SAFETY: the function has no preconditions.
    let process = unsafe { GetCurrentProcess() };
    // SAFETY: the pointer is valid for writes of a `u32`.
    let done = unsafe { GetProcessHandleCount(process, &raw mut count) };
    assert_ne!(done, 0, "handles cannot be counted");
    count
}

/// Returns an empty list: there are no such segments.
pub fn system_v_segments(_makers: &[u32]) -> Vec<String> {
    Vec::new()
}

/// Returns `false`: names end with their last handle.
pub fn name_exists(_id: &str) -> bool {
    false
}

/// Returns the addresses and sizes in bytes of the writable views of this process.
pub fn mappings() -> Vec<(usize, usize)> {
    let mut views = Vec::new();
    let mut address = 0_usize;
    loop {
        // SAFETY: all zeros are a valid value of this type.
        let mut info: MEMORY_BASIC_INFORMATION = unsafe { mem::zeroed() };
        // SAFETY: the call accepts any address, and the other pointer is valid for writes of the size passed.
        let written = unsafe {
            VirtualQuery(
                ptr::without_provenance(address),
                &raw mut info,
                size_of::<MEMORY_BASIC_INFORMATION>(),
            )
        };
        if written == 0 {
            return views;
        }
        let is_ours = info.State == MEM_COMMIT && info.Type == MEM_MAPPED;
        if is_ours && info.Protect == PAGE_READWRITE {
            views.push((info.BaseAddress.addr(), info.RegionSize));
        }
        address = info.BaseAddress.addr() + info.RegionSize;
    }
}

/// Returns `true` if the page at this address becomes writable, for all its life.
pub fn becomes_writable(page: *const u8) -> bool {
    let mut before = 0;
    let address = page.cast_mut().cast();
    // SAFETY: the memory stays readable, and nothing relies on a fault when it is written. The last
    // pointer is to a local variable.
    unsafe { VirtualProtect(address, 1, PAGE_READWRITE, &raw mut before) != 0 }
}
