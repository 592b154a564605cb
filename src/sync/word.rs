//! [`Word`]: what the protocols of this crate do with a word of shared memory.
//!
//! The protocols are generic over it, so that the same code runs on the atomics of `core` in a segment and
//! on those of `loom` and `shuttle` in tests, which explore the schedules of threads.

use core::hint;
use core::sync::atomic::{self, AtomicU32, Ordering};
use core::time::Duration;

use crate::error::Result;
use crate::sys::futex;

/// An atomic integer of 32 bits that processes can wait for.
pub(crate) trait Word {
    /// A moment on the clock that [`sleep_while`](Self::sleep_while) reads.
    type Deadline: Ord;

    fn load(&self, ordering: Ordering) -> u32;
    fn store(&self, value: u32, ordering: Ordering);
    fn swap(&self, value: u32, ordering: Ordering) -> u32;
    fn fetch_add(&self, value: u32, ordering: Ordering) -> u32;
    fn fetch_or(&self, value: u32, ordering: Ordering) -> u32;

    /// Stores a value if the word has this one. Returns what was found, as an error if it was another value.
    fn compare_exchange(
        &self,
        current: u32,
        new: u32,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u32, u32>;

    /// As [`core::sync::atomic::fence`].
    fn fence(ordering: Ordering);

    /// As [`core::hint::spin_loop`].
    fn pause();

    /// Returns the deadline that ends this timeout, or `None` if the clock cannot represent it.
    fn after(timeout: Duration) -> Option<Self::Deadline>;

    /// Blocks while the word has this value. Returns `false` if the deadline has passed. May also return
    /// `true` spuriously.
    fn sleep_while(&self, value: u32, deadline: Option<&Self::Deadline>) -> Result<bool>;

    /// Wakes at most `most` sleepers.
    fn wake(&self, most: u32) -> Result<()>;
}

impl Word for AtomicU32 {
    type Deadline = futex::Deadline;

    #[inline]
    fn load(&self, ordering: Ordering) -> u32 {
        self.load(ordering)
    }

    #[inline]
    fn store(&self, value: u32, ordering: Ordering) {
        self.store(value, ordering);
    }

    #[inline]
    fn swap(&self, value: u32, ordering: Ordering) -> u32 {
        self.swap(value, ordering)
    }

    #[inline]
    fn fetch_add(&self, value: u32, ordering: Ordering) -> u32 {
        self.fetch_add(value, ordering)
    }

    #[inline]
    fn fetch_or(&self, value: u32, ordering: Ordering) -> u32 {
        self.fetch_or(value, ordering)
    }

    #[inline]
    fn compare_exchange(
        &self,
        current: u32,
        new: u32,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u32, u32> {
        self.compare_exchange(current, new, success, failure)
    }

    #[inline]
    fn fence(ordering: Ordering) {
        atomic::fence(ordering);
    }

    #[inline]
    fn pause() {
        hint::spin_loop();
    }

    #[inline]
    fn after(timeout: Duration) -> Option<Self::Deadline> {
        futex::after(timeout)
    }

    #[inline]
    fn sleep_while(&self, value: u32, deadline: Option<&Self::Deadline>) -> Result<bool> {
        futex::sleep_while(self, value, deadline)
    }

    #[inline]
    fn wake(&self, most: u32) -> Result<()> {
        futex::wake(self, most).map(|_| ())
    }
}

#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
pub(crate) mod explored;
