//! `futex(2)`, without `FUTEX_PRIVATE_FLAG`.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::AtomicU32;
use core::time::Duration;

use libc::c_int;
use rustix::io::Errno;

use crate::sys::last_errno;

pub(super) const WAIT: &str = "futex(FUTEX_WAIT)";
pub(super) const WAKE: &str = "futex(FUTEX_WAKE)";

/// The longest wait of one call.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);

/// Returns `true`: every supported version has the call.
pub(crate) fn is_native() -> bool {
    true
}

pub(super) fn wait(word: &AtomicU32, value: u32, time: Duration) -> Result<(), Errno> {
    let time = super::timespec(time);
    // SAFETY: the word is valid, and the kernel only compares it. The time is a local value, and the second
    // word may be null.
    let result = unsafe {
        libc::futex(
            word.as_ptr(),
            libc::FUTEX_WAIT,
            super::signed(value),
            &raw const time,
            ptr::null_mut(),
        )
    };
    match result {
        0.. => Ok(()),
        _ => Err(last_errno()),
    }
}

pub(super) fn wake(word: &AtomicU32, most: u32) -> Result<usize, Errno> {
    let most = c_int::try_from(most).unwrap_or(c_int::MAX);
    // SAFETY: the word is valid, and the kernel only uses its address. The other pointers may be null.
    let result = unsafe {
        libc::futex(
            word.as_ptr(),
            libc::FUTEX_WAKE,
            most,
            ptr::null(),
            ptr::null_mut(),
        )
    };
    usize::try_from(result).map_err(|_| last_errno())
}
