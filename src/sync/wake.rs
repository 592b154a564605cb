//! Waiting for a word of a segment to change, and waking those who wait: across processes.
//!
//! Any `AtomicU32` of a segment will do ([`Access::as_atomic_u32`](crate::Access::as_atomic_u32)),
//! and nothing needs to be set up or cleaned up: a process that is killed while it waits, or before
//! it wakes another one, leaves nothing behind. Give a [timeout](Wait::timeout) where the other side
//! may die, and look whether it has.
//!
//! # Platform notes
//!
//! Linux: a shared futex (`futex(2)`). Elsewhere everything here that would have to sleep or to wake is
//! [`Error::Unsupported`](crate::Error::Unsupported); spinning works everywhere. A private mapping, as
//! of a view, is shared with nobody, so nobody can be woken through it.
//!
//! # Examples
//!
//! ```
//! # #[cfg(target_os = "linux")] {
//! use std::sync::atomic::Ordering;
//! use std::thread;
//! use std::time::Duration;
//! use shmem_providers::wake::{self, Wait};
//! use shmem_providers::{ShMem, ShMemProvider, StdShMemProvider};
//!
//! let mut provider = StdShMemProvider::new()?;
//! let mut segment = provider.new_shmem(4096)?;
//! let mut theirs = provider.shmem_from_id(segment.id())?; // in any process of this user
//! let other = thread::spawn(move || {
//!     let word = &theirs.access().as_atomic_u32()?[0];
//!     Wait::new().timeout(Duration::from_secs(5)).while_equal(word, 0)
//! });
//! let word = &segment.access().as_atomic_u32()?[0];
//! word.store(7, Ordering::Release);
//! wake::one(word)?;
//! assert_eq!(other.join().unwrap()?, Some(7));
//! # }
//! # Ok::<(), shmem_providers::Error>(())
//! ```

use core::hint;
use core::sync::atomic::{AtomicU32, Ordering::Acquire};
use core::time::Duration;

use crate::error::Error;
use crate::sys::futex;

/// How often a word is looked at before a process sleeps, by default: for as long, about, as it
/// takes to be put to sleep and woken.
const SPINS: u32 = 200;

/// How to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    spins: u32,
    timeout: Option<Duration>,
}

impl Wait {
    /// Looks at the word for a few microseconds, then sleeps, for as long as it takes.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            spins: SPINS,
            timeout: None,
        }
    }

    /// Sleeps for this long at most.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Looks at the word this many times before it sleeps.
    ///
    /// Many pay where the other side answers within microseconds on a processor of its own: the answer is
    /// seen at once, and who waits so need not be woken. They hurt where processors are fewer than
    /// processes, since the other side may need this one. With 0 it sleeps at once.
    #[must_use]
    pub const fn spins(mut self, spins: u32) -> Self {
        self.spins = spins;
        self
    }

    /// Waits while the word has this value, and returns the one it got then, or `None` if the time is
    /// up. What was written before the word was stored with
    /// [`Release`](core::sync::atomic::Ordering::Release) is visible afterwards.
    ///
    /// A word that changes and changes back meanwhile may be missed: count upwards.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] on a system where it could not sleep, [`Error::Os`] if the system refuses.
    pub fn while_equal(&self, word: &AtomicU32, value: u32) -> Result<Option<u32>, Error> {
        for _ in 0..self.spins {
            let found = word.load(Acquire);
            if found != value {
                return Ok(Some(found));
            }
            hint::spin_loop();
        }
        let end = self.timeout.and_then(futex::after);
        loop {
            let found = word.load(Acquire);
            if found != value {
                return Ok(Some(found));
            }
            if !futex::sleep_while(word, value, end.as_ref())? {
                return Ok(None);
            }
        }
    }
}

/// As [`new`](Wait::new).
impl Default for Wait {
    fn default() -> Self {
        Self::new()
    }
}

/// Wakes one of those who sleep until the word changes, and says whether there was one. Change the
/// word before.
///
/// It is a system call, whether anybody sleeps or not: leave it out where the other side is known
/// to spin.
///
/// # Errors
///
/// [`Error::Unsupported`] on a system where nobody could sleep, [`Error::Os`] if the system refuses.
pub fn one(word: &AtomicU32) -> Result<bool, Error> {
    let woken = futex::wake(word, 1)?;
    Ok(woken > 0)
}

/// Wakes all who sleep until the word changes, and says how many. Change the word before.
///
/// # Errors
///
/// As [`one`].
pub fn all(word: &AtomicU32) -> Result<usize, Error> {
    futex::wake(word, i32::MAX.unsigned_abs())
}
