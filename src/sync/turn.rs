//! [`Turn`]: whose turn it is.
#![allow(unsafe_code)]

use core::fmt;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Release};

use super::event_count::EventCount;
use super::wake::Wait;
use super::word::Word;
use crate::error::Result;
use crate::memory::layout::{SharedLayout, fingerprint};

/// Whose turn it is: processes take turns, and each waits for its own.
///
/// Participants have numbers that they agree on. At first it is the turn of 0. What a process has written before it
/// [passes](Turn::pass) the turn on is visible to the process that has [waited](Turn::wait_for) for it, so that no
/// other synchronisation is needed for data that only the process whose turn it is accesses. A turn is passed on
/// without a system call unless a process sleeps.
///
/// # Lifetime
///
/// Nothing has to be cleaned up. A process that is killed while it waits affects nobody. If a process is killed
/// while it is its turn, or before it has woken the next one, the turn stays where it is: the others wait until
/// their timeouts end. They then decide whose turn it is, for instance the one that has started the killed process,
/// and [`pass`](Turn::pass) it on. That wakes everybody whom the killed process has not woken.
///
/// # Platform notes
///
/// As [`wake`](crate::wake): where processes cannot be woken, waiting polls.
///
/// # Examples
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use std::thread;
/// use std::time::Duration;
/// use shmem_providers::sync::Turn;
/// use shmem_providers::wake::Wait;
/// use shmem_providers::{ShMemProvider, StdShMemProvider, Typed};
///
/// let wait = Wait::new().timeout(Duration::from_secs(10));
/// let turn = Typed::<Turn>::create(&mut StdShMemProvider::new()?, |_| ())?;
/// let id = turn.id();
/// let peer = thread::spawn(move || { // or in another process
///     let turn = Typed::<Turn>::open(&mut StdShMemProvider::new()?, id)?;
///     assert!(turn.wait_for(1, wait)?);
///     turn.pass(0)
/// });
/// turn.pass(1)?;
/// assert!(turn.wait_for(0, wait)?);
/// peer.join().unwrap()?;
/// # }
/// # Ok::<(), shmem_providers::Error>(())
/// ```
#[repr(transparent)]
pub struct Turn(Protocol<AtomicU32>);

// SAFETY: it is a `repr(transparent)` structure of a `repr(C)` structure of two `AtomicU32`.
unsafe impl SharedLayout for Turn {
    const FINGERPRINT: u64 = fingerprint("Turn", &[1]);
}

impl Turn {
    /// Passes the turn to this participant, and wakes it if it sleeps.
    ///
    /// Only the participant whose turn it is may do so, or the one that takes over from a process that was
    /// killed. If two do so at the same time, the later call decides.
    ///
    /// # Errors
    ///
    /// [`Error::Os`](crate::Error::Os) if the system refuses. The turn is passed on nevertheless.
    pub fn pass(&self, to: u32) -> Result<()> {
        self.0.pass(to)
    }

    /// Waits until it is the turn of this participant. Returns `false` if the time is up.
    ///
    /// With a timeout of zero it only looks, and makes no system call.
    ///
    /// # Errors
    ///
    /// [`Error::Os`](crate::Error::Os) if the system refuses.
    pub fn wait_for(&self, me: u32, wait: Wait) -> Result<bool> {
        self.0.wait_for(me, wait)
    }

    /// Returns whose turn it is.
    #[must_use]
    pub fn current(&self) -> u32 {
        self.0.current()
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn")
            .field("current", &self.current())
            .finish()
    }
}

/// The algorithm. `tests/model/turn.rs` is its model; `word/explored/protocols.rs` checks it under the memory model.
#[repr(C)]
pub(crate) struct Protocol<W> {
    pub(crate) current: W,
    pub(crate) waiters: EventCount<W>,
}

impl<W: Word> Protocol<W> {
    pub(crate) fn pass(&self, to: u32) -> Result<()> {
        self.current.store(to, Release);
        self.waiters.wake()
    }

    pub(crate) fn wait_for(&self, me: u32, wait: Wait) -> Result<bool> {
        let is_mine = || (self.current() == me).then_some(());
        Ok(self.waiters.wait_until(wait, is_mine)?.is_some())
    }

    fn current(&self) -> u32 {
        self.current.load(Acquire)
    }
}
