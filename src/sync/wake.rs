//! Waiting for a word of a segment to change, and waking processes that wait.
//!
//! Any `AtomicU32` in a segment works ([`Shared::view`](crate::Shared::view)).
//! Nothing needs to be set up or cleaned up: a process that is killed while it waits, or before it
//! wakes another one, leaves nothing behind. Set a [timeout](Wait::timeout) if the peer may die,
//! and check then whether it has.
//!
//! # Platform notes
//!
//! Linux: a shared futex (`futex(2)`). On other systems every call that would have to sleep or to
//! wake returns [`Error::Unsupported`]; spinning works everywhere. A
//! private mapping, such as a view, is shared with no other process, so no process can be woken
//! through it.
//!
//! # Examples
//!
//! ```
//! # #[cfg(target_os = "linux")] {
//! use std::sync::atomic::{AtomicU32, Ordering};
//! use std::thread;
//! use std::time::Duration;
//! use shmem_providers::wake::{self, Wait};
//! use shmem_providers::{ShMem, ShMemProvider, StdShMemProvider};
//!
//! let mut provider = StdShMemProvider::new()?;
//! let shared = provider.new_shmem(4096)?.share();
//! let attached = provider.shmem_from_id(shared.id())?.share(); // in any process of this user
//! let word = attached.view::<AtomicU32>(0)?;
//! let peer = thread::spawn(move || {
//!     Wait::new().timeout(Duration::from_secs(5)).while_equal(&word, 0)
//! });
//! let word = shared.view::<AtomicU32>(0)?;
//! word.store(7, Ordering::Release);
//! wake::one(&word)?;
//! assert_eq!(peer.join().unwrap()?, Some(7));
//! # }
//! # Ok::<(), shmem_providers::Error>(())
//! ```

use core::hint;
use core::sync::atomic::{AtomicU32, Ordering::Acquire};
use core::time::Duration;

use crate::error::Error;
use crate::sys::futex;

/// How often a process looks at the word before it sleeps, by default. That takes about as long as
/// going to sleep and being woken.
const SPINS: u32 = 200;

/// How a process waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    spins: u32,
    timeout: Option<Duration>,
}

impl Wait {
    /// Looks at the word for a few microseconds, then sleeps without a time limit.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            spins: SPINS,
            timeout: None,
        }
    }

    /// Sleeps for at most this long.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Looks at the word this many times before it sleeps.
    ///
    /// Many spins are worth it if the peer answers within microseconds and has a processor of its
    /// own: the waiter sees the answer at once, and need not be woken. They are harmful if there
    /// are fewer processors than processes, because the peer may need this one. With 0 the process
    /// sleeps at once.
    #[must_use]
    pub const fn spins(mut self, spins: u32) -> Self {
        self.spins = spins;
        self
    }

    /// Returns how often to look before sleeping, and for how long to sleep at most.
    pub(super) const fn limits(&self) -> (u32, Option<Duration>) {
        (self.spins, self.timeout)
    }

    /// Waits while the word has this value, and returns the new value, or `None` if the time is up.
    /// What was written before the word was stored with
    /// [`Release`](core::sync::atomic::Ordering::Release) is visible afterwards.
    ///
    /// A change can be missed if the word has changed back before it is looked at: count upwards.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] on a system where it cannot sleep, [`Error::Os`] if the system
    /// refuses.
    pub fn while_equal(&self, word: &AtomicU32, value: u32) -> Result<Option<u32>, Error> {
        for _ in 0..self.spins {
            let found = word.load(Acquire);
            if found != value {
                return Ok(Some(found));
            }
            hint::spin_loop();
        }
        let deadline = self.timeout.and_then(futex::after);
        let mut in_time = true;
        loop {
            let found = word.load(Acquire);
            if found != value {
                return Ok(Some(found));
            }
            if !in_time {
                return Ok(None);
            }
            in_time = futex::sleep_while(word, value, deadline.as_ref())?;
        }
    }
}

/// As [`new`](Wait::new).
impl Default for Wait {
    fn default() -> Self {
        Self::new()
    }
}

/// Wakes one process or thread that sleeps until the word changes, and returns `true` if there was
/// one. Change the word first.
///
/// This is a system call, whether or not anything sleeps: omit it if the peer is known to spin.
///
/// # Errors
///
/// [`Error::Unsupported`] on a system where it cannot wake, [`Error::Os`] if the system refuses.
pub fn one(word: &AtomicU32) -> Result<bool, Error> {
    let woken = futex::wake(word, 1)?;
    Ok(woken > 0)
}

/// Wakes all processes and threads that sleep until the word changes, and returns their number.
/// Change the word first.
///
/// # Errors
///
/// As [`one`].
pub fn all(word: &AtomicU32) -> Result<usize, Error> {
    futex::wake(word, i32::MAX.unsigned_abs())
}
