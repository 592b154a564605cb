//! What the backend for Windows needs: handles, the last error, limits, owners.
#![allow(unsafe_code)]

pub(in crate::sys) mod clock;
#[cfg(feature = "std")]
pub(crate) mod file;
#[cfg(feature = "std")]
pub(crate) mod futex;
pub(crate) mod growth;
mod handle;
#[cfg(feature = "std")]
pub(crate) mod inherit;
mod limits;
#[cfg(feature = "std")]
mod object_name;
mod owner;
#[cfg(feature = "std")]
pub(crate) mod presence;
#[cfg(feature = "std")]
pub(crate) mod views;
#[cfg(not(feature = "std"))]
#[path = "views_none.rs"]
pub(crate) mod views;

use windows_sys::Win32::Foundation::{GetLastError, SetLastError};
use windows_sys::Win32::System::Threading::GetCurrentProcessId;

pub(crate) use self::handle::OwnedHandle;
pub(crate) use self::owner::is_ours;
use crate::error::{Error, Subject};

/// A descriptor, of which Windows has none.
#[derive(Debug)]
pub enum OwnedFd {}

/// A borrowed descriptor.
pub(crate) type BorrowedFd<'a> = &'a OwnedFd;

/// Returns a number that differs between a process and its copies. Windows has no `fork()`, but its
/// native API can copy a process, and the process id costs nothing to read.
pub(crate) fn generation() -> usize {
    // SAFETY: the function has no preconditions.
    let pid = unsafe { GetCurrentProcessId() };
    pid as usize
}

/// Returns the error code of this thread's last call that failed.
pub(crate) fn last_error() -> u32 {
    // SAFETY: the function has no preconditions.
    unsafe { GetLastError() }
}

/// Clears the last error, before a call that also sets it when it succeeds.
pub(crate) fn forget_last_error() {
    // SAFETY: the function has no preconditions.
    unsafe { SetLastError(0) };
}

/// Converts an error code to the type that [`Error`] stores: the same bits.
pub(crate) fn errno(code: u32) -> i32 {
    i32::from_ne_bytes(code.to_ne_bytes())
}

/// Returns the error for a call that failed with this code, with the limit it ran into.
#[cold]
pub(crate) fn failed(call: &'static str, code: u32, subject: Subject) -> Error {
    Error::Os {
        call,
        errno: errno(code),
        subject,
        limit: limits::limit_for(code),
    }
}
