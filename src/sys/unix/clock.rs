//! The monotonic clock.
//!
//! The time is read through the C library. rustix would read it from the kernel's code in this
//! process (the vDSO), which it locates by itself, and that crashes under valgrind.
#![allow(unsafe_code)]

use core::mem::MaybeUninit;
use core::time::Duration;

use rustix::thread::{Timespec, nanosleep};

/// Returns the current time of `CLOCK_MONOTONIC`, counted from its arbitrary start.
pub(crate) fn now() -> Duration {
    let mut now = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the pointer is to a local variable of the type that the call writes. The call cannot
    // fail: the kernel always has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, now.as_mut_ptr()) };
    // SAFETY: the structure was zeroed, and consists of integers, for which any bytes are valid.
    let now = unsafe { now.assume_init() };
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Blocks for about this time, or until a signal arrives.
pub(crate) fn pause(time: Duration) {
    if let Ok(time) = Timespec::try_from(time) {
        let _ = nanosleep(&time);
    }
}
