//! `umtx(2)`, which finds the word by its physical address.
#![allow(unsafe_code)]

use core::sync::atomic::AtomicU32;
use core::time::Duration;

use libc::c_int;
use rustix::io::Errno;

use crate::sys::last_errno;

pub(super) const WAIT: &str = "umtx_sleep";
pub(super) const WAKE: &str = "umtx_wakeup";

/// The longest wait of one call: after that the physical address may be another one. The kernel limits it to
/// two seconds itself (`kern.umtx_timeout_max`).
pub(super) const LONGEST: Duration = Duration::from_secs(1);

/// Returns `true`: every supported version has the call.
pub(crate) fn is_native() -> bool {
    true
}

pub(super) fn wait(word: &AtomicU32, value: u32, time: Duration) -> Result<(), Errno> {
    // 0 would be without a limit.
    let microseconds = c_int::try_from(time.as_micros())
        .unwrap_or(c_int::MAX)
        .max(1);
    // SAFETY: the word is valid, and the kernel only compares it.
    let result =
        unsafe { libc::umtx_sleep(word.as_ptr().cast(), super::signed(value), microseconds) };
    match result {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// Returns 0: the system does not report how many were woken.
pub(super) fn wake(word: &AtomicU32, most: u32) -> Result<usize, Errno> {
    // 0 wakes all.
    let most = c_int::from(most == 1);
    // SAFETY: the word is valid, and the kernel only uses its address.
    let result = unsafe { libc::umtx_wakeup(word.as_ptr().cast(), most) };
    match result {
        0.. => Ok(0),
        _ => Err(last_errno()),
    }
}
