//! What the test programs share on Windows: the same as `mod.rs` has for Unix.
#![allow(unsafe_code)]

use std::mem;
use std::ptr;

use shmem_providers::Error;
use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, MEM_MAPPED, MEMORY_BASIC_INFORMATION, PAGE_READWRITE, VirtualQuery,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, GetProcessHandleCount};

/// Every Windows has sections; what it may not have is memory for a large one.
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

/// Handles are not limited to a few.
pub fn too_few_descriptors(_needed: u64) -> Option<String> {
    None
}

/// How many handles this process has open.
pub fn open_files() -> u32 {
    let mut count = 0;
    // SAFETY: the function has no preconditions.
    let process = unsafe { GetCurrentProcess() };
    // SAFETY: the pointer is valid for the write of a number.
    let done = unsafe { GetProcessHandleCount(process, &raw mut count) };
    assert_ne!(done, 0, "handles cannot be counted");
    count
}

/// There are none.
pub fn system_v_segments(_makers: &[u32]) -> Vec<String> {
    Vec::new()
}

/// There are none that live by themselves.
pub fn name_exists(_id: &str) -> bool {
    false
}

/// The writable views of this process: where they start, and how many bytes they have.
pub fn mappings() -> Vec<(usize, usize)> {
    let mut views = Vec::new();
    let mut place = 0_usize;
    loop {
        // SAFETY: all zeros are a value of it.
        let mut facts: MEMORY_BASIC_INFORMATION = unsafe { mem::zeroed() };
        // SAFETY: any address may be asked about, and the other pointer is valid for the write.
        let written = unsafe {
            VirtualQuery(
                ptr::without_provenance(place),
                &raw mut facts,
                size_of::<MEMORY_BASIC_INFORMATION>(),
            )
        };
        if written == 0 {
            return views;
        }
        let is_ours = facts.State == MEM_COMMIT && facts.Type == MEM_MAPPED;
        if is_ours && facts.Protect == PAGE_READWRITE {
            views.push((facts.BaseAddress.addr(), facts.RegionSize));
        }
        place = facts.BaseAddress.addr() + facts.RegionSize;
    }
}
