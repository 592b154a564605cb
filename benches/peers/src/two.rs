//! Rows with two processes: round trips, rings, forks.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering::Acquire, Ordering::Release};
use std::time::Instant;

use bench::Result;
use bench::pairs::Pairs;
use bench::raw::Pages;
use shmem_providers::wake::{self, Wait};
use shmem_providers::{Access, ShMem, ShMemProvider, StdShMem, StdShMemProvider};

use crate::raw;

/// Runs `theirs` in a forked child and `ours` in this process, and returns the result of `ours`.
pub(crate) fn with_child<T>(
    theirs: impl FnOnce() -> Result,
    ours: impl FnOnce() -> Result<T>,
) -> Result<T> {
    // SAFETY: this program has one thread.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error().into()),
        0 => {
            let code = i32::from(theirs().is_err());
            // SAFETY: the function has no preconditions.
            unsafe { libc::_exit(code) }
        }
        child => {
            let result = ours();
            // SAFETY: a null pointer for the status is allowed.
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
            result
        }
    }
}

/// How two processes wait for each other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Spinning,
    Sleeping,
}

/// The number of batches of each side.
pub(crate) const BATCHES: u32 = 40;

/// Measures round trips over a word of a segment, and over one of raw memory by hand.
pub(crate) fn round_trip(by: By) -> Result<Pairs> {
    let rounds = if by == By::Spinning { 5000 } else { 500 };
    let mut provider = StdShMemProvider::new()?;
    let mut segment = provider.new_shmem(4096)?;
    let mut theirs = provider.clone_ref(&segment)?;
    let fd = raw::memfd(4096)?;
    let pages = Pages::shared(&fd, 4096)?;
    let wait = match by {
        By::Spinning => Wait::new().spins(u32::MAX),
        By::Sleeping => Wait::new().spins(0),
    };
    let ours = move |word: &AtomicU32, mine: u32| -> Result {
        word.store(mine, Release);
        if by == By::Sleeping {
            wake::one(word)?;
        }
        Ok(())
    };
    let our_wait = move |word: &AtomicU32, value: u32| -> Result {
        while word.load(Acquire) != value {
            wait.while_equal(word, value.wrapping_sub(1))?;
        }
        Ok(())
    };
    // SAFETY: the page is mapped until the end of this function, and accessed as an atomic only.
    let raw_word: &AtomicU32 = unsafe { &*pages.start().cast::<AtomicU32>() };
    let raw_set = move |mine: u32| {
        raw_word.store(mine, Release);
        if by == By::Sleeping {
            futex(raw_word, libc::FUTEX_WAKE, 1);
        }
    };
    let raw_wait = move |value: u32| {
        while raw_word.load(Acquire) != value {
            if by == By::Sleeping {
                futex(raw_word, libc::FUTEX_WAIT, value.wrapping_sub(1));
            } else {
                core::hint::spin_loop();
            }
        }
    };
    with_child(
        || {
            let word = &theirs.access().as_atomic_u32()?[0];
            let (mut a, mut b) = (0_u32, 0_u32);
            for _ in 0..BATCHES {
                for _ in 0..rounds {
                    our_wait(word, a + 1)?;
                    a += 2;
                    ours(word, a)?;
                }
                for _ in 0..rounds {
                    raw_wait(b + 1);
                    b += 2;
                    raw_set(b);
                }
            }
            Ok(())
        },
        || {
            let word = &segment.access().as_atomic_u32()?[0];
            let (mut a, mut b) = (0_u32, 0_u32);
            let mut pairs = Pairs::default();
            for _ in 0..BATCHES {
                let start = Instant::now();
                for _ in 0..rounds {
                    ours(word, a + 1)?;
                    a += 2;
                    our_wait(word, a)?;
                }
                let first = start.elapsed().as_secs_f64() / f64::from(rounds);
                let start = Instant::now();
                for _ in 0..rounds {
                    raw_set(b + 1);
                    b += 2;
                    raw_wait(b);
                }
                pairs.push(first, start.elapsed().as_secs_f64() / f64::from(rounds));
            }
            Ok(pairs)
        },
    )
}

pub(crate) fn futex(word: &AtomicU32, call: i32, value: u32) {
    // SAFETY: the word is borrowed, and these calls use no further pointer but the time, which is null.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), call, value, 0_usize) };
}

/// The number of payloads that the ring holds at the same time.
const SLOTS: u32 = 4;
/// The offset of the payloads, in bytes. Before them are the numbers of payloads written and read.
const HEADER: usize = 4096;

/// A ring in a segment. One process sends, the other receives.
struct Ring<'a> {
    access: Access<'a>,
    written: &'a AtomicU32,
    read: &'a AtomicU32,
    size: usize,
}

impl<'a> Ring<'a> {
    fn of(segment: &'a mut StdShMem, size: usize) -> Result<Self> {
        let access = segment.access();
        let words = access.as_atomic_u32()?;
        Ok(Self {
            access,
            written: &words[0],
            read: &words[32],
            size,
        })
    }

    fn send(&self, number: u32, payload: &[u8]) -> Result {
        let mut read = self.read.load(Acquire);
        while number - read == SLOTS {
            read = Wait::new().while_equal(self.read, read)?.unwrap_or(read);
        }
        let slot = HEADER + (number % SLOTS) as usize * self.size;
        self.access.write_at(slot, payload)?;
        self.written.store(number + 1, Release);
        wake::one(self.written)?;
        Ok(())
    }

    fn receive(&self, number: u32) -> Result<u8> {
        let mut written = self.written.load(Acquire);
        while written == number {
            written = Wait::new()
                .while_equal(self.written, written)?
                .unwrap_or(written);
        }
        let slot = HEADER + (number % SLOTS) as usize * self.size;
        // Used in place. Reading the first and the last byte stands for that.
        let payload = self.access.range(slot, self.size)?.as_atomic_u8();
        let found = payload[0].load(Acquire) ^ payload[self.size - 1].load(Acquire);
        self.read.store(number + 1, Release);
        wake::one(self.read)?;
        Ok(found)
    }
}

/// The same by hand.
struct RawRing {
    pages: Pages,
    size: usize,
}

impl RawRing {
    fn word(&self, index: usize) -> &AtomicU32 {
        // SAFETY: the words are in the first page, which is mapped as long as `self` and accessed as atomics
        // only.
        unsafe { &*self.pages.start().cast::<AtomicU32>().add(index) }
    }

    fn wait(word: &AtomicU32, value: u32) -> u32 {
        loop {
            for _ in 0..200 {
                let found = word.load(Acquire);
                if found != value {
                    return found;
                }
                core::hint::spin_loop();
            }
            futex(word, libc::FUTEX_WAIT, value);
        }
    }

    fn send(&mut self, number: u32, payload: &[u8]) {
        let mut read = self.word(32).load(Acquire);
        while number - read == SLOTS {
            read = Self::wait(self.word(32), read);
        }
        let slot = HEADER + (number % SLOTS) as usize * self.size;
        self.pages.copy(slot, payload);
        self.word(0).store(number + 1, Release);
        futex(self.word(0), libc::FUTEX_WAKE, 1);
    }

    fn receive(&self, number: u32) -> u8 {
        let mut written = self.word(0).load(Acquire);
        while written == number {
            written = Self::wait(self.word(0), written);
        }
        let slot = HEADER + (number % SLOTS) as usize * self.size;
        // SAFETY: the mapping includes all slots, and the sender does not write this one now.
        let found = unsafe {
            self.pages.start().add(slot).read_volatile()
                ^ self.pages.start().add(slot + self.size - 1).read_volatile()
        };
        self.word(32).store(number + 1, Release);
        futex(self.word(32), libc::FUTEX_WAKE, 1);
        found
    }
}

/// Sends payloads of this size to another process, through our ring, a ring by hand, and a pipe. Returns
/// ours beside the other ring, and ours beside the pipe.
pub(crate) fn hand_over(size: usize) -> Result<[Pairs; 2]> {
    let count: u32 = if size > 1 << 19 { 60 } else { 400 };
    let len = HEADER + SLOTS as usize * size;
    let mut provider = StdShMemProvider::new()?;
    let mut segment = provider.new_shmem(len)?;
    let mut theirs = provider.clone_ref(&segment)?;
    let fd = raw::memfd(len)?;
    let map = || -> Result<_> {
        let pages = Pages::shared(&fd, len)?;
        Ok(RawRing { pages, size })
    };
    let (mut mine, other) = (map()?, map()?);
    let (reader, writer): (OwnedFd, OwnedFd) = rustix::pipe::pipe()?;
    let (mut done, mut report) = UnixStream::pair()?;
    let mut payload = vec![7_u8; size];
    with_child(
        move || {
            let ring = Ring::of(&mut theirs, size)?;
            let mut buffer = vec![0; size];
            let mut next = 0_u32;
            for _ in 0..BATCHES {
                for number in next..next + count {
                    core::hint::black_box(ring.receive(number)?);
                }
                report.write_all(&[1])?;
                for number in next..next + count {
                    core::hint::black_box(other.receive(number));
                }
                report.write_all(&[1])?;
                for _ in 0..count {
                    let mut at = 0;
                    while at < size {
                        at += rustix::io::read(&reader, &mut buffer[at..])?;
                    }
                    core::hint::black_box(buffer[0] ^ buffer[size - 1]);
                }
                report.write_all(&[1])?;
                next += count;
            }
            Ok(())
        },
        || {
            let ring = Ring::of(&mut segment, size)?;
            let mut pairs = [Pairs::default(), Pairs::default()];
            let mut next = 0_u32;
            let mut answer = [0];
            for _ in 0..BATCHES {
                payload[0] = payload[0].wrapping_add(1);
                let mut timed = |work: &mut dyn FnMut() -> Result| -> Result<f64> {
                    let start = Instant::now();
                    work()?;
                    done.read_exact(&mut answer)?;
                    Ok(start.elapsed().as_secs_f64() / f64::from(count))
                };
                let ours = timed(&mut || {
                    (next..next + count).try_for_each(|number| ring.send(number, &payload))
                })?;
                let raw = timed(&mut || {
                    (next..next + count).for_each(|number| mine.send(number, &payload));
                    Ok(())
                })?;
                let pipe = timed(&mut || {
                    for _ in 0..count {
                        let mut rest = &payload[..];
                        while !rest.is_empty() {
                            let written = rustix::io::write(&writer, rest)?;
                            rest = &rest[written..];
                        }
                    }
                    Ok(())
                })?;
                pairs[0].push(ours, raw);
                pairs[1].push(ours, pipe);
                next += count;
            }
            Ok(pairs)
        },
    )
}

/// Forks a child that ends at once.
pub(crate) fn fork() -> Result {
    with_child(|| Ok(()), || Ok(()))
}
