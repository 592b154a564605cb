//! [`Protocol`]: how the newest value is published in slots, and how a reader notices that its slot was reused.
//!
//! Values are numbered from 1, by 64 bits in two words. The value of number `n` is in slot `n % slots`, so
//! that the published one is never overwritten by the next. A slot is a seqlock:
//!
//! * The writer sets `state` to the inverted low word of the new number, which no reader of this slot expects,
//!   then writes everything else, then sets `state` to the low word itself. After that it publishes by one
//!   store of the low word to `newest`. If it is killed before, `newest` still names an intact slot, and the
//!   next writer uses the same slot again.
//! * A reader loads the low word of the newest number, then the high word in the slot, then `state`. It copies the
//!   value and looks at `state` and the high word again. The low word alone could be that of a value 2^32 later.
//!   In this order, equal high words at both looks mean that all values that were in the slot since the first
//!   look have the same high word, and then equal low words mean that there was only one.
//!
//! All words are zero at first: no value has number 0.
//!
//! `tests/model/latest.rs` checks this with numbers of a few bits, with a writer that is killed after any store.
//! The tests below run the code under every schedule (loom) and under random ones (shuttle).

use core::borrow::Borrow;
use core::marker::PhantomData;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::sync::word::Word;

/// What a slot starts with.
#[repr(C)]
pub(super) struct Slot<W> {
    state: W,
    high: W,
    len: W,
}

/// The words of a segment.
pub(super) struct Protocol<'a, W, S> {
    newest: &'a W,
    slots: &'a [S],
    word: PhantomData<W>,
}

/// A slot that is being written or read.
pub(super) struct Claim<'a, W> {
    slot: &'a Slot<W>,
    /// The number of the slot.
    pub(super) index: usize,
    /// The number of the value.
    pub(super) sequence: u64,
}

/// A value that a reader has found.
pub(super) struct Found<'a, W> {
    pub(super) claim: Claim<'a, W>,
    /// Its length in bytes, as the slot states it.
    pub(super) len: u32,
}

/// Why there was nothing to copy, or the copy is useless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// The slot was reused.
    Lapped,
    /// The slot does not contain the value that is said to be in it.
    Corrupt,
}

impl<'a, W: Word, S: Borrow<Slot<W>>> Protocol<'a, W, S> {
    /// Takes at least two slots; their number is a power of two.
    pub(super) fn new(newest: &'a W, slots: &'a [S]) -> Self {
        Self {
            newest,
            slots,
            word: PhantomData,
        }
    }

    /// Returns the slot of a value, or `None` if there are no slots.
    fn slot(&self, low: u32) -> Option<(usize, &'a Slot<W>)> {
        let index = low as usize & self.slots.len().wrapping_sub(1);
        Some((index, self.slots.get(index)?.borrow()))
    }

    /// Returns the number of the newest value, for a process that is or becomes the writer: nobody else changes
    /// what this reads.
    pub(super) fn published(&self) -> u64 {
        let low = self.newest.load(Acquire);
        let high = self
            .slot(low)
            .map_or(0, |(_, slot)| slot.high.load(Relaxed));
        join(high, low)
    }

    /// Claims the slot of the next value. Nobody else writes to it until another value is claimed.
    pub(super) fn begin(&self) -> Option<Claim<'a, W>> {
        let sequence = self.published().wrapping_add(1);
        let (high, low) = split(sequence);
        let (index, slot) = self.slot(low)?;
        // A reader that sees this also sees that `newest` has changed since the slot was published.
        slot.state.store(!low, Release);
        // A reader that sees anything written from here on also sees that.
        W::fence(Release);
        slot.high.store(high, Relaxed);
        Some(Claim {
            slot,
            index,
            sequence,
        })
    }

    /// Publishes the value, which is written.
    pub(super) fn publish(&self, claim: &Claim<'_, W>, len: u32) {
        let (_, low) = split(claim.sequence);
        claim.slot.len.store(len, Relaxed);
        claim.slot.state.store(low, Release);
        self.newest.store(low, Release);
    }

    /// Finds the newest value. [`check`](Self::check) then tells whether what was copied belongs to it.
    pub(super) fn find(&self) -> Result<Found<'a, W>, Lost> {
        let low = self.newest.load(Acquire);
        let (index, slot) = self.slot(low).ok_or(Lost::Corrupt)?;
        let high = slot.high.load(Acquire);
        if slot.state.load(Acquire) != low {
            return Err(self.loss(low));
        }
        Ok(Found {
            len: slot.len.load(Relaxed),
            claim: Claim {
                slot,
                index,
                sequence: join(high, low),
            },
        })
    }

    /// Succeeds if everything that was read from the slot since it was found belongs to the value.
    pub(super) fn check(&self, claim: &Claim<'_, W>) -> Result<(), Lost> {
        let (high, low) = split(claim.sequence);
        W::fence(Acquire);
        // In this order: the high word is then at least as new.
        if claim.slot.state.load(Acquire) == low && claim.slot.high.load(Acquire) == high {
            Ok(())
        } else {
            Err(self.loss(low))
        }
    }

    /// Returns why the slot of the newest value contains another one.
    fn loss(&self, low: u32) -> Lost {
        if self.newest.load(Acquire) == low {
            Lost::Corrupt
        } else {
            Lost::Lapped
        }
    }
}

fn join(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// Returns the high and the low word.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the low word is what is asked for"
)]
pub(super) fn split(sequence: u64) -> (u32, u32) {
    ((sequence >> 32) as u32, sequence as u32)
}

#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod tests;
