//! What the mechanisms of Windows share: handles, the last error, limits.
#![allow(unsafe_code)]

mod handle;
mod limits;
mod owner;

use windows_sys::Win32::Foundation::{GetLastError, SetLastError};
use windows_sys::Win32::System::Threading::GetCurrentProcessId;

pub(crate) use self::handle::OwnedHandle;
pub(crate) use self::owner::is_ours;
use crate::error::{Error, Result, Subject};

/// A number that a forked child does not have in common with its parent. There is no `fork()` here,
/// but the native interface can copy a process, and this costs nothing.
pub(crate) fn generation() -> usize {
    // SAFETY: the function has no preconditions.
    let pid = unsafe { GetCurrentProcessId() };
    pid as usize
}

/// The error of this thread's last call that failed.
pub(crate) fn last_error() -> u32 {
    // SAFETY: the function has no preconditions.
    unsafe { GetLastError() }
}

/// Forgets the last error, before a call that says something by it when it succeeds.
pub(crate) fn forget_last_error() {
    // SAFETY: the function has no preconditions.
    unsafe { SetLastError(0) };
}

/// The error as our errors hold it: the same number.
pub(crate) fn errno(code: u32) -> i32 {
    i32::from_ne_bytes(code.to_ne_bytes())
}

/// The error for a call that the system refused, with the limit behind it.
#[cold]
pub(crate) fn failed(call: &'static str, code: u32, subject: Subject) -> Error {
    Error::Os {
        call,
        errno: errno(code),
        subject,
        limit: limits::behind(code),
    }
}

/// A random number, for one name alone.
pub(crate) fn nonce() -> Result<u64> {
    let mut nonce = [0; size_of::<u64>()];
    super::random(&mut nonce)?;
    Ok(u64::from_ne_bytes(nonce))
}
