//! [`Cursor`]: the position of the writer or of the reader of a ring, and how many bytes it may use.
//!
//! Each side owns one position, which only it stores, and looks at the other one. Positions count bytes, and
//! wrap. The writer may use the bytes between `written` and `read + capacity`, the reader those between `read`
//! and `written`. A side reads the position of the other side only if the bytes that it knows of do not
//! suffice. The release store of a position hands over the bytes behind it, and the acquire load on the other
//! side takes them.
//!
//! `tests/model/ring.rs` checks it with kills at every step. `explored.rs` checks under the memory model (loom and
//! shuttle) that both sides never use the same bytes, and that no wake-up is lost.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Release};
use core::time::Duration;

use crate::error::{Error, Result};
use crate::sync::event_count::EventCount;
use crate::sync::wake::Wait;
use crate::sync::word::Word;

/// All positions are multiples of this many bytes.
pub(super) const UNIT: u32 = 8;

/// The positions, which both sides read.
#[repr(C)]
pub(super) struct Cursors<W> {
    pub(super) written: End<W>,
    pub(super) read: End<W>,
}

/// A position and who waits for it, each in a cache line of its own: the side that stores the position looks for waiters
/// each time, and meanwhile the other side has fetched the line of the position.
#[repr(C)]
pub(super) struct End<W> {
    position: W,
    padding: [AtomicU32; 15],
    waiters: EventCount<W>,
    padding_behind: [AtomicU32; 15],
}

impl<W: Word> End<W> {
    #[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
    pub(super) fn new(word: impl Fn(u32) -> W, position: u32) -> Self {
        Self {
            position: word(position),
            padding: [const { AtomicU32::new(0) }; 15],
            waiters: EventCount::new(word(0)),
            padding_behind: [const { AtomicU32::new(0) }; 15],
        }
    }
}

/// One side's own position, and what it knows about the other one.
#[derive(Debug)]
pub(super) struct Cursor {
    position: u32,
    /// How many bytes after the position belong to this side, at least.
    room: u32,
    /// The room of this side if both positions are the same: the capacity for the writer, 0 for the reader.
    at_rest: u32,
    capacity: u32,
}

impl Cursor {
    /// Continues at the position in the segment. Whoever waits for it is woken, because the previous owner may
    /// have been killed before it could do so.
    pub(super) fn writer<W: Word>(cursors: &Cursors<W>, capacity: u32) -> Result<Self> {
        Self::new(&cursors.written, &cursors.read, capacity, capacity)
    }

    /// As [`writer`](Self::writer).
    pub(super) fn reader<W: Word>(cursors: &Cursors<W>, capacity: u32) -> Result<Self> {
        Self::new(&cursors.read, &cursors.written, 0, capacity)
    }

    fn new<W: Word>(own: &End<W>, other: &End<W>, at_rest: u32, capacity: u32) -> Result<Self> {
        let mut cursor = Self {
            position: own.position.load(Acquire),
            room: 0,
            at_rest,
            capacity,
        };
        if cursor.position % UNIT != 0 {
            return Err(corrupt("a position is not a multiple of 8"));
        }
        cursor.look(other)?;
        // If the system refuses, the other side sleeps until the next message or its timeout.
        let _ = own.waiters.wake_after_kill();
        Ok(cursor)
    }

    /// Returns the position.
    #[inline]
    pub(super) fn position(&self) -> u32 {
        self.position
    }

    /// Returns how many bytes after the position belong to this side, as far as it knows.
    #[inline]
    pub(super) fn room(&self) -> u32 {
        self.room
    }

    /// Reads the position of the other side.
    pub(super) fn look<W: Word>(&mut self, other: &End<W>) -> Result<()> {
        self.accept(other.position.load(Acquire))
    }

    /// Checks the position of the other side. It may only advance, and only through bytes that belong to it, so
    /// that it changes at most `capacity / 8` times before this side moves on.
    fn accept(&mut self, found: u32) -> Result<()> {
        let room = found.wrapping_add(self.at_rest).wrapping_sub(self.position);
        if room > self.capacity {
            return Err(corrupt("the positions are further apart than its capacity"));
        }
        if room % UNIT != 0 {
            return Err(corrupt("a position is not a multiple of 8"));
        }
        if room < self.room {
            return Err(corrupt("a position has gone back"));
        }
        self.room = room;
        Ok(())
    }

    /// Returns `true` once `need` bytes belong to this side, and `false` if they do not at once, or in time.
    #[inline]
    pub(super) fn reach<W>(&mut self, other: &End<W>, need: u32, wait: Option<Wait>) -> Result<bool>
    where
        W: Word<Deadline: PartialOrd>,
    {
        if self.room >= need {
            return Ok(true);
        }
        self.reach_unknown(other, need, wait)
    }

    /// As [`reach`](Self::reach), for more bytes than this side knows of.
    #[inline(never)]
    fn reach_unknown<W>(&mut self, other: &End<W>, need: u32, wait: Option<Wait>) -> Result<bool>
    where
        W: Word<Deadline: PartialOrd>,
    {
        self.look(other)?;
        if self.room >= need {
            return Ok(true);
        }
        let Some(wait) = wait else {
            return Ok(false);
        };
        let deadline = wait.time_limit().and_then(W::after);
        loop {
            let seen = self
                .position
                .wrapping_add(self.room)
                .wrapping_sub(self.at_rest);
            let (word, waiters) = (&other.position, &other.waiters);
            let Some(found) =
                waiters.wait_while(word, seen, wait.spin_count(), deadline.as_ref())?
            else {
                return Ok(false);
            };
            self.accept(found)?;
            if self.room >= need {
                return Ok(true);
            }
            // The other side can advance in many small steps without letting this one sleep.
            if deadline
                .as_ref()
                .is_some_and(|end| W::after(Duration::ZERO).is_some_and(|now| now >= *end))
            {
                return Ok(false);
            }
        }
    }

    /// Hands over the next bytes to the other side, and wakes it if it sleeps.
    #[inline]
    pub(super) fn advance<W: Word>(&mut self, own: &End<W>, by: u32) -> Result<()> {
        self.position = self.position.wrapping_add(by);
        self.room = self.room.saturating_sub(by);
        own.position.store(self.position, Release);
        own.waiters.wake()
    }
}

/// The error if a process has written to the ring what the library never writes.
#[cold]
pub(super) fn corrupt(what: &'static str) -> Error {
    Error::Corrupt { what }
}
