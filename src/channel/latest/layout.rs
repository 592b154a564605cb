//! What the segment of a [`Latest`](super::Latest) contains: a header, what each slot starts with, the values.
//! Everything starts at a multiple of 64 bytes.
#![allow(unsafe_code)]

use core::borrow::Borrow;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use super::protocol::Slot;
use crate::error::{Result, TypeMismatch};
use crate::memory::access::Access;
use crate::memory::layout::SharedLayout;
use crate::sharing::format::{Format, Prefix};
use crate::sync::event_count::EventCount;

const FORMAT: Format = Format::new(*b"sLat", 1);

/// A cache line, and the alignment of each value, in bytes.
const LINE: usize = 64;

/// The smallest and the largest number of slots.
const MIN_SLOTS: usize = 2;
const MAX_SLOTS: usize = 1 << 16;

/// The first three lines. The first one does not change once it is initialised. The writer looks for waiters each time it
/// has published, when readers have fetched the line of the number.
#[repr(C)]
pub(super) struct Header {
    prefix: Prefix,
    max_len: AtomicU32,
    slots: AtomicU32,
    reserved: [AtomicU32; 12],
    /// The low word of the number of the newest value. Readers sleep on it.
    pub(super) newest: AtomicU32,
    behind_newest: [AtomicU32; 15],
    pub(super) waiters: EventCount<AtomicU32>,
    behind_waiters: [AtomicU32; 15],
}

// SAFETY: the structure is `repr(C)`, and all of its fields are atomic integers: `EventCount` is one, and
// `repr(transparent)`.
unsafe impl SharedLayout for Header {}

/// The line of a slot.
#[repr(C)]
pub(super) struct Line {
    slot: Slot<AtomicU32>,
    reserved: [AtomicU32; 13],
}

// SAFETY: the structure and `Slot` are `repr(C)`, and all of their fields are atomic integers.
unsafe impl SharedLayout for Line {}

impl Borrow<Slot<AtomicU32>> for Line {
    fn borrow(&self) -> &Slot<AtomicU32> {
        &self.slot
    }
}

/// The number and the size of the slots.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    /// A power of two.
    pub(super) slots: usize,
    /// The largest length of a value in bytes, at most `u32::MAX`.
    pub(super) max_len: usize,
}

impl Geometry {
    /// Where the slots start in bytes.
    pub(super) const LINES: usize = size_of::<Header>();

    pub(super) fn new(max_len: usize, slots: usize) -> Self {
        let slots = slots.clamp(MIN_SLOTS, MAX_SLOTS).next_power_of_two();
        Self { slots, max_len }
    }

    /// Where the values start in bytes.
    pub(super) fn values(self) -> usize {
        Self::LINES + self.slots * size_of::<Line>()
    }

    /// The distance between two values in bytes, or `usize::MAX` if they are too large.
    pub(super) fn stride(self) -> usize {
        match u32::try_from(self.max_len) {
            Ok(_) => self.max_len.checked_next_multiple_of(LINE),
            Err(_) => None,
        }
        .unwrap_or(usize::MAX)
    }

    /// The size of all values in bytes.
    pub(super) fn len(self) -> usize {
        self.stride().saturating_mul(self.slots)
    }

    /// The size of the segment in bytes. `usize::MAX`, which no segment has, if that is too much.
    pub(super) fn size(self) -> usize {
        self.values().saturating_add(self.len())
    }

    /// Writes the header, and zeros to all other words of this crate. No value is published then.
    pub(super) fn write(self, access: Access<'_>) -> Result<()> {
        let header = access.view::<Header>(0)?;
        // All of it has to be there.
        access.range(0, self.size())?;
        access.range(0, self.values())?.fill(0);
        // Both fit: the size has been checked.
        let word = |number| u32::try_from(number).unwrap_or(u32::MAX);
        header.max_len.store(word(self.max_len), Relaxed);
        header.slots.store(word(self.slots), Relaxed);
        FORMAT.state(access)
    }

    /// Reads the header. Returns `None` if it does not describe the segment.
    pub(super) fn read(access: Access<'_>) -> Result<Option<Self>, TypeMismatch> {
        FORMAT.check(access)?;
        let header = access.view::<Header>(0);
        let header = header.map_err(|_| TypeMismatch::NotTyped)?;
        let number = |word: &AtomicU32| usize::try_from(word.load(Relaxed)).unwrap_or(usize::MAX);
        let (slots, max_len) = (number(&header.slots), number(&header.max_len));
        let geometry = Self::new(max_len, slots);
        Ok((geometry.slots == slots && geometry.size() <= access.len()).then_some(geometry))
    }
}
