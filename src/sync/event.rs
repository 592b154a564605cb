//! [`Event`]: something that has happened.
#![allow(unsafe_code)]

use core::fmt;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::event_count::EventCount;
use super::wake::Wait;
use super::word::Word;
use crate::error::Result;
use crate::memory::layout::{SharedLayout, fingerprint};

/// Something that has happened, or has not: processes set it and wait for it.
///
/// It is used in one of two ways. With [`wait`](Event::wait) it has a manual reset: everybody who waits goes on once
/// it is set, until a process [resets](Event::reset) it. With [`take`](Event::take) it resets itself: each time that
/// it was set, at most one process goes on. Setting it twice before it is reset is the same as setting it once.
///
/// What a process has written before it has set the event is visible to those that have waited for it.
///
/// # Lifetime
///
/// Nothing has to be cleaned up. A process that is killed while it waits affects nobody; one that is killed after it
/// has taken the event has used it up. If a process is killed after it has set the event, and before it has
/// woken the others, these find it set when their timeouts end, or when the next process sets it.
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
/// use shmem_providers::sync::Event;
/// use shmem_providers::wake::Wait;
/// use shmem_providers::{ShMemProvider, StdShMemProvider, Typed};
///
/// let wait = Wait::new().timeout(Duration::from_secs(10));
/// let stop = Typed::<Event>::create(&mut StdShMemProvider::new()?, |_| ())?;
/// let id = stop.id();
/// let peer = thread::spawn(move || { // or in another process
///     Typed::<Event>::open(&mut StdShMemProvider::new()?, id)?.wait(wait)
/// });
/// stop.set()?;
/// assert!(peer.join().unwrap()?);
/// # }
/// # Ok::<(), shmem_providers::Error>(())
/// ```
#[repr(transparent)]
pub struct Event(Protocol<AtomicU32>);

// SAFETY: it is a `repr(transparent)` structure of a `repr(C)` structure of two `AtomicU32`.
unsafe impl SharedLayout for Event {
    const FINGERPRINT: u64 = fingerprint("Event", &[1]);
}

impl Event {
    /// Sets the event, and wakes everybody who sleeps.
    ///
    /// # Errors
    ///
    /// [`Error::Os`](crate::Error::Os) if the system refuses. The event is set nevertheless.
    pub fn set(&self) -> Result<()> {
        self.0.set()
    }

    /// Resets the event. Returns `true` if it was set.
    pub fn reset(&self) -> bool {
        self.0.reset()
    }

    /// Returns `true` if the event is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.is_set()
    }

    /// Waits until the event is set, and leaves it set. Returns `false` if the time is up.
    ///
    /// A process that sleeps may miss an event that is reset soon after it was set.
    ///
    /// # Errors
    ///
    /// [`Error::Os`](crate::Error::Os) if the system refuses.
    pub fn wait(&self, wait: Wait) -> Result<bool> {
        self.0.wait(wait)
    }

    /// Waits until the event is set, and resets it. Returns `false` if the time is up.
    ///
    /// If several processes wait, one of them gets the event. All of them are woken, so that none is left asleep
    /// if that one is killed.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use std::time::Duration;
    /// use shmem_providers::sync::Event;
    /// use shmem_providers::wake::Wait;
    /// use shmem_providers::{ShMem, ShMemProvider, StdShMemProvider};
    ///
    /// let shared = StdShMemProvider::new()?.new_shmem(4096)?.share();
    /// let event = shared.view::<Event>(0)?;
    /// event.set()?;
    /// assert!(event.take(Wait::new())?);
    /// assert!(!event.take(Wait::new().timeout(Duration::ZERO))?);
    /// # }
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    pub fn take(&self, wait: Wait) -> Result<bool> {
        self.0.take(wait)
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("is_set", &self.is_set())
            .finish()
    }
}

/// The algorithm. `word/explored/protocols.rs` checks it.
#[repr(C)]
pub(crate) struct Protocol<W> {
    /// Not 0 while the event is set.
    pub(crate) state: W,
    pub(crate) waiters: EventCount<W>,
}

impl<W: Word> Protocol<W> {
    pub(crate) fn set(&self) -> Result<()> {
        // An exchange instead of a store: whoever takes the event sees what all have written who have set it since
        // it was reset.
        self.state.swap(1, Release);
        self.waiters.wake()
    }

    pub(crate) fn reset(&self) -> bool {
        self.state.load(Relaxed) != 0 && self.state.swap(0, Acquire) != 0
    }

    pub(crate) fn is_set(&self) -> bool {
        self.state.load(Acquire) != 0
    }

    pub(crate) fn wait(&self, wait: Wait) -> Result<bool> {
        let is_set = || self.is_set().then_some(());
        Ok(self.waiters.wait_until(wait, is_set)?.is_some())
    }

    pub(crate) fn take(&self, wait: Wait) -> Result<bool> {
        let was_set = || self.reset().then_some(());
        Ok(self.waiters.wait_until(wait, was_set)?.is_some())
    }
}
