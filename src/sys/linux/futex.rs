//! Waiting for a word to change: `futex(2)`, across processes.

use core::num::NonZeroU32;
use core::sync::atomic::AtomicU32;
use core::time::Duration;

use rustix::event::Timespec;
use rustix::io::Errno;
use rustix::thread::futex::{self, Flags};

use super::clock;
use crate::error::{Result, Subject};
use crate::sys::failed;

/// A moment on the monotonic clock.
pub(crate) type Deadline = Timespec;

/// Returns the deadline that ends this timeout, or `None` if the clock cannot represent it.
pub(crate) fn after(timeout: Duration) -> Option<Deadline> {
    clock::now().checked_add(Timespec::try_from(timeout).ok()?)
}

/// Blocks while the word has this value. Returns `false` if the deadline has passed. May also
/// return `true` spuriously.
pub(crate) fn sleep_while(
    word: &AtomicU32,
    value: u32,
    deadline: Option<&Deadline>,
) -> Result<bool> {
    // FUTEX_WAIT_BITSET takes an absolute time. The full mask matches every waker.
    match futex::wait_bitset(word, Flags::empty(), value, deadline, NonZeroU32::MAX) {
        Ok(()) => Ok(true),
        // EAGAIN: the word had another value already. EINTR: a signal arrived. The kernel has not looked at the
        // clock then, and a peer that keeps changing the word must not prolong the wait.
        Err(Errno::AGAIN | Errno::INTR) => Ok(deadline.is_none_or(|&end| clock::now() < end)),
        Err(Errno::TIMEDOUT) => Ok(false),
        Err(errno) => Err(failed("futex(FUTEX_WAIT_BITSET)", errno, Subject::Nothing)),
    }
}

/// Wakes at most `most` waiters, and returns how many were woken.
pub(crate) fn wake(word: &AtomicU32, most: u32) -> Result<usize> {
    futex::wake(word, Flags::empty(), most)
        .map_err(|errno| failed("futex(FUTEX_WAKE)", errno, Subject::Nothing))
}
