//! [`ForkLock`]: a lock that gets through `fork()`.
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

/// A mutex for what a forked child has to go on using.
///
/// A child has one thread, a copy of the one that called `fork()`. A lock of another kind that some
/// other thread held at that moment stays locked in the child for ever. This one knows which process
/// its holder belongs to. [`hold`](Guard::hold) before the fork and [`lock`](Self::lock) after it, on
/// both sides, carry the value over; without them, a child that finds the lock held throws the value
/// away unread, because it may be half changed, and starts with the default.
///
/// # When a hold ends
///
/// In the child, when its thread locks it. In the parent, when the thread that holds it locks it: it
/// cannot do that during the fork, so the fork is over, or has failed, or is not going to happen. Or when
/// that thread has ended. Never by time: however long the fork takes, the child finds the value whole.
/// Other threads wait, but not for ever: after [`PATIENCE`] they get [`Error::ForkPending`] until the
/// hold ends.
pub struct ForkLock<T> {
    /// 0 if it is free; otherwise the number of the [`Owner`] that holds it, times two, and one more
    /// if it is held for a fork, with no guard about.
    word: AtomicUsize,
    /// The [`ThreadNumber`] of the thread that holds it for a fork. Written before `word` says that one
    /// does, by that thread; afterwards only from the number of a thread that has ended to that of one
    /// that takes its place. Numbers do not come again, so only one thread can.
    holder: AtomicUsize,
    /// How often it was held for a fork.
    holds: AtomicUsize,
    /// Which of these lasted too long.
    overdue: AtomicUsize,
    value: UnsafeCell<T>,
}

// SAFETY: the lock gives the value to one thread at a time.
unsafe impl<T: Send> Sync for ForkLock<T> {}

/// Access to the value, until dropped.
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
    /// This process, which the lock had to ask for.
    pub(crate) fn current(&self) -> Owner {
        self.owner
    }

    /// Keeps it locked until this thread locks it, here and in the child that is forked meanwhile.
    pub fn hold(self) {
        let lock = self.lock;
        lock.holder.store(ThreadNumber::enlisted().get(), Relaxed);
        lock.holds.fetch_add(1, Relaxed);
        lock.word.store(held_by(self.owner) | FOR_FORK, Release);
        mem::forget(self);
    }
}

/// The bit of a word that says that it is held for a fork.
const FOR_FORK: usize = 1;

/// How long other threads wait for a hold to end. Counted is the time slept, so it is longer for a
/// process that is stopped or short of processors.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a thread does that finds it held for the fork of another one.
#[derive(Clone, Copy, PartialEq)]
enum Wait {
    /// Waits so long.
    For(Duration),
    /// Takes it.
    No,
}

impl<T: Default> ForkLock<T> {
    /// The value, unlocked.
    pub const fn new(value: T) -> Self {
        Self {
            word: AtomicUsize::new(0),
            holder: AtomicUsize::new(0),
            holds: AtomicUsize::new(0),
            overdue: AtomicUsize::new(0),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits until no other thread of this process holds it.
    pub fn lock(&self) -> Result<Guard<'_, T>> {
        self.acquire(Wait::For(PATIENCE)).ok_or(Error::ForkPending)
    }

    /// The same for a lock that is never held for a fork, or whose holder does not need it any more.
    pub fn lock_now(&self) -> Guard<'_, T> {
        loop {
            if let Some(guard) = self.acquire(Wait::No) {
                return guard;
            }
        }
    }

    /// `None` if another thread holds it for a fork for longer than this one waits.
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
                    // SAFETY: we hold the lock now, and no reference into the value exists in
                    // this process: its holder was a thread of the one that forked us.
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
                    if let (true, Wait::For(patience)) = (is_held_for_fork, wait) {
                        let holds = self.holds.load(Relaxed);
                        if holds != seen {
                            (seen, waited) = (holds, Duration::ZERO);
                        }
                        waited += pause;
                        if !self.takes_the_place_of_the_holder()
                            && self.is_overdue(seen, waited > patience)
                        {
                            return None;
                        }
                    }
                }
            }
        }
    }

    /// Of a lock that is held for a fork in this process: returns `true` if the calling thread holds it.
    fn is_held_by_this_thread(&self) -> bool {
        // Only this thread writes its own number there.
        ThreadNumber::current().is_some_and(|this| self.holder.load(Relaxed) == this.get())
    }

    /// If the thread that holds it has ended, makes the calling one its holder.
    fn takes_the_place_of_the_holder(&self) -> bool {
        let holder = self.holder.load(Relaxed);
        if !ThreadNumber::has_ended(holder) || ThreadNumber::current().is_none() {
            return false;
        }
        // Enlisted, so that nobody else takes this thread for one that has ended.
        let this = ThreadNumber::enlisted();
        self.holder
            .compare_exchange(holder, this.get(), Relaxed, Relaxed)
            .is_ok()
    }

    /// Whether this hold lasts too long. One of its waiters finds out for all.
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
        // SAFETY: the guard stands for the lock, which this thread holds.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard is borrowed for writing.
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

    /// A lock that is locked by another thread as soon as that can be, and when that was.
    fn wanted(lock: &Arc<ForkLock<u8>>) -> thread::JoinHandle<Instant> {
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
    fn a_waiter_does_not_count_what_it_waited_before_the_fork() {
        let lock = Arc::new(ForkLock::new(7));
        let guard = lock.lock().unwrap();
        let waiter = wanted(&lock);
        // As long as a slow service is asked before the fork.
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
    fn the_value_is_whole_after_a_fork_that_takes_long() {
        let lock = Arc::new(ForkLock::new(7));
        lock.lock().unwrap().hold();
        // They have it for most of the time, if they get it.
        let stop = Arc::new(Mutex::new(false));
        let thieves: Vec<_> = (0..4)
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
        for thief in thieves {
            thief.join().unwrap();
        }
        assert!(is_whole, "the child has the default");
    }

    #[test]
    fn who_holds_it_may_go_on_without_a_fork() {
        let lock = Arc::new(ForkLock::new(7));
        lock.lock().unwrap().hold();
        *lock.lock().unwrap() += 1;
        assert_eq!(*lock.lock().unwrap(), 8);
        assert!(wanted(&lock).join().is_ok());
    }

    #[test]
    fn a_thread_that_ends_leaves_it_to_the_others() {
        let lock = Arc::new(ForkLock::new(7));
        let holds = {
            let lock = Arc::clone(&lock);
            thread::spawn(move || lock.lock().unwrap().hold())
        };
        holds.join().unwrap();
        let takers: Vec<_> = (0..4).map(|_| wanted(&lock)).collect();
        for taker in takers {
            assert!(taker.join().is_ok());
        }
        assert_eq!(*lock.lock().unwrap(), 7);
    }

    #[test]
    fn who_never_goes_on_is_an_error_to_the_others() {
        let lock = Arc::new(ForkLock::new(7));
        lock.lock().unwrap().hold();
        let other = {
            let lock = Arc::clone(&lock);
            thread::spawn(move || {
                let short = Wait::For(Duration::from_millis(50));
                let late = lock.acquire(short).is_none();
                // Nobody waits for the same fork again.
                (late, lock.lock().is_err())
            })
        };
        assert_eq!(other.join().unwrap(), (true, true));
        assert_eq!(*lock.lock().unwrap(), 7);
        // The next hold is another one.
        lock.lock().unwrap().hold();
        let waiter = wanted(&lock);
        thread::sleep(Duration::from_millis(100));
        assert!(!waiter.is_finished());
        drop(lock.lock());
        waiter.join().unwrap();
    }

    #[test]
    fn a_child_starts_anew_where_a_thread_was_at_work() {
        let lock = ForkLock::new(7);
        let guard = lock.lock().unwrap();
        assert!(in_child(|| lock.lock().is_ok_and(|guard| *guard == 0)));
        assert_eq!(*guard, 7);
    }
}
