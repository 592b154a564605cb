//! [`ForkLock`]: a lock that works across `fork()`.
#![allow(unsafe_code)]
#![allow(unreachable_pub, reason = "public to the package in libafl/")]

use core::cell::UnsafeCell;
use core::fmt;
use core::hint;
use core::mem;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::time::Duration;
use std::thread;

use crate::error::{Error, Result};
use crate::process::{Owner, ThreadNumber};

/// A mutex for a value that a forked child goes on using.
///
/// A child has one thread, a copy of the one that called `fork()`. An ordinary lock that another
/// thread held at that moment stays locked in the child forever. This lock knows which process its
/// holder belongs to. Calling [`hold`](Guard::hold) before the fork and [`lock`](Self::lock) after
/// it, in the parent and in the child, carries the value over. Without these calls, a child that
/// finds the lock held discards the value without reading it, because the value may be half
/// changed, and starts with the default.
///
/// # When a hold ends
///
/// In the child, when its thread locks. In the parent, when the thread that holds the lock locks it
/// again: it cannot do that during the fork, so the fork is over, has failed, or is not going to
/// happen. Or when that thread has ended. A hold never ends after some time: however long the fork
/// takes, the child finds a consistent value. Other threads wait, but not forever: after
/// [`HOLD_TIMEOUT`] they get [`Error::ForkPending`] until the hold ends.
pub struct ForkLock<T> {
    /// 0 if the lock is free. Otherwise the number of the [`Owner`] that holds it, times two, plus
    /// one if it is held for a fork, without a guard.
    word: AtomicUsize,
    /// The [`ThreadNumber`] of the thread that holds the lock for a fork. That thread writes it
    /// before `word` says that the lock is held for a fork. Afterwards it only changes from the
    /// number of a thread that has ended to that of a thread that takes over. Numbers are not
    /// reused, so only one thread can take over.
    holder: AtomicUsize,
    /// How often the lock was held for a fork: the number of the current hold.
    holds: AtomicUsize,
    /// The number of the last hold that lasted too long.
    overdue: AtomicUsize,
    value: UnsafeCell<T>,
}

// SAFETY: the lock gives access to the value to one thread at a time.
unsafe impl<T: Send> Sync for ForkLock<T> {}

/// Access to the value. Dropping it unlocks.
pub struct Guard<'lock, T> {
    lock: &'lock ForkLock<T>,
    owner: Owner,
}

impl<T> fmt::Debug for Guard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

impl<T> Guard<'_, T> {
    /// Returns the current process, which locking has determined anyway.
    pub(crate) fn current(&self) -> Owner {
        self.owner
    }

    /// Keeps the lock locked until this thread locks it again, here and in the child that it forks.
    pub fn hold(self) {
        let lock = self.lock;
        lock.holder.store(ThreadNumber::registered().get(), Relaxed);
        lock.holds.fetch_add(1, Relaxed);
        lock.word.store(held_by(self.owner) | FOR_FORK, Release);
        mem::forget(self);
    }
}

/// The bit of `word` that is set while the lock is held for a fork.
const FOR_FORK: usize = 1;

/// How long other threads wait for a hold to end. Only the time slept counts, so that it is longer
/// for a process that is stopped or short of processors.
const HOLD_TIMEOUT: Duration = Duration::from_secs(10);

/// What a thread does that finds the lock held for the fork of another thread.
#[derive(Clone, Copy, PartialEq)]
enum Wait {
    /// Waits for at most this long.
    For(Duration),
    /// Takes the lock.
    No,
}

impl<T: Default> ForkLock<T> {
    /// Creates an unlocked lock.
    pub const fn new(value: T) -> Self {
        Self {
            word: AtomicUsize::new(0),
            holder: AtomicUsize::new(0),
            holds: AtomicUsize::new(0),
            overdue: AtomicUsize::new(0),
            value: UnsafeCell::new(value),
        }
    }

    /// Locks, and waits until no other thread of this process holds the lock.
    ///
    /// # Errors
    ///
    /// [`Error::ForkPending`] if another thread holds it for a fork for too long.
    pub fn lock(&self) -> Result<Guard<'_, T>> {
        self.acquire(Wait::For(HOLD_TIMEOUT))
            .ok_or(Error::ForkPending)
    }

    /// As [`lock`](Self::lock), for a lock that is never held for a fork, or whose holder no longer
    /// needs it.
    pub fn lock_now(&self) -> Guard<'_, T> {
        loop {
            if let Some(guard) = self.acquire(Wait::No) {
                return guard;
            }
        }
    }

    /// Returns `None` if another thread holds the lock for a fork for longer than `wait` allows.
    fn acquire(&self, wait: Wait) -> Option<Guard<'_, T>> {
        let owner = Owner::current();
        let held = held_by(owner);
        let mut turns = 0_u32;
        let (mut seen, mut waited) = (0, Duration::ZERO);
        loop {
            let word = self.word.load(Acquire);
            let is_free = word == 0;
            let is_inherited = !is_free && word & !FOR_FORK != held;
            let is_held_for_fork = !is_free && !is_inherited && word & FOR_FORK != 0;
            let may_take = is_free
                || is_inherited
                || is_held_for_fork && (wait == Wait::No || self.is_held_by_this_thread());
            if may_take {
                if !self.try_change(word, held) {
                    continue;
                }
                if is_inherited && word & FOR_FORK == 0 {
                    // SAFETY: this thread holds the lock now, and no reference to the value exists
                    // in this process: the guard belonged to a thread of a parent process.
                    unsafe { self.value.get().write(T::default()) };
                }
                return Some(Guard { lock: self, owner });
            }
            turns = turns.saturating_add(1);
            match turns {
                0..64 => hint::spin_loop(),
                64..128 => thread::yield_now(),
                _ => {
                    let pause = Duration::from_micros(if turns < 1000 { 50 } else { 1000 });
                    thread::sleep(pause);
                    if let (true, Wait::For(timeout)) = (is_held_for_fork, wait) {
                        let holds = self.holds.load(Relaxed);
                        if holds != seen {
                            (seen, waited) = (holds, Duration::ZERO);
                        }
                        waited += pause;
                        if !self.take_over_from_ended() && self.is_overdue(seen, waited > timeout) {
                            return None;
                        }
                    }
                }
            }
        }
    }

    /// Returns `true` if the calling thread holds the lock. The lock is held for a fork by a thread
    /// of this process.
    fn is_held_by_this_thread(&self) -> bool {
        // Only this thread stores its own number there.
        ThreadNumber::current().is_some_and(|this| self.holder.load(Relaxed) == this.get())
    }

    /// Makes the calling thread the holder if the holder has ended. Returns `true` if it did.
    fn take_over_from_ended(&self) -> bool {
        let holder = self.holder.load(Relaxed);
        if !ThreadNumber::has_ended(holder) || ThreadNumber::current().is_none() {
            return false;
        }
        // The thread is registered, so that no other thread takes it for one that has ended.
        let this = ThreadNumber::registered();
        self.holder
            .compare_exchange(holder, this.get(), Relaxed, Relaxed)
            .is_ok()
    }

    /// Returns `true` if this hold has lasted too long. One waiter finds that out for all of them.
    fn is_overdue(&self, hold: usize, waited_enough: bool) -> bool {
        if waited_enough {
            self.overdue.store(hold, Relaxed);
        }
        self.overdue.load(Relaxed) == hold
    }

    fn try_change(&self, from: usize, to: usize) -> bool {
        self.word
            .compare_exchange(from, to, Acquire, Relaxed)
            .is_ok()
    }
}

fn held_by(owner: Owner) -> usize {
    owner.number() << 1
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard proves that this thread holds the lock.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard proves that this thread holds the lock, and it is borrowed exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        self.lock.word.store(0, Release);
    }
}

impl<T: Default> Default for ForkLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> fmt::Debug for ForkLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ForkLock")
    }
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use alloc::sync::Arc;
    use alloc::vec::Vec;
    use std::sync::Mutex;
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use super::*;
    use crate::process::tests::in_child;

    /// Starts a thread that locks as soon as it can, and returns when it did.
    fn spawn_locker(lock: &Arc<ForkLock<u8>>) -> thread::JoinHandle<Instant> {
        let lock = Arc::clone(lock);
        let (sender, started) = channel();
        let waiter = thread::spawn(move || {
            let _ = sender.send(());
            drop(lock.lock());
            Instant::now()
        });
        let _ = started.recv();
        waiter
    }

    #[test]
    fn time_waited_before_the_hold_does_not_count() {
        let lock = Arc::new(ForkLock::new(7));
        let guard = lock.lock().unwrap();
        let waiter = spawn_locker(&lock);
        // As long as the request to a slow service before a fork takes.
        thread::sleep(Duration::from_millis(1200));
        guard.hold();
        let held = Instant::now();
        thread::sleep(Duration::from_millis(300));
        let fork_is_over = Instant::now();
        assert_eq!(*lock.lock().unwrap(), 7);
        let got = waiter.join().unwrap();
        assert!(
            got >= fork_is_over,
            "taken {:?} after the hold began",
            got.saturating_duration_since(held)
        );
    }

    #[test]
    fn a_child_finds_the_value_after_a_slow_fork() {
        let lock = Arc::new(ForkLock::new(7));
        lock.lock().unwrap().hold();
        // If these threads could get the lock, they would hold it most of the time.
        let stop = Arc::new(Mutex::new(false));
        let takers: Vec<_> = (0..4)
            .map(|_| {
                let (lock, stop) = (Arc::clone(&lock), Arc::clone(&stop));
                thread::spawn(move || {
                    while !*stop.lock().unwrap() {
                        let guard = lock.lock();
                        thread::sleep(Duration::from_millis(10));
                        drop(guard);
                    }
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(1500));
        let is_whole = in_child(|| lock.lock().is_ok_and(|guard| *guard == 7));
        drop(lock.lock());
        *stop.lock().unwrap() = true;
        for taker in takers {
            taker.join().unwrap();
        }
        assert!(is_whole, "the child has the default");
    }

    #[test]
    fn a_holder_can_go_on_without_a_fork() {
        let lock = Arc::new(ForkLock::new(7));
        lock.lock().unwrap().hold();
        *lock.lock().unwrap() += 1;
        assert_eq!(*lock.lock().unwrap(), 8);
        assert!(spawn_locker(&lock).join().is_ok());
    }

    #[test]
    fn a_hold_ends_with_its_thread() {
        let lock = Arc::new(ForkLock::new(7));
        let holds = {
            let lock = Arc::clone(&lock);
            thread::spawn(move || lock.lock().unwrap().hold())
        };
        holds.join().unwrap();
        let takers: Vec<_> = (0..4).map(|_| spawn_locker(&lock)).collect();
        for taker in takers {
            assert!(taker.join().is_ok());
        }
        assert_eq!(*lock.lock().unwrap(), 7);
    }

    #[test]
    fn a_hold_that_never_ends_is_an_error_to_others() {
        let lock = Arc::new(ForkLock::new(7));
        lock.lock().unwrap().hold();
        let other = {
            let lock = Arc::clone(&lock);
            thread::spawn(move || {
                let short = Wait::For(Duration::from_millis(50));
                let late = lock.acquire(short).is_none();
                // Later calls fail at once while the same hold lasts.
                (late, lock.lock().is_err())
            })
        };
        assert_eq!(other.join().unwrap(), (true, true));
        assert_eq!(*lock.lock().unwrap(), 7);
        // The next hold has a wait of its own.
        lock.lock().unwrap().hold();
        let waiter = spawn_locker(&lock);
        thread::sleep(Duration::from_millis(100));
        assert!(!waiter.is_finished());
        drop(lock.lock());
        waiter.join().unwrap();
    }

    #[test]
    fn a_child_gets_the_default_if_another_thread_held_the_lock() {
        let lock = ForkLock::new(7);
        let guard = lock.lock().unwrap();
        assert!(in_child(|| lock.lock().is_ok_and(|guard| *guard == 0)));
        assert_eq!(*guard, 7);
    }
}
