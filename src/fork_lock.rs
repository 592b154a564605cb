//! [`ForkLock`]: a lock that gets through `fork()`.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::fmt;
use core::hint;
use core::mem;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::time::Duration;
use std::thread;
use std::time::Instant;

use crate::process::Owner;

/// A mutex for what a forked child has to go on using.
///
/// A child has one thread, a copy of the one that called `fork()`. A lock of another kind that some
/// other thread held at that moment stays locked in the child for ever. This one knows which process
/// its holder belongs to. [`hold`](Guard::hold) before the fork and [`resume`](Self::resume) after
/// it on both sides carry the value over; without them, a child that finds the lock held throws the
/// value away unread, because it may be half changed, and starts with the default.
pub(crate) struct ForkLock<T> {
    /// 0 if it is free; otherwise the number of the [`Owner`] that holds it, times two, and one more
    /// if it is held for a fork, with no guard about.
    word: AtomicUsize,
    value: UnsafeCell<T>,
}

// SAFETY: the lock gives the value to one thread at a time.
unsafe impl<T: Send> Sync for ForkLock<T> {}

/// Access to the value, until dropped.
pub(crate) struct Guard<'lock, T> {
    lock: &'lock ForkLock<T>,
    owner: Owner,
}

impl<T> Guard<'_, T> {
    /// This process, which the lock had to ask for.
    pub(crate) fn current(&self) -> Owner {
        self.owner
    }

    /// Keeps it locked until [`ForkLock::resume`], here and in the child that is forked meanwhile.
    ///
    /// If that never comes, it is free again after a second.
    pub(crate) fn hold(self) {
        let word = held_by(self.owner) | 1;
        self.lock.word.store(word, Release);
        mem::forget(self);
    }
}

/// How long a lock stays held for a fork, if [`ForkLock::resume`] never comes.
const PATIENCE: Duration = Duration::from_secs(1);

impl<T: Default> ForkLock<T> {
    /// The value, unlocked.
    pub(crate) const fn new(value: T) -> Self {
        Self {
            word: AtomicUsize::new(0),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits until no other thread of this process holds it.
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        let owner = Owner::current();
        let held = held_by(owner);
        let mut turns = 0_u32;
        let mut since: Option<Instant> = None;
        loop {
            let word = self.word.load(Relaxed);
            let parent_died_in_it = word != 0 && word & !1 != held && word & 1 == 0;
            let patience = || since.is_some_and(|since| since.elapsed() > PATIENCE);
            let free = word == 0 || word & !1 != held || (word & 1 == 1 && patience());
            if free {
                if self.try_change(word, held) {
                    if parent_died_in_it {
                        // SAFETY: we hold the lock now, and no reference into the value exists in
                        // this process: its holder was a thread of the one that forked us.
                        unsafe { self.value.get().write(T::default()) };
                    }
                    return Guard { lock: self, owner };
                }
                continue;
            }
            since.get_or_insert_with(Instant::now);
            turns += 1;
            match turns {
                0..64 => hint::spin_loop(),
                64..128 => thread::yield_now(),
                _ => thread::sleep(Duration::from_micros(50)),
            }
        }
    }

    /// The value after the fork, as it was before it.
    pub(crate) fn resume(&self) -> Guard<'_, T> {
        let owner = Owner::current();
        let held = held_by(owner);
        if self.try_change(held | 1, held) {
            return Guard { lock: self, owner };
        }
        self.lock()
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
