//! Rows with two processes: round trips, turns, forks.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, fence};
use std::time::Instant;

use bench::Result;
use bench::pairs::Pairs;
use bench::raw::Pages;
use shmem_providers::sync::Turn;
use shmem_providers::wake::{self, Wait};
use shmem_providers::{ShMem, ShMemProvider, StdShMemProvider, Typed};

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

/// Measures turns that two processes take, with [`Turn`] and by hand.
pub(crate) fn turns(by: By) -> Result<Pairs> {
    let rounds = if by == By::Spinning { 5000 } else { 500 };
    let spins = if by == By::Spinning { u32::MAX } else { 0 };
    let turn = Typed::<Turn>::create(&mut StdShMemProvider::new()?, |_| {})?;
    let fd = raw::memfd(4096)?;
    let pages = Pages::shared(&fd, 4096)?;
    let by_hand = RawTurn { pages, spins };
    let wait = Wait::new().spins(spins);
    let (turn, by_hand) = (&turn, &by_hand);
    // Takes this many turns, and returns the seconds for each.
    let ours = |me: u32, rounds: u32| -> Result<f64> {
        let start = Instant::now();
        for _ in 0..rounds {
            turn.wait_for(me, wait)?;
            turn.pass(1 - me)?;
        }
        Ok(start.elapsed().as_secs_f64() / f64::from(rounds))
    };
    let theirs = |me: u32, rounds: u32| -> Result<f64> {
        let start = Instant::now();
        for _ in 0..rounds {
            by_hand.wait_for(me);
            by_hand.pass(1 - me);
        }
        Ok(start.elapsed().as_secs_f64() / f64::from(rounds))
    };
    with_child(
        || {
            for _ in 0..BATCHES {
                ours(1, rounds)?;
                theirs(1, rounds)?;
            }
            Ok(())
        },
        || {
            let mut pairs = Pairs::default();
            for _ in 0..BATCHES {
                let first = ours(0, rounds)?;
                pairs.push(first, theirs(0, rounds)?);
            }
            Ok(pairs)
        },
    )
}

/// Turns by hand: a word, and next to it whether a process sleeps.
struct RawTurn {
    pages: Pages,
    spins: u32,
}

impl RawTurn {
    fn word(&self, index: usize) -> &AtomicU32 {
        // SAFETY: the words are in the first page, which is mapped as long as `self` and accessed as atomics
        // only.
        unsafe { &*self.pages.start().cast::<AtomicU32>().add(index) }
    }

    fn pass(&self, to: u32) {
        self.word(0).store(to, Release);
        fence(SeqCst);
        if self.word(1).load(Relaxed) != 0 {
            self.word(1).store(0, Relaxed);
            futex(self.word(0), libc::FUTEX_WAKE, 1);
        }
    }

    fn wait_for(&self, me: u32) {
        for _ in 0..self.spins {
            if self.word(0).load(Acquire) == me {
                return;
            }
            core::hint::spin_loop();
        }
        loop {
            self.word(1).store(1, Relaxed);
            fence(SeqCst);
            let found = self.word(0).load(Acquire);
            if found == me {
                return;
            }
            futex(self.word(0), libc::FUTEX_WAIT, found);
        }
    }
}

/// Forks a child that ends at once.
pub(crate) fn fork() -> Result {
    with_child(|| Ok(()), || Ok(()))
}
