//! How messages lie in the data area: records that start at multiples of 8 bytes.
//!
//! A record is the length of the message in bytes (32 bits), 4 unused bytes, the message, and up to 7 unused
//! bytes. It never wraps: where the rest of the area is too short, that rest is one padding record, with the
//! length [`PADDING`]. A message takes at most half of the area, so that there is room for it and the padding
//! before it once the ring is empty.

use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU8, AtomicU32};

use super::cursor::{UNIT, corrupt};
use crate::error::{Error, Result};

/// What a record has in front of its message, in bytes.
const PREFIX: u32 = UNIT;
/// The length of a padding record.
const PADDING: u32 = u32::MAX;

/// Returns the length of the longest message, in bytes.
pub(super) const fn max_message(capacity: u32) -> u32 {
    (capacity / 2).saturating_sub(PREFIX)
}

/// Returns a length that is valid in a ring with this capacity.
#[inline]
pub(super) fn checked_len(len: usize, capacity: u32) -> Result<u32> {
    let max = max_message(capacity);
    match u32::try_from(len) {
        Ok(len) if len <= max => Ok(len),
        _ => Err(Error::MessageTooLong {
            len,
            max: index(max),
        }),
    }
}

/// The data area, twice.
#[derive(Clone, Copy)]
pub(super) struct Data<'a> {
    pub(super) words: &'a [AtomicU32],
    pub(super) bytes: &'a [AtomicU8],
}

impl<'a> Data<'a> {
    #[inline]
    fn word(self, offset: u32) -> Result<&'a AtomicU32> {
        let word = self.words.get(index(offset / 4));
        word.ok_or_else(|| corrupt("a record is outside of the data"))
    }

    fn capacity(self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }
}

/// Where a record is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    /// The size of the padding record in front of it, in bytes.
    skip: u32,
    /// Where the record starts in the data area.
    start: u32,
    /// The length of the message.
    len: u32,
}

impl Record {
    /// Returns where a record for a message of a valid length goes.
    #[inline]
    pub(super) fn at(position: u32, len: u32, capacity: u32) -> Self {
        let start = offset(position, capacity);
        let rest = capacity - start;
        if size(len) <= rest {
            return Self {
                skip: 0,
                start,
                len,
            };
        }
        Self {
            skip: rest,
            start: 0,
            len,
        }
    }

    /// Returns the record at a position, after which `room` bytes belong to the reader.
    #[inline]
    pub(super) fn read(data: Data<'_>, position: u32, room: u32, capacity: u32) -> Result<Self> {
        let mut found = Self {
            skip: 0,
            start: offset(position, capacity),
            len: 0,
        };
        found.len = data.word(found.start)?.load(Relaxed);
        if found.len == PADDING {
            found.skip = capacity - found.start;
            if found.start == 0 || found.skip >= room {
                return Err(corrupt("padding is not followed by a message"));
            }
            found.start = 0;
            found.len = data.word(0)?.load(Relaxed);
        }
        if found.len > max_message(capacity) {
            return Err(corrupt("a message is longer than any can be"));
        }
        if found.total() > room {
            return Err(corrupt("a message reaches beyond what was sent"));
        }
        if size(found.len) > capacity - found.start {
            return Err(corrupt("a message reaches beyond the end of the data"));
        }
        Ok(found)
    }

    /// Writes the length of the message, and the padding.
    #[inline]
    pub(super) fn write(&self, data: Data<'_>) -> Result<()> {
        if self.skip > 0 {
            let position = data.capacity().wrapping_sub(self.skip);
            data.word(position)?.store(PADDING, Relaxed);
        }
        data.word(self.start)?.store(self.len, Relaxed);
        Ok(())
    }

    /// Returns the same record with a message of another valid length.
    #[inline]
    pub(super) fn with_len(self, len: u32) -> Self {
        Self { len, ..self }
    }

    /// Returns the number of bytes that the record takes, including the padding in front of it.
    #[inline]
    pub(super) fn total(&self) -> u32 {
        self.skip + size(self.len)
    }

    /// Returns the length of the message.
    #[inline]
    pub(super) fn len(&self) -> usize {
        index(self.len)
    }

    /// Returns the bytes of the message.
    #[inline]
    pub(super) fn message<'a>(&self, data: Data<'a>) -> &'a [AtomicU8] {
        let start = index(self.start + PREFIX);
        let bytes = data.bytes.get(start..start.saturating_add(self.len()));
        // It was checked that they are in the data.
        bytes.unwrap_or_default()
    }
}

/// Returns the size of a record with a message of a valid length, in bytes.
#[inline]
fn size(len: u32) -> u32 {
    PREFIX + len.next_multiple_of(UNIT)
}

/// Returns where a position is in the data area.
#[inline]
fn offset(position: u32, capacity: u32) -> u32 {
    position & capacity.wrapping_sub(1)
}

/// Returns a number as one of bytes in memory. There is no system with fewer than 32 bits.
#[inline]
pub(super) fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
