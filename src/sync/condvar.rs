//! [`Condvar`]: waiting, with a `Mutex`, for a condition.

use core::fmt;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Release};

use crate::error::Result;
use crate::memory::layout::{SharedLayout, fingerprint};
use crate::sync::event_count::EventCount;
use crate::sync::mutex::protocol::{SLICE, earlier, is_past};
use crate::sync::mutex::{LockError, MutexGuard};
use crate::sync::wake::Wait;
use crate::sync::word::Word;

/// Waiting for a condition that other participants establish under a [`Mutex`](crate::sync::Mutex).
///
/// Bytes that are zero are its initial state. Only all waiters can be notified: one that was chosen
/// and then killed would take the notification with it.
///
/// # Lifetime
///
/// Nothing has to be cleaned up, and a wait with a timeout returns whichever participant is killed. Without one, a
/// waiter that is not notified goes on waiting, unless it finds that the owner of the mutex is dead. Therefore:
///
/// - Change the condition and notify before unlocking. A participant that is killed in between ends the wait of one
///   waiter with [`LockError::Abandoned`], or that of all of them if it had begun to notify. One that unlocks first,
///   and is killed before it notifies, leaves the waiters waiting.
/// - A participant that gets [`LockError::Abandoned`], from [`wait`](Condvar::wait) or from
///   [`Mutex::lock`](crate::sync::Mutex::lock), repairs the value and then notifies: the others do not learn of the death.
///
/// A killed waiter affects nobody.
///
/// # Examples
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
/// use std::thread;
/// use std::time::Duration;
/// use shmem_providers::sync::{Condvar, LockError, Mutex, Presence, Slots};
/// use shmem_providers::{MemfdShMemProvider, ShMem, ShMemProvider, wake::Wait};
///
/// let shared = MemfdShMemProvider::default().new_shmem(4096)?.share();
/// let slots = shared.view::<Slots<4>>(0)?;
/// let jobs = shared.view::<Mutex<AtomicU32>>(64)?;
/// let added = shared.view::<Condvar>(128)?;
/// let wait = Wait::new().timeout(Duration::from_secs(5));
///
/// let presence = Presence::join(&slots)?;
/// thread::scope(|scope| {
///     scope.spawn(|| {
///         let presence = Presence::join(&slots)?;
///         let guard = jobs.lock(&presence, wait).or_else(LockError::recover).unwrap();
///         guard.fetch_add(1, Relaxed);
///         added.notify_all()
///     });
///     let mut guard = jobs.lock(&presence, wait).or_else(LockError::recover).unwrap();
///     while guard.load(Relaxed) == 0 {
///         (guard, _) = added.wait(guard, wait).unwrap();
///     }
/// });
/// # }
/// # Ok::<(), shmem_providers::Error>(())
/// ```
// `tests/model/condvar.rs` checks the algorithm, with kills at every step.
#[repr(C)]
pub struct Condvar {
    /// The number of notifications. It wraps.
    sequence: AtomicU32,
    waiters: EventCount<AtomicU32>,
}

// SAFETY: the structure is `repr(C)`, and its fields are atomic integers.
#[allow(unsafe_code)]
unsafe impl SharedLayout for Condvar {
    const FINGERPRINT: u64 = fingerprint("Condvar", &[]);
}

impl Condvar {
    /// Unlocks, waits for a notification, and locks again. Returns `false` with the guard if none has come before the
    /// timeout. A return without a notification is possible: check the condition.
    ///
    /// Locking takes at most the timeout as well.
    ///
    /// # Errors
    ///
    /// As [`Mutex::lock`](crate::sync::Mutex::lock).
    pub fn wait<'a, T: SharedLayout>(
        &self,
        guard: MutexGuard<'a, T>,
        wait: Wait,
    ) -> Result<(MutexGuard<'a, T>, bool), LockError<MutexGuard<'a, T>>> {
        let (mutex, presence) = guard.parts();
        // A forked child cannot lock again.
        presence.check()?;
        let sequence = self.sequence.load(Acquire);
        drop(guard);
        let (mut spins, deadline) = wait.limits::<AtomicU32>();
        let notified = loop {
            let slice = AtomicU32::after(SLICE);
            let until = earlier::<AtomicU32>(deadline.as_ref(), slice.as_ref());
            let changed = self
                .waiters
                .wait_while(&self.sequence, sequence, spins, until)?;
            if changed.is_some() {
                break true;
            }
            if is_past::<AtomicU32>(deadline.as_ref()) || mutex.is_abandoned(presence)? {
                break false;
            }
            spins = 0;
        };
        mutex.lock(presence, wait).map(|guard| (guard, notified))
    }

    /// Notifies all participants that wait. Change the condition before, under the mutex, and unlock it after this
    /// (see [Lifetime](Self#lifetime)).
    ///
    /// # Errors
    ///
    /// As [`wake::all`](crate::wake::all).
    pub fn notify_all(&self) -> Result<()> {
        self.sequence.fetch_add(1, Release);
        self.waiters.wake()
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").finish_non_exhaustive()
    }
}
