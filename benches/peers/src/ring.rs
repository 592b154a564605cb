//! Messages through [`Ring`], beside a ring by hand with the same layout and raw pointers.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};
use std::time::Instant;

use bench::Result;
use bench::pairs::Pairs;
use bench::raw::Pages;
use shmem_providers::StdShMemProvider;
use shmem_providers::channel::Ring;
use shmem_providers::wake::Wait;

use crate::raw;
use crate::two::{BATCHES, futex, with_child};

/// The indices of the positions. The word after each says whether a process waits for it.
const WRITTEN: usize = 32;
const READ: usize = 64;
/// Where the data start in bytes.
const DATA: usize = 384;

/// One side of the ring by hand.
struct ByHand {
    pages: Pages,
    capacity: u32,
    position: u32,
    /// The position of the other side, as last seen.
    other: u32,
}

impl ByHand {
    fn word(&self, index: usize) -> &AtomicU32 {
        // SAFETY: the words are in the first page, which is mapped as long as `self` and accessed as atomics
        // only.
        unsafe { &*self.pages.start().cast::<AtomicU32>().add(index) }
    }

    fn at(&self, position: u32) -> *mut u8 {
        let offset = DATA + (position & (self.capacity - 1)) as usize;
        // SAFETY: the mapping has the capacity behind the header.
        unsafe { self.pages.start().add(offset) }
    }

    fn wait(&mut self, index: usize) {
        for _ in 0..200 {
            let found = self.word(index).load(Acquire);
            if found != self.other {
                self.other = found;
                return;
            }
            core::hint::spin_loop();
        }
        // Sleeps on the announcement, which a wake-up withdraws.
        let (word, waiting) = (self.word(index), self.word(index + 1));
        loop {
            waiting.store(1, SeqCst);
            fence(SeqCst);
            if word.load(Acquire) != self.other {
                break;
            }
            futex(waiting, libc::FUTEX_WAIT, 1);
        }
        self.other = word.load(Acquire);
    }

    fn advance(&mut self, index: usize, by: u32) {
        self.position = self.position.wrapping_add(by);
        let (word, waiting) = (self.word(index), self.word(index + 1));
        word.store(self.position, Release);
        fence(SeqCst);
        if waiting.load(Relaxed) != 0 && waiting.swap(0, SeqCst) != 0 {
            futex(waiting, libc::FUTEX_WAKE, 1);
        }
    }

    fn send(&mut self, payload: &[u8]) {
        let len = payload.len() as u32;
        let size = 8 + len.next_multiple_of(8);
        let rest = self.capacity - (self.position & (self.capacity - 1));
        let skip = if size <= rest { 0 } else { rest };
        if self.position.wrapping_sub(self.other) > self.capacity - skip - size {
            self.other = self.word(READ).load(Acquire);
        }
        while self.position.wrapping_sub(self.other) > self.capacity - skip - size {
            self.wait(READ);
        }
        // SAFETY: the record does not wrap, and the reader does not use its bytes.
        unsafe {
            if skip > 0 {
                self.at(self.position).cast::<u32>().write(u32::MAX);
            }
            let record = self.at(self.position.wrapping_add(skip));
            record.cast::<u32>().write(len);
            record
                .add(8)
                .copy_from_nonoverlapping(payload.as_ptr(), payload.len());
        }
        self.advance(WRITTEN, skip + size);
    }

    fn receive(&mut self, use_it: impl FnOnce(&[u8])) {
        if self.position == self.other {
            self.other = self.word(WRITTEN).load(Acquire);
        }
        while self.position == self.other {
            self.wait(WRITTEN);
        }
        let mut record = self.at(self.position);
        // SAFETY: the writer has written the record, and does not use its bytes now.
        let mut len = unsafe { record.cast::<u32>().read() };
        let mut skip = 0;
        if len == u32::MAX {
            skip = self.capacity - (self.position & (self.capacity - 1));
            record = self.at(0);
            // SAFETY: as above.
            len = unsafe { record.cast::<u32>().read() };
        }
        // SAFETY: as above.
        use_it(unsafe { std::slice::from_raw_parts(record.add(8), len as usize) });
        self.advance(READ, skip + 8 + len.next_multiple_of(8));
    }
}

/// Sends messages of this size to another process, which copies them if `is_copied`, and otherwise uses them in
/// place. Returns ours beside the ring by hand.
pub(crate) fn messages(size: usize, is_copied: bool) -> Result<Pairs> {
    let count = match size {
        0..1024 => 50_000,
        1024..=4096 => 10_000,
        4097..=65_536 => 1000,
        _ => 60,
    };
    let capacity = (4 * size).next_power_of_two().max(1 << 16);
    let ring = Ring::create(&mut StdShMemProvider::default(), capacity)?;
    let (mut writer, mut reader) = (ring.writer()?, ring.reader()?);
    let len = Ring::size(capacity)?;
    let fd = raw::memfd(len)?;
    let side = || -> Result<_> {
        Ok(ByHand {
            pages: Pages::shared(&fd, len)?,
            capacity: u32::try_from(capacity)?,
            position: 0,
            other: 0,
        })
    };
    let (mut mine, mut theirs) = (side()?, side()?);
    let (mut done, mut report) = UnixStream::pair()?;
    let payload = vec![7_u8; size];
    with_child(
        move || {
            let mut buffer = vec![0; size];
            for _ in 0..BATCHES {
                for _ in 0..count {
                    if is_copied {
                        reader.recv_into(&mut buffer, Wait::new())?;
                        continue;
                    }
                    let message = reader.peek(Wait::new())?.ok_or("there is no timeout")?;
                    let bytes = message.access().as_atomic_u8();
                    core::hint::black_box(bytes[0].load(Relaxed) ^ bytes[size - 1].load(Relaxed));
                    message.release()?;
                }
                report.write_all(&[1])?;
                for _ in 0..count {
                    theirs.receive(|bytes| {
                        if is_copied {
                            buffer.copy_from_slice(bytes);
                        } else {
                            core::hint::black_box(bytes[0] ^ bytes[size - 1]);
                        }
                    });
                }
                report.write_all(&[1])?;
            }
            Ok(())
        },
        || {
            let mut pairs = Pairs::default();
            let mut answer = [0];
            for _ in 0..BATCHES {
                let mut timed = |work: &mut dyn FnMut() -> Result| -> Result<f64> {
                    let start = Instant::now();
                    work()?;
                    done.read_exact(&mut answer)?;
                    Ok(start.elapsed().as_secs_f64() / f64::from(count))
                };
                let ours = timed(&mut || {
                    for _ in 0..count {
                        writer.send(&payload, Wait::new())?;
                    }
                    Ok(())
                })?;
                let by_hand = timed(&mut || {
                    (0..count).for_each(|_| mine.send(&payload));
                    Ok(())
                })?;
                pairs.push(ours, by_hand);
            }
            Ok(pairs)
        },
    )
}
