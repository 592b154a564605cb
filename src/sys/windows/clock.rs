//! The monotonic clock.
#![allow(unsafe_code)]

use core::time::Duration;

use windows_sys::Win32::System::Performance::{QueryPerformanceCounter, QueryPerformanceFrequency};
#[cfg(not(feature = "std"))]
use windows_sys::Win32::System::Threading::Sleep;

/// Returns the current time of the performance counter, counted from its arbitrary start.
pub(crate) fn now() -> Duration {
    let (mut ticks, mut per_second) = (0, 0);
    // SAFETY: the pointer is to a local variable. The call cannot fail on a supported system.
    unsafe { QueryPerformanceCounter(&raw mut ticks) };
    // SAFETY: as above.
    unsafe { QueryPerformanceFrequency(&raw mut per_second) };
    let (ticks, per_second) = (ticks.unsigned_abs(), per_second.unsigned_abs().max(1));
    let rest = u128::from(ticks % per_second) * 1_000_000_000 / u128::from(per_second);
    Duration::new(ticks / per_second, u32::try_from(rest).unwrap_or(0))
}

/// Blocks for about this time.
pub(crate) fn pause(time: Duration) {
    #[cfg(feature = "std")]
    std::thread::sleep(time);
    #[cfg(not(feature = "std"))]
    {
        let milliseconds = u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1);
        // SAFETY: the function has no preconditions.
        unsafe { Sleep(milliseconds) };
    }
}
