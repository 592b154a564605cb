//! How messages lie in the data area: records that start at multiples of 8 bytes.
//!
//! A record is the length of the message in bytes (32 bits), 4 unused bytes, the message, and up to 7 unused
//! bytes. It never wraps: where the rest of the area is too short, that rest is one padding record, with the
//! length [`PADDING`]. A message takes at most half of the area, so that there is room for it and the padding
//! before it once the ring is empty.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use super::cursor::{UNIT, corrupt};
use crate::error::{Error, Result};
use crate::memory::access::Access;

/// What a record has in front of its message, in bytes.
const PREFIX: u32 = UNIT;
/// The length of a padding record.
const PADDING: u32 = u32::MAX;

/// Returns the length of the longest message, in bytes.
pub(super) const fn max_message(capacity: u32) -> u32 {
    (capacity / 2).saturating_sub(PREFIX)
}

/// Returns a length that is valid in a ring with this capacity.
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
    pub(super) fn read(data: Access<'_>, position: u32, room: u32, capacity: u32) -> Result<Self> {
        let mut found = Self {
            skip: 0,
            start: offset(position, capacity),
            len: 0,
        };
        found.len = word(data, found.start)?.load(Relaxed);
        if found.len == PADDING {
            found.skip = capacity - found.start;
            if found.start == 0 || found.skip >= room {
                return Err(corrupt("padding is not followed by a message"));
            }
            found.start = 0;
            found.len = word(data, 0)?.load(Relaxed);
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
    pub(super) fn write(&self, data: Access<'_>) -> Result<()> {
        if self.skip > 0 {
            // The padding ends where the data end.
            let end = u32::try_from(data.len()).unwrap_or(u32::MAX);
            word(data, end.saturating_sub(self.skip))?.store(PADDING, Relaxed);
        }
        word(data, self.start)?.store(self.len, Relaxed);
        Ok(())
    }

    /// Returns the same record with a message of another valid length.
    pub(super) fn with_len(self, len: u32) -> Self {
        Self { len, ..self }
    }

    /// Returns the number of bytes that the record takes, including the padding in front of it.
    pub(super) fn total(&self) -> u32 {
        self.skip + size(self.len)
    }

    /// Returns the length of the message.
    pub(super) fn len(&self) -> usize {
        index(self.len)
    }

    /// Returns access to the message.
    pub(super) fn message<'a>(&self, data: Access<'a>) -> Result<Access<'a>> {
        data.range(index(self.start + PREFIX), self.len())
    }
}

/// Returns the size of a record with a message of a valid length, in bytes.
fn size(len: u32) -> u32 {
    PREFIX + len.next_multiple_of(UNIT)
}

/// Returns where a position is in the data area.
fn offset(position: u32, capacity: u32) -> u32 {
    position & capacity.wrapping_sub(1)
}

fn word(data: Access<'_>, offset: u32) -> Result<&AtomicU32> {
    data.view(index(offset))
}

/// Returns a number as one of bytes in memory. There is no system with fewer than 32 bits.
pub(super) fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
