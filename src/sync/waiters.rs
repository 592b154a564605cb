//! [`Waiters`]: whether anybody has to be woken when a word changes.
//!
//! The waiter announces itself and then looks at the word once more; the one that changes the word does so
//! first and then asks. At least one of them sees what the other did, so that no wake-up is lost; and nobody
//! makes a system call unless somebody waits. The announcement of a process that was killed costs one
//! superfluous wake-up.
//!
//! Waiters sleep on the word of the announcements, whose upper bits count the wake-ups. A wake-up for an earlier
//! change can withdraw the announcement of a waiter that has seen that change and is about to sleep until the
//! next one. It changes the count as well, so that this waiter does not sleep, but announces itself again.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::word::Word;
use crate::error::Result;

/// A process or thread sleeps until the word changes.
pub(crate) const SLEEPS: u32 = 1;
/// A process waits for its doorbell.
pub(crate) const LISTENS: u32 = 2;

const KINDS: u32 = SLEEPS | LISTENS;
/// The unit of the count in the other bits.
const COUNT: u32 = 4;

/// Who waits for a word: a word next to it.
#[repr(transparent)]
pub(crate) struct Waiters<W>(W);

impl<W: Word> Waiters<W> {
    #[cfg(test)]
    pub(crate) fn new(word: W) -> Self {
        Self(word)
    }

    /// Announces a waiter of this kind. The caller looks at the word afterwards, and waits only if it has
    /// not changed. Returns the value of this word, for as long as the announcement stands.
    pub(crate) fn announce(&self, kind: u32) -> u32 {
        let announced = self.0.fetch_or(kind, SeqCst) | kind;
        W::fence(SeqCst);
        announced
    }

    /// Withdraws all announcements, and returns them. The caller has changed the word before, and wakes whom
    /// it finds here.
    #[inline]
    pub(crate) fn take(&self) -> u32 {
        W::fence(SeqCst);
        if self.0.load(Relaxed) & KINDS == 0 {
            return 0;
        }
        let kinds = self.0.fetch_and(!KINDS, SeqCst) & KINDS;
        // After the withdrawal: a waiter that announces itself in between is covered by this wake-up.
        self.0.fetch_add(COUNT, SeqCst);
        kinds
    }

    /// Wakes everybody who sleeps until the word, which has just been changed, changes. Returns the kinds of
    /// waiters there were.
    #[inline]
    pub(crate) fn wake(&self) -> Result<u32> {
        let kinds = self.take();
        if kinds & SLEEPS != 0 {
            self.0.wake(i32::MAX.unsigned_abs())?;
        }
        Ok(kinds)
    }

    /// Wakes everybody who sleeps, announced or not: a process may have been killed after it withdrew their
    /// announcements, and before it woke them.
    pub(crate) fn wake_after_kill(&self) -> Result<()> {
        self.0.fetch_add(COUNT, SeqCst);
        self.0.wake(i32::MAX.unsigned_abs())
    }

    /// Waits while `word` has this value: looks at it `spins` times, then sleeps. Returns the other value, or `None`
    /// once the deadline has passed.
    pub(crate) fn wait_while(
        &self,
        word: &W,
        value: u32,
        spins: u32,
        deadline: Option<&W::Deadline>,
    ) -> Result<Option<u32>> {
        use core::sync::atomic::Ordering::Acquire;

        for _ in 0..spins {
            let found = word.load(Acquire);
            if found != value {
                return Ok(Some(found));
            }
            W::pause();
        }
        let mut in_time = true;
        loop {
            let announced = self.announce(SLEEPS);
            let found = word.load(Acquire);
            if found != value {
                return Ok(Some(found));
            }
            if !in_time {
                return Ok(None);
            }
            in_time = self.0.sleep_while(announced, deadline)?;
        }
    }
}
