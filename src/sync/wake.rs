//! Waiting for a word of a segment to change, and waking processes that wait.
//!
//! Any `AtomicU32` in a segment works ([`Shared::view`](crate::Shared::view)).
//! Nothing needs to be set up or cleaned up: a process that is killed while it waits, or before it
//! wakes another one, leaves nothing behind. Set a [timeout](Wait::timeout) if the peer may die,
//! and check then whether it has.
//!
//! # Platform notes
//!
//! [`is_native`] tells whether the system wakes a process that waits:
//!
//! | system | by |
//! | --- | --- |
//! | Linux, Android | `futex(2)`; [`any`]: `futex_waitv(2)`, from Linux 5.16 on |
//! | macOS 14.4, iOS 17.4, and later | `os_sync_wait_on_address_with_timeout` |
//! | FreeBSD | `_umtx_op(2)` |
//! | `DragonFly` | `umtx(2)` |
//! | NetBSD 10 and later | `__futex(2)` |
//! | OpenBSD | `futex(2)` |
//! | Windows, with the feature `std` | a named semaphore for each process that waits |
//!
//! Everywhere else, and in earlier versions, waiting *polls*: the process sleeps and looks at the word again,
//! after 20 µs at first, and every millisecond after about 2 ms. On Windows a pause may take as long as a tick
//! of the system's clock, up to 16 ms. Waking does nothing then and returns `false` or 0.
//!
//! On Windows, the words of segments are waited for in this way, by up to eight processes or threads for each word.
//! More of them poll, and so do those that wait for any other word, such as one on the heap.
//!
//! A private mapping, such as a [view](crate::View), is shared with no other process, so no process can be
//! woken through it, nor sees a change.
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
use crate::sync::word::Word;
use crate::sys::futex;

/// How often a process looks at the word before it sleeps, by default. That takes about as long as
/// going to sleep and being woken.
const SPINS: u32 = 1000;

/// How a process waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    spins: u32,
    timeout: Option<Duration>,
}

impl Wait {
    /// Looks at the word for about as long as a wake-up takes, some ten microseconds, then sleeps without a time limit.
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

    /// Returns how often to look at the word first, and when to stop waiting, if ever.
    #[cfg_attr(not(feature = "alloc"), allow(dead_code, reason = "for channels"))]
    pub(crate) fn limits<W: Word>(&self) -> (u32, Option<W::Deadline>) {
        (self.spins, self.timeout.and_then(W::after))
    }

    /// Returns how many times it looks at the word before it sleeps.
    pub(crate) const fn spin_count(&self) -> u32 {
        self.spins
    }

    /// Returns for how long it sleeps at most.
    pub(crate) const fn time_limit(&self) -> Option<Duration> {
        self.timeout
    }

    /// Waits while the word has this value, and returns the new value, or `None` if the time is up.
    /// What was written before the word was stored with
    /// [`Release`](core::sync::atomic::Ordering::Release) is visible afterwards.
    ///
    /// A change can be missed if the word has changed back before it is looked at: count upwards.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if the system refuses to block the process.
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

/// Waits while all these words have the values next to them, and returns the index of the first one that has
/// another value, or `None` if the time is up. Load that word, with
/// [`Acquire`], to learn its value.
///
/// As [`while_equal`](Wait::while_equal), this can miss a word that has changed back. With no words, it
/// returns `None` when the time is up.
///
/// # Errors
///
/// [`Error::Unsupported`] for no words and no timeout, because that wait would never end. [`Error::Os`] if
/// the system refuses to block the process.
///
/// # Platform notes
///
/// On Linux the kernel wakes the process (`futex_waitv(2)`). This polls, as the [module](self) describes,
/// before Linux 5.16, if a seccomp filter does not permit the call, for more than 128 words, and on all other
/// systems.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use std::time::Duration;
/// use shmem_providers::wake::{self, Wait};
///
/// let words = [AtomicU32::new(0), AtomicU32::new(0)]; // or words of two segments
/// words[1].store(5, Ordering::Release); // as a peer does
/// let wait = Wait::new().timeout(Duration::from_secs(5));
/// let changed = wake::any(&[(&words[0], 0), (&words[1], 0)], wait)?;
/// assert_eq!(changed, Some(1));
/// # Ok::<(), shmem_providers::Error>(())
/// ```
pub fn any(words: &[(&AtomicU32, u32)], wait: Wait) -> Result<Option<usize>, Error> {
    if words.is_empty() && wait.timeout.is_none() {
        return Err(Error::Unsupported {
            what: "waiting for no words without a timeout would never end",
        });
    }
    let changed = || {
        words
            .iter()
            .position(|(word, value)| word.load(Acquire) != *value)
    };
    for _ in 0..wait.spins {
        if let Some(index) = changed() {
            return Ok(Some(index));
        }
        hint::spin_loop();
    }
    let deadline = wait.timeout.and_then(futex::after);
    let mut in_time = true;
    loop {
        if let Some(index) = changed() {
            return Ok(Some(index));
        }
        if !in_time {
            return Ok(None);
        }
        in_time = futex::sleep_while_all(words, deadline.as_ref())?;
    }
}

/// Returns `true` if the system can wake a process that waits for a word of a segment, and `false` if waiting
/// polls.
///
/// # Examples
///
/// ```
/// use shmem_providers::wake::{self, Wait};
///
/// // Where waiting polls, a peer that answers soon is worth more spins.
/// let wait = Wait::new().spins(if wake::is_native() { 1000 } else { 20_000 });
/// # let _ = wait;
/// ```
#[must_use]
pub fn is_native() -> bool {
    futex::is_native()
}

/// Wakes one process or thread that sleeps until the word changes, and returns `true` if the system reports
/// that there was one. Change the word first.
///
/// This is a system call, whether or not anything sleeps: omit it if the peer is known to spin.
///
/// # Errors
///
/// [`Error::Os`] if the system refuses.
///
/// # Platform notes
///
/// FreeBSD and `DragonFly` do not report whether there was one, and this returns `false`, as it does where
/// waiting polls.
pub fn one(word: &AtomicU32) -> Result<bool, Error> {
    let woken = futex::wake(word, 1)?;
    Ok(woken > 0)
}

/// Wakes all processes and threads that sleep until the word changes, and returns their number, as far as the
/// system reports it. Change the word first.
///
/// # Errors
///
/// As [`one`].
///
/// # Platform notes
///
/// Linux, NetBSD, OpenBSD and Windows report the number. Apple's systems only report whether there were any,
/// and this returns 1 or 0. FreeBSD and `DragonFly` report nothing, and this returns 0, as it does where waiting
/// polls.
pub fn all(word: &AtomicU32) -> Result<usize, Error> {
    futex::wake(word, i32::MAX.unsigned_abs())
}
