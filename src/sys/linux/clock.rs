//! The monotonic clock.
//!
//! The time is read through the C library. rustix would read it from the kernel's code in this
//! process (the vDSO), which it locates by itself, and that crashes under valgrind.
#![allow(unsafe_code)]

use core::mem::MaybeUninit;

use rustix::event::Timespec;

/// Returns the current time of `CLOCK_MONOTONIC`.
pub(super) fn now() -> Timespec {
    let mut now = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the pointer is to a local variable of the type that the call writes. The call cannot
    // fail: the kernel always has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, now.as_mut_ptr()) };
    // SAFETY: the structure was zeroed, and consists of integers, for which any bytes are valid.
    let now = unsafe { now.assume_init() };
    #[allow(
        clippy::useless_conversion,
        reason = "the fields are narrower on 32-bit systems"
    )]
    Timespec {
        tv_sec: now.tv_sec.into(),
        tv_nsec: now.tv_nsec.into(),
    }
}
