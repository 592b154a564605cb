//! A ring by hand: what a program would write that needs one and trusts its peer.

use std::sync::atomic::{AtomicU32, Ordering, fence};

use bench::Result;
use bench::raw::Pages;

use crate::raw;
use crate::two::futex;

/// The offset of the messages, in bytes.
const HEADER: usize = 4096;

/// Messages of any size, each behind its length, with one writer and one reader. Each side keeps the
/// other's position until it has to wait, and wakes the other only if that sleeps. Only the side that sleeps takes that
/// back: if the other one did, a wake-up could be lost.
pub(crate) struct RawRing {
    pages: Pages,
    capacity: u32,
    written: u32,
    read: u32,
}

impl RawRing {
    pub(crate) fn new(capacity: usize) -> Result<Self> {
        let len = HEADER + capacity;
        let fd = raw::memfd(len)?;
        Ok(Self {
            pages: Pages::shared(&fd, len)?,
            capacity: u32::try_from(capacity)?,
            written: 0,
            read: 0,
        })
    }

    /// The positions are words 0 and 32, and whether a process sleeps there words 16 and 48.
    fn word(&self, index: usize) -> &AtomicU32 {
        // SAFETY: the words are in the first page, which is mapped as long as `self` and accessed as atomics
        // only.
        unsafe { &*self.pages.start().cast::<AtomicU32>().add(index) }
    }

    fn wait(&self, index: usize, value: u32) -> u32 {
        for _ in 0..200 {
            let found = self.word(index).load(Ordering::Acquire);
            if found != value {
                return found;
            }
            core::hint::spin_loop();
        }
        loop {
            self.word(index + 16).store(1, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            let found = self.word(index).load(Ordering::Acquire);
            if found != value {
                self.word(index + 16).store(0, Ordering::Relaxed);
                return found;
            }
            futex(self.word(index), libc::FUTEX_WAIT, value);
        }
    }

    fn publish(&self, index: usize, position: u32) {
        self.word(index).store(position, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.word(index + 16).load(Ordering::Relaxed) != 0 {
            futex(self.word(index), libc::FUTEX_WAKE, 1);
        }
    }

    /// Returns the offset of a record, after skipping what is left before the end if it does not fit there.
    fn place(&self, position: u32, record: u32) -> (u32, usize) {
        let at = position & (self.capacity - 1);
        if self.capacity - at < record {
            (position.wrapping_add(self.capacity - at), HEADER)
        } else {
            (position, HEADER + at as usize)
        }
    }

    pub(crate) fn send(&mut self, payload: &[u8]) {
        let len = payload.len() as u32;
        let record = (len + 8).next_multiple_of(8);
        let (start, offset) = self.place(self.written, record);
        let end = start.wrapping_add(record);
        while end.wrapping_sub(self.read) > self.capacity {
            self.read = self.wait(32, self.read);
        }
        if start != self.written {
            let at = (self.written & (self.capacity - 1)) as usize;
            self.pages.copy(HEADER + at, &u32::MAX.to_ne_bytes());
        }
        self.pages.copy(offset, &len.to_ne_bytes());
        self.pages.copy(offset + 8, payload);
        self.written = end;
        self.publish(0, end);
    }

    pub(crate) fn receive(&mut self) -> u8 {
        while self.written == self.read {
            self.written = self.wait(0, self.read);
        }
        let mut at = HEADER + (self.read & (self.capacity - 1)) as usize;
        let mut len = self.u32_at(at);
        if len == u32::MAX {
            let rest = self.capacity - (self.read & (self.capacity - 1));
            self.read = self.read.wrapping_add(rest);
            at = HEADER;
            len = self.u32_at(at);
        }
        let found = self.byte_at(at + 8) ^ self.byte_at(at + 7 + len as usize);
        self.read = self.read.wrapping_add((len + 8).next_multiple_of(8));
        self.publish(32, self.read);
        found
    }

    fn u32_at(&self, offset: usize) -> u32 {
        // SAFETY: offsets of records are multiples of 8 inside of the mapping, and the writer does not write there
        // now.
        unsafe { self.pages.start().add(offset).cast::<u32>().read_volatile() }
    }

    fn byte_at(&self, offset: usize) -> u8 {
        // SAFETY: the message is inside of the mapping, and the writer does not write there now.
        unsafe { self.pages.start().add(offset).read_volatile() }
    }
}
