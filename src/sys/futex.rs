//! Sleeping until a word changes: `futex(2)`, shared between processes.
#![cfg_attr(any(target_os = "android", target_os = "linux"), allow(unsafe_code))]

use core::sync::atomic::AtomicU32;
use core::time::Duration;

use crate::error::Result;

#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) use linux::{after, sleep_while, wake};

#[cfg(any(target_os = "android", target_os = "linux"))]
mod linux {
    use super::{AtomicU32, Duration, Result};
    use core::mem::MaybeUninit;
    use core::num::NonZeroU32;

    use rustix::event::Timespec;
    use rustix::io::Errno;
    use rustix::thread::futex::{self, Flags};

    use crate::error::Subject;
    use crate::sys::failed;

    /// The moment so far from now; `None` if the clock never gets there.
    ///
    /// rustix, whose clock is the kernel's own code in this process, looks for that by itself: under
    /// valgrind that leads to where nothing is.
    pub(crate) fn after(time: Duration) -> Option<Timespec> {
        let time = Timespec::try_from(time).ok()?;
        let mut now = MaybeUninit::<libc::timespec>::zeroed();
        // SAFETY: the pointer is valid for the write of a time. This clock is always there.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, now.as_mut_ptr()) };
        // SAFETY: it was zeroed, and any bytes are a value of it.
        let now = unsafe { now.assume_init() };
        #[allow(
            clippy::useless_conversion,
            reason = "the types are narrower on 32 bits"
        )]
        let now = Timespec {
            tv_sec: now.tv_sec.into(),
            tv_nsec: now.tv_nsec.into(),
        };
        now.checked_add(time)
    }

    /// Sleeps if the word has this value. `false` if the end has come; it may wake for no reason.
    pub(crate) fn sleep_while(
        word: &AtomicU32,
        value: u32,
        end: Option<&Timespec>,
    ) -> Result<bool> {
        // With the mask that all wakers match, the time is a moment and not a span.
        match futex::wait_bitset(word, Flags::empty(), value, end, NonZeroU32::MAX) {
            // It had changed already; a signal came.
            Ok(()) | Err(Errno::AGAIN | Errno::INTR) => Ok(true),
            Err(Errno::TIMEDOUT) => Ok(false),
            Err(errno) => Err(failed("futex(FUTEX_WAIT_BITSET)", errno, Subject::Nothing)),
        }
    }

    /// Wakes so many at most, and says how many it were.
    pub(crate) fn wake(word: &AtomicU32, most: u32) -> Result<usize> {
        futex::wake(word, Flags::empty(), most)
            .map_err(|errno| failed("futex(FUTEX_WAKE)", errno, Subject::Nothing))
    }
}

#[cfg(not(any(target_os = "android", target_os = "linux")))]
const NONE: crate::error::Error = crate::error::Error::Unsupported {
    what: "waking other processes is not supported on this system: spin instead",
};

/// Elsewhere there is no sleep that would have to end.
#[expect(clippy::unnecessary_wraps, reason = "as where a clock can overflow")]
#[cfg(not(any(target_os = "android", target_os = "linux")))]
pub(crate) fn after(time: Duration) -> Option<Duration> {
    Some(time)
}

/// Elsewhere it is an error.
#[cfg(not(any(target_os = "android", target_os = "linux")))]
pub(crate) fn sleep_while(_word: &AtomicU32, _value: u32, _end: Option<&Duration>) -> Result<bool> {
    Err(NONE)
}

/// Elsewhere it is an error.
#[cfg(not(any(target_os = "android", target_os = "linux")))]
pub(crate) fn wake(_word: &AtomicU32, _most: u32) -> Result<usize> {
    Err(NONE)
}
