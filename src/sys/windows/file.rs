//! Files: their identity, their owner, and locks that the kernel releases when a process ends.
#![allow(unsafe_code)]

use core::mem::MaybeUninit;
use std::fs::File;
use std::io;
use std::os::windows::io::AsRawHandle;

use windows_sys::Win32::Foundation::ERROR_LOCK_VIOLATION;
use windows_sys::Win32::Storage::FileSystem::{
    BY_HANDLE_FILE_INFORMATION, GetFileInformationByHandle, LOCKFILE_EXCLUSIVE_LOCK,
    LOCKFILE_FAIL_IMMEDIATELY, LockFileEx, UnlockFileEx,
};
use windows_sys::Win32::System::IO::{OVERLAPPED, OVERLAPPED_0, OVERLAPPED_0_0};
use windows_sys::Win32::System::RemoteDesktop::ProcessIdToSessionId;
use windows_sys::Win32::System::Threading::GetCurrentProcessId;

use super::{last_error, owner};
use crate::error::Result;

/// Tells files apart while they are open: the volume, and the index of the file on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    volume: u32,
    index: [u32; 2],
}

impl FileId {
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let mut info = MaybeUninit::<BY_HANDLE_FILE_INFORMATION>::zeroed();
        // SAFETY: `file` keeps its handle open, and `info` is valid for writing the structure.
        let done = unsafe { GetFileInformationByHandle(file.as_raw_handle(), info.as_mut_ptr()) };
        if done == 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: zeros are a valid value of the type, and so is what the call writes.
        let info = unsafe { info.assume_init() };
        Ok(Self {
            volume: info.dwVolumeSerialNumber,
            index: [info.nFileIndexHigh, info.nFileIndexLow],
        })
    }
}

/// Returns `true` if the file belongs to the user of this process, or to the group of all administrators:
/// to that belongs what the same user has created with full administrator rights.
pub(crate) fn is_file_ours(file: &File) -> Result<bool> {
    owner::is_handle_ours(file.as_raw_handle(), true)
}

/// The byte that is locked, far behind the end of every file: a lock also keeps other processes from
/// reading what it covers.
fn locked_byte() -> OVERLAPPED {
    OVERLAPPED {
        Anonymous: OVERLAPPED_0 {
            Anonymous: OVERLAPPED_0_0 {
                Offset: 0,
                OffsetHigh: 1 << 30,
            },
        },
        ..OVERLAPPED::default()
    }
}

/// Takes a lock without waiting. Returns `false` if another handle has one that excludes it.
pub(crate) fn try_lock(file: &File, exclusive: bool) -> io::Result<bool> {
    let kind = if exclusive {
        LOCKFILE_EXCLUSIVE_LOCK
    } else {
        0
    };
    let flags = kind | LOCKFILE_FAIL_IMMEDIATELY;
    let mut at = locked_byte();
    // SAFETY: `file` keeps its handle open. It is not asynchronous, so `at` is not used after the call.
    let done = unsafe { LockFileEx(file.as_raw_handle(), flags, 0, 1, 0, &raw mut at) };
    match last_error() {
        _ if done != 0 => Ok(true),
        ERROR_LOCK_VIOLATION => Ok(false),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Releases a lock. The kernel may take some time to do so when the file is closed.
pub(crate) fn unlock(file: &File) {
    let mut at = locked_byte();
    // SAFETY: as in `try_lock`.
    unsafe { UnlockFileEx(file.as_raw_handle(), 0, 1, 0, &raw mut at) };
}

/// Returns the number of the session of this process, whose names in `Local\` it sees.
pub(crate) fn session() -> Option<u32> {
    // SAFETY: the function has no preconditions.
    let pid = unsafe { GetCurrentProcessId() };
    let mut session = 0;
    // SAFETY: the pointer is to a local variable that the call writes the number to.
    let done = unsafe { ProcessIdToSessionId(pid, &raw mut session) };
    (done != 0).then_some(session)
}
