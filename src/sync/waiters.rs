//! [`Waiters`]: whether anybody has to be woken when a word changes.
//!
//! The waiter announces itself and then looks at the word once more; the one that changes the word does so
//! first and then asks. At least one of them sees what the other did, so that no wake-up is lost; and nobody
//! makes a system call unless somebody waits. The announcement of a process that was killed costs one
//! superfluous wake-up.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::word::Word;
use crate::error::Result;

/// A process or thread sleeps until the word changes.
pub(crate) const SLEEPS: u32 = 1;
/// A process waits for its doorbell.
pub(crate) const LISTENS: u32 = 2;

/// Who waits for a word: a word next to it.
#[repr(transparent)]
pub(crate) struct Waiters<W>(W);

impl<W: Word> Waiters<W> {
    #[cfg(test)]
    pub(crate) fn new(word: W) -> Self {
        Self(word)
    }

    /// Announces a waiter of this kind. The caller looks at the word afterwards, and waits only if it has
    /// not changed.
    pub(crate) fn announce(&self, kind: u32) {
        self.0.fetch_or(kind, SeqCst);
        W::fence(SeqCst);
    }

    /// Withdraws all announcements, and returns them. The caller has changed the word before, and wakes whom
    /// it finds here.
    pub(crate) fn take(&self) -> u32 {
        W::fence(SeqCst);
        if self.0.load(Relaxed) == 0 {
            return 0;
        }
        self.0.swap(0, SeqCst)
    }

    /// Wakes everybody who sleeps until `word`, which has just been changed, changes. Returns the kinds of waiters
    /// there were.
    pub(crate) fn wake(&self, word: &W) -> Result<u32> {
        let kinds = self.take();
        if kinds & SLEEPS != 0 {
            word.wake(i32::MAX.unsigned_abs())?;
        }
        Ok(kinds)
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
            self.announce(SLEEPS);
            let found = word.load(Acquire);
            if found != value {
                return Ok(Some(found));
            }
            if !in_time {
                return Ok(None);
            }
            in_time = word.sleep_while(value, deadline)?;
        }
    }
}
