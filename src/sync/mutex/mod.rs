//! [`Mutex`]: a lock that survives the death of its owner.

#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod explored;
pub(crate) mod protocol;

use core::fmt;
use core::ops::Deref;
use core::sync::atomic::AtomicU32;

pub(crate) use self::protocol::Liveness;
use self::protocol::{Outcome, Protocol};
use crate::error::{Error, Result};
use crate::memory::layout::{SharedLayout, fingerprint};
use crate::sync::presence::Presence;
use crate::sync::wake::Wait;

/// A lock in shared memory that survives the death of its owner.
///
/// If a process dies while it holds the lock, at whatever instruction, the next one that locks gets
/// [`LockError::Abandoned`], which contains the guard: the data may be half changed, and the caller decides
/// whether to repair it. Bytes that are zero are an unlocked mutex.
///
/// All participants join the same table of [`Slots`](crate::sync::Slots): a mutex takes participants of
/// another table for dead. Locking and unlocking make no system call while no other participant waits.
/// Waiters ask every 20 milliseconds whether the owner is alive. The lock is not fair.
///
/// The value consists of atomics, so that a peer that ignores the lock causes no undefined behaviour. Relaxed
/// operations suffice under the lock.
///
/// # Threads
///
/// The owner is a [`Presence`], whose threads exclude each other as well. A thread that locks again what it has
/// locked waits until the timeout. A guard can be sent to another thread. A panic unlocks.
///
/// # Platform notes
///
/// A mutex works where processes can [join](crate::sync::Presence#platform-notes): on Linux, Android and Windows; on
/// Apple's systems, the BSDs, illumos and Solaris in segments of the default provider, whose service has to answer.
///
/// # Examples
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// use std::time::Duration;
/// use shmem_providers::sync::{LockError, Mutex, Presence, Slots};
/// use shmem_providers::wake::Wait;
/// use shmem_providers::{MemfdShMemProvider, SharedLayout, Typed};
///
/// #[derive(SharedLayout)]
/// #[repr(C)]
/// struct Accounts {
///     slots: Slots<16>,
///     balances: Mutex<[AtomicU64; 2]>,
/// }
///
/// let mut provider = MemfdShMemProvider::default();
/// let accounts = Typed::<Accounts>::create(&mut provider, |_| {})?;
/// let presence = Presence::join(&accounts.clone().into_ref().map(|accounts| &accounts.slots))?;
///
/// let wait = Wait::new().timeout(Duration::from_secs(5));
/// let balances = match accounts.balances.lock(&presence, wait) {
///     Ok(balances) => balances,
///     Err(LockError::Abandoned(balances)) => {
///         balances[1].store(100 - balances[0].load(Relaxed), Relaxed); // repairs them
///         balances
///     }
///     Err(LockError::TimedOut) => panic!("the owner is alive and does not unlock"),
///     Err(LockError::Failed(error)) => return Err(error),
/// };
/// balances[0].fetch_add(1, Relaxed);
/// balances[1].fetch_sub(1, Relaxed);
/// # }
/// # Ok::<(), shmem_providers::Error>(())
/// ```
#[repr(C)]
pub struct Mutex<T> {
    lock: Protocol<AtomicU32>,
    value: T,
}

// SAFETY: the structure is `repr(C)`, and its fields consist of atomics.
#[allow(unsafe_code)]
unsafe impl<T: SharedLayout> SharedLayout for Mutex<T> {
    const FINGERPRINT: u64 = fingerprint("Mutex", &[T::FINGERPRINT]);
}

impl<T: SharedLayout> Mutex<T> {
    /// Locks, and waits while a living participant has the lock.
    ///
    /// # Errors
    ///
    /// [`LockError::Abandoned`] with the guard if the owner before has died, [`LockError::TimedOut`] if a
    /// living owner had the lock until the timeout, [`LockError::Failed`] in a forked child that uses the
    /// presence of its parent, or if the system refuses.
    #[inline]
    pub fn lock<'a>(
        &'a self,
        presence: &'a Presence,
        wait: Wait,
    ) -> Result<MutexGuard<'a, T>, LockError<MutexGuard<'a, T>>> {
        presence.check()?;
        // Without looking at the clock.
        let outcome = if self.lock.lock_at_once(presence.id()) {
            Outcome::Locked
        } else {
            self.contend(presence, wait)?
        };
        self.guard(presence, outcome)
    }

    /// Locks, and waits if another participant has the lock.
    #[cold]
    fn contend(&self, presence: &Presence, wait: Wait) -> Result<Outcome, Error> {
        let (spins, deadline) = wait.limits::<AtomicU32>();
        self.lock
            .lock(presence.id(), presence, spins, deadline.as_ref())
    }

    /// Locks unless a living participant has the lock. Does not wait.
    ///
    /// # Errors
    ///
    /// As [`lock`](Self::lock); [`LockError::TimedOut`] if a living participant has the lock.
    pub fn try_lock<'a>(
        &'a self,
        presence: &'a Presence,
    ) -> Result<MutexGuard<'a, T>, LockError<MutexGuard<'a, T>>> {
        presence.check()?;
        let outcome = self.lock.try_lock(presence.id(), presence)?;
        self.guard(presence, outcome)
    }

    #[inline]
    fn guard<'a>(
        &'a self,
        presence: &'a Presence,
        outcome: Outcome,
    ) -> Result<MutexGuard<'a, T>, LockError<MutexGuard<'a, T>>> {
        let guard = |()| MutexGuard {
            mutex: self,
            presence,
        };
        match outcome {
            Outcome::Locked => Ok(guard(())),
            Outcome::Abandoned => Err(LockError::Abandoned(guard(()))),
            Outcome::Held(_) => Err(LockError::TimedOut),
        }
    }
}

impl<T> Mutex<T> {
    /// Returns `true` if the owner has died, and no other participant has locked since.
    pub(crate) fn is_abandoned(&self, presence: &Presence) -> Result<bool> {
        self.lock.is_abandoned(presence)
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").finish_non_exhaustive()
    }
}

/// Access to the value of a locked [`Mutex`]. Dropping it unlocks, except in a child that was forked while the
/// lock was held: the lock is the parent's.
#[must_use = "dropping the guard unlocks"]
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    presence: &'a Presence,
}

impl<'a, T> MutexGuard<'a, T> {
    /// Returns what was locked, and by which participant.
    pub(crate) fn parts(&self) -> (&'a Mutex<T>, &'a Presence) {
        (self.mutex, self.presence)
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.mutex.value
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.presence.check().is_ok() {
            // A waiter that is not woken looks by itself after some milliseconds.
            let _ = self.mutex.lock.unlock(self.presence.id());
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Why a [`Mutex`] was not locked as usual.
pub enum LockError<G> {
    /// It is locked now, and the owner before has died with the lock: the value may be half changed.
    Abandoned(G),
    /// A living participant had the lock until the timeout.
    TimedOut,
    /// The lock could not be taken.
    Failed(Error),
}

impl<G> LockError<G> {
    /// Returns the guard if the owner before has died: for values that need no repair.
    ///
    /// # Errors
    ///
    /// Returns the error if it is another one.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    /// use shmem_providers::sync::{LockError, Mutex, Presence, Slots};
    /// use shmem_providers::{MemfdShMemProvider, ShMem, ShMemProvider, wake::Wait};
    ///
    /// let shared = MemfdShMemProvider::default().new_shmem(4096)?.share();
    /// let presence = Presence::join(&shared.view::<Slots<4>>(0)?)?;
    /// let mutex = shared.view::<Mutex<AtomicU32>>(64)?;
    /// let value = mutex.lock(&presence, Wait::new()).or_else(LockError::recover);
    /// value.expect("there is no other participant").fetch_add(1, Relaxed);
    /// # }
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    pub fn recover(self) -> Result<G, Self> {
        match self {
            Self::Abandoned(guard) => Ok(guard),
            error => Err(error),
        }
    }
}

impl<G> From<Error> for LockError<G> {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl<G> fmt::Display for LockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Abandoned(_) => f.write_str(
                "the owner of the mutex has died with the lock: repair the value, or use `recover`",
            ),
            Self::TimedOut => {
                f.write_str("a living participant has had the mutex locked until the timeout")
            }
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl<G> fmt::Debug for LockError<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<G> core::error::Error for LockError<G> {}
