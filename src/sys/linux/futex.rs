//! Waiting for words to change: `futex(2)` and `futex_waitv(2)`, across processes.

use core::num::NonZeroU32;
use core::sync::atomic::AtomicU32;

use rustix::io::Errno;
use rustix::thread::futex::{self, Flags, WaitFlags, WaitPtr, WaitvFlags};
use rustix::thread::{ClockId, Timespec};

use crate::error::{Result, Subject};
pub(crate) use crate::sys::polling::{Deadline, after};
use crate::sys::{failed, polling};

/// How many words `futex_waitv` takes (`FUTEX_WAITV_MAX`).
const MOST_WORDS: usize = 128;

/// Returns the deadline for a system call. [`after`] returns none that is too late for that.
fn timespec(deadline: Option<&Deadline>) -> Option<Timespec> {
    deadline.and_then(|deadline| Timespec::try_from(*deadline).ok())
}

/// Returns `true`: the kernel wakes the process.
pub(crate) fn is_native() -> bool {
    true
}

/// Blocks while the word has this value. Returns `false` if the deadline has passed. May also
/// return `true` spuriously.
pub(crate) fn sleep_while(
    word: &AtomicU32,
    value: u32,
    deadline: Option<&Deadline>,
) -> Result<bool> {
    let time = timespec(deadline);
    // FUTEX_WAIT_BITSET takes an absolute time. The full mask matches every waker.
    match futex::wait_bitset(word, Flags::empty(), value, time.as_ref(), NonZeroU32::MAX) {
        // EAGAIN: the word had another value already. EINTR: a signal arrived. The kernel has not looked at the
        // clock then, nor if a peer woke this process, and one that keeps doing so must not prolong the wait.
        Ok(()) | Err(Errno::AGAIN | Errno::INTR) => Ok(polling::is_before(deadline)),
        Err(Errno::TIMEDOUT) => Ok(false),
        Err(errno) => Err(failed("futex(FUTEX_WAIT_BITSET)", errno, Subject::Nothing)),
    }
}

/// Blocks while all words have the values next to them. Returns `false` if the deadline has passed. May also
/// return `true` spuriously.
pub(crate) fn sleep_while_all(
    words: &[(&AtomicU32, u32)],
    deadline: Option<&Deadline>,
) -> Result<bool> {
    let mut waits = [futex::Wait::new(); MOST_WORDS];
    let Some(waits) = waits
        .get_mut(..words.len())
        .filter(|waits| !waits.is_empty())
    else {
        return polling::sleep_while_all(words, deadline);
    };
    for (wait, (word, value)) in waits.iter_mut().zip(words) {
        wait.val = u64::from(*value);
        wait.uaddr = WaitPtr::new(word.as_ptr().cast());
        wait.flags = WaitFlags::SIZE_U32;
    }
    let deadline_of_call = timespec(deadline);
    let flags = WaitvFlags::empty();
    match futex::waitv(waits, flags, deadline_of_call.as_ref(), ClockId::Monotonic) {
        Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(polling::is_before(deadline)),
        Err(Errno::TIMEDOUT) => Ok(false),
        // ENOSYS: before Linux 5.16, and some emulators. EPERM: a seccomp filter that does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => polling::sleep_while_all(words, deadline),
        Err(errno) => Err(failed("futex_waitv", errno, Subject::Nothing)),
    }
}

/// Wakes at most `most` waiters, and returns how many were woken.
pub(crate) fn wake(word: &AtomicU32, most: u32) -> Result<usize> {
    futex::wake(word, Flags::empty(), most)
        .map_err(|errno| failed("futex(FUTEX_WAKE)", errno, Subject::Nothing))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use core::time::Duration;

    use super::*;

    /// A peer that keeps changing the word does not prolong a wait.
    #[test]
    fn a_passed_deadline_ends_a_wait_for_a_word_that_has_changed() {
        let word = AtomicU32::new(1);
        let deadline = after(Duration::ZERO);
        assert!(!sleep_while(&word, 0, deadline.as_ref()).unwrap());
        assert!(sleep_while(&word, 0, None).unwrap());
        assert!(!sleep_while_all(&[(&word, 0)], deadline.as_ref()).unwrap());
        assert!(sleep_while_all(&[(&word, 0)], None).unwrap());
    }
}
