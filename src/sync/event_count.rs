//! [`EventCount`]: waiting until a condition about words of a segment is true.
//!
//! The waiter announces itself, checks the condition once more, and sleeps only while its announcement
//! stands. The process that makes the condition true does so first, and then looks for announcements. At least one
//! of them sees what the other did, so that no wake-up is lost; and there is no system call unless a process has
//! announced itself.
//!
//! Waiters sleep on the word of the announcements, and each wake-up changes its count. The words of the
//! condition can therefore change back without harm, as turns do; and a waiter whose announcement was withdrawn
//! announces itself again.
//!
//! Kills, at any step: an announcement of a killed waiter causes one superfluous wake-up. A waker that is killed
//! before it has woken everybody leaves [`SLEEPS`] or [`WAKING`] behind, so that the next one wakes them.
//!
//! `turn.rs`, `barrier.rs` and `condvar.rs` in `tests/model/` check it with kills at every step,
//! `word/explored/protocols.rs` under the memory model.

use core::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use core::time::Duration;

use super::wake::Wait;
use super::word::Word;
use crate::error::Result;

/// A process may sleep.
const SLEEPS: u32 = 1;
/// A process is waking the others, or was killed before it had woken them.
const WAKING: u32 = 2;
/// The count of wake-ups is in the bits above.
const COUNT: u32 = 4;

/// Who waits for a condition: a word next to those that the condition is about.
#[repr(transparent)]
pub(crate) struct EventCount<W>(W);

impl<W: Word> EventCount<W> {
    #[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
    pub(crate) fn new(word: W) -> Self {
        Self(word)
    }

    /// Announces a waiter, which has to check its condition once more before it [sleeps](Word::sleep_while)
    /// while the word has the value that is returned.
    pub(crate) fn announce(&self) -> u32 {
        let announced = self.0.fetch_or(SLEEPS, SeqCst) | SLEEPS;
        W::fence(SeqCst);
        announced
    }

    #[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
    pub(crate) fn sleep_while(&self, announced: u32) -> Result<bool> {
        self.0.sleep_while(announced, None)
    }

    /// Wakes everybody who waits. The caller has made the condition true before.
    pub(crate) fn wake(&self) -> Result<()> {
        W::fence(SeqCst);
        let found = self.0.load(Relaxed);
        if found & (SLEEPS | WAKING) == 0 {
            return Ok(());
        }
        // Whoever has announced itself and not fallen asleep yet does not any more: the count changes.
        let waking = found.wrapping_add(COUNT) & !SLEEPS | WAKING;
        if (self.0.compare_exchange(found, waking, SeqCst, Relaxed)).is_err() {
            // Another process announces itself or wakes as well: the announcements are left to the next waker.
            self.0.fetch_add(COUNT, SeqCst);
            return self.0.wake(u32::MAX >> 1);
        }
        self.0.wake(u32::MAX >> 1)?;
        // Fails if another waiter has announced itself, who may have been too late for this wake-up.
        let _ = (self.0).compare_exchange(waking, waking & !WAKING, SeqCst, Relaxed);
        Ok(())
    }

    /// Wakes everybody who sleeps, announced or not, for a process that takes the place of a killed one: that may
    /// have made a condition true, and not woken anybody.
    #[cfg_attr(not(feature = "alloc"), allow(dead_code, reason = "for channels"))]
    pub(crate) fn wake_after_kill(&self) -> Result<()> {
        self.0.fetch_add(COUNT, SeqCst);
        self.0.wake(u32::MAX >> 1)
    }

    /// Waits while `word` has this value: looks at it `spins` times, then sleeps. Returns the other value, or `None`
    /// once the deadline has passed.
    #[cfg_attr(
        not(feature = "alloc"),
        allow(dead_code, reason = "for channels and condition variables")
    )]
    pub(crate) fn wait_while(
        &self,
        word: &W,
        value: u32,
        spins: u32,
        deadline: Option<&W::Deadline>,
    ) -> Result<Option<u32>> {
        let look = || Some(word.load(Acquire)).filter(|found| *found != value);
        for _ in 0..spins {
            if let found @ Some(_) = look() {
                return Ok(found);
            }
            W::pause();
        }
        self.sleep_until(deadline, look)
    }

    /// Waits until `look` returns a value: calls it once and `spins` times more, then sleeps in between. Returns
    /// `None` once the time is up. A timeout of zero makes no system call.
    pub(crate) fn wait_until<T>(
        &self,
        wait: Wait,
        mut look: impl FnMut() -> Option<T>,
    ) -> Result<Option<T>> {
        let (spins, timeout) = (wait.spin_count(), wait.time_limit());
        for _ in 0..spins {
            if let found @ Some(_) = look() {
                return Ok(found);
            }
            W::pause();
        }
        if let found @ Some(_) = look() {
            return Ok(found);
        }
        if timeout == Some(Duration::ZERO) {
            return Ok(None);
        }
        let deadline = timeout.and_then(W::after);
        self.sleep_until(deadline.as_ref(), look)
    }

    /// Sleeps until `look` returns a value. Returns `None` once the deadline has passed.
    fn sleep_until<T>(
        &self,
        deadline: Option<&W::Deadline>,
        mut look: impl FnMut() -> Option<T>,
    ) -> Result<Option<T>> {
        loop {
            let announced = self.announce();
            if let found @ Some(_) = look() {
                return Ok(found);
            }
            let in_time = self.0.sleep_while(announced, deadline)?;
            let found = look();
            if found.is_some() || !in_time {
                return Ok(found);
            }
        }
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use core::sync::atomic::AtomicU32;
    use std::time::Instant;

    use super::*;

    /// A peer that changes the word whenever a waiter is about to sleep does not prolong the wait.
    #[test]
    fn a_peer_that_keeps_changing_the_word_does_not_prolong_a_wait() {
        let end = Instant::now() + Duration::from_secs(30);
        for spins in [0, 100] {
            let waiters = EventCount(AtomicU32::new(0));
            let wait = Wait::new().spins(spins).timeout(Duration::from_millis(50));
            // Each look at the condition is followed by a sleep.
            let look = || {
                waiters.wake().unwrap();
                waiters.0.fetch_add(COUNT, SeqCst);
                (Instant::now() > end).then_some("the wait does not end")
            };
            assert_eq!(waiters.wait_until(wait, look).unwrap(), None);
        }
    }
}
