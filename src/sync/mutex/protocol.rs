//! The algorithm of [`Mutex`](super::Mutex), for any [`Word`].
//!
//! `tests/model/mutex.rs` checks it, with kills at every step; `explored.rs` explores its schedules with
//! `loom` and `shuttle`.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::time::Duration;

use crate::error::Result;
use crate::sync::word::Word;

/// Set in the word if a thread may be asleep. The other bits are the id of the owner.
const WAITED_FOR: u32 = 1 << 31;

/// How long a waiter sleeps before it asks again whether the owner is alive. No wake-up announces a death.
pub(crate) const SLICE: Duration = Duration::from_millis(20);

/// Tells whether participants are alive.
pub(crate) trait Liveness {
    fn is_alive(&self, id: u32) -> Result<bool>;
}

/// How an attempt to lock ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Locked,
    /// Locked, and the owner before has died with the lock.
    Abandoned,
    /// Another participant, or another thread of this one, had the lock until the deadline. The word is this.
    Held(u32),
}

/// The word of a lock: 0 if it is unlocked.
#[repr(transparent)]
pub(crate) struct Protocol<W>(W);

impl<W: Word> Protocol<W> {
    #[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
    pub(crate) fn new(word: W) -> Self {
        Self(word)
    }

    /// Wakes all sleepers, who then ask whether the owner is alive.
    #[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
    pub(crate) fn wake_to_ask(&self) -> Result<()> {
        self.0.wake(i32::MAX.unsigned_abs())
    }

    /// Locks unless a living participant has the lock.
    pub(crate) fn try_lock(&self, me: u32, others: &impl Liveness) -> Result<Outcome> {
        self.attempt(me, me, others)
    }

    /// Locks. `new` is `me`, with `WAITED_FOR` if others may be asleep.
    fn attempt(&self, me: u32, new: u32, others: &impl Liveness) -> Result<Outcome> {
        let Err(found) = self.0.compare_exchange(0, new, Acquire, Relaxed) else {
            return Ok(Outcome::Locked);
        };
        let owner = found & !WAITED_FOR;
        if owner == me || others.is_alive(owner)? {
            return Ok(Outcome::Held(found));
        }
        // Those who wait for the dead owner now wait for this one.
        let new = new | found & WAITED_FOR;
        let taken = self.0.compare_exchange(found, new, Acquire, Relaxed);
        Ok(taken.map_or_else(Outcome::Held, |_| Outcome::Abandoned))
    }

    /// Locks if nobody has the lock, and returns `false` otherwise.
    #[inline]
    pub(crate) fn lock_at_once(&self, me: u32) -> bool {
        self.0.compare_exchange(0, me, Acquire, Relaxed).is_ok()
    }

    /// Locks, and waits until the deadline while a living participant has the lock.
    pub(crate) fn lock(
        &self,
        me: u32,
        others: &impl Liveness,
        spins: u32,
        deadline: Option<&W::Deadline>,
    ) -> Result<Outcome> {
        if self.lock_at_once(me) {
            return Ok(Outcome::Locked);
        }
        for _ in 0..spins {
            if self.0.load(Relaxed) == 0 {
                break;
            }
            W::pause();
        }
        let mut new = me;
        loop {
            let found = match self.attempt(me, new, others)? {
                Outcome::Held(found) => found,
                outcome => return Ok(outcome),
            };
            if is_past::<W>(deadline) {
                return Ok(Outcome::Held(found));
            }
            let waited_for = found | WAITED_FOR;
            if found == 0
                || found != waited_for
                    && self
                        .0
                        .compare_exchange(found, waited_for, Relaxed, Relaxed)
                        .is_err()
            {
                continue;
            }
            // Only one sleeper is woken at a time, and it wakes the next one.
            new = me | WAITED_FOR;
            self.0
                .sleep_while(waited_for, earlier::<W>(deadline, W::after(SLICE).as_ref()))?;
        }
    }

    /// Unlocks, and wakes one sleeper if there may be one. Does nothing if the lock is not this participant's.
    #[inline]
    pub(crate) fn unlock(&self, me: u32) -> Result<()> {
        match self.0.compare_exchange(me, 0, Release, Relaxed) {
            Ok(_) => Ok(()),
            Err(found) => self.unlock_and_wake(me, found),
        }
    }

    #[cold]
    fn unlock_and_wake(&self, me: u32, found: u32) -> Result<()> {
        let waited_for = me | WAITED_FOR;
        if found == waited_for && self.0.compare_exchange(found, 0, Release, Relaxed).is_ok() {
            self.0.wake(1)?;
        }
        Ok(())
    }

    /// Returns `true` if the owner has died.
    pub(crate) fn is_abandoned(&self, others: &impl Liveness) -> Result<bool> {
        let owner = self.0.load(Relaxed) & !WAITED_FOR;
        Ok(owner != 0 && !others.is_alive(owner)?)
    }
}

/// Returns `true` if there is a deadline, and it has passed.
pub(crate) fn is_past<W: Word>(deadline: Option<&W::Deadline>) -> bool {
    let now = W::after(Duration::ZERO);
    deadline.is_some_and(|deadline| now.is_some_and(|now| now >= *deadline))
}

/// Returns the deadline that passes first, if there is one.
pub(crate) fn earlier<'a, W: Word>(
    one: Option<&'a W::Deadline>,
    other: Option<&'a W::Deadline>,
) -> Option<&'a W::Deadline> {
    one.into_iter().chain(other).min()
}
