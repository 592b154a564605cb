//! [`ThreadNumber`]: identifies a thread, and tells whether it has ended.

use alloc::vec::Vec;
use core::num::NonZeroUsize;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::Relaxed;

use crate::process::fork_lock::ForkLock;

/// The number of a thread of this process. Numbers are not reused, and the thread of a forked child
/// keeps the number of the thread that forked it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ThreadNumber(NonZeroUsize);

/// The registered threads that have not ended. A child inherits the numbers of its parent's
/// threads, which it never asks for.
static LIVING: ForkLock<Vec<NonZeroUsize>> = ForkLock::new(Vec::new());

std::thread_local! {
    static THIS: Entry = Entry(ThreadNumber::next());
}

/// Removes the thread from the list when it ends.
struct Entry(ThreadNumber);

impl Drop for Entry {
    fn drop(&mut self) {
        LIVING.lock_now().retain(|&number| number != self.0.0);
    }
}

impl ThreadNumber {
    /// Returns the calling thread, or `None` while it is ending.
    pub(crate) fn current() -> Option<Self> {
        THIS.try_with(|entry| entry.0).ok()
    }

    /// Returns the calling thread, and registers it so that its end is noticed. That does not work
    /// for a thread that is ending already.
    pub(crate) fn registered() -> Self {
        let this = Self::current().unwrap_or_else(Self::next);
        let mut living = LIVING.lock_now();
        if !living.contains(&this.0) {
            living.push(this.0);
        }
        this
    }

    /// Returns `true` if the thread with this number, which was registered, has ended.
    pub(crate) fn has_ended(number: usize) -> bool {
        LIVING
            .lock_now()
            .iter()
            .all(|living| living.get() != number)
    }

    fn next() -> Self {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        let number = LAST.fetch_add(1, Relaxed).wrapping_add(1);
        Self(NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN))
    }

    pub(crate) fn get(self) -> usize {
        self.0.get()
    }
}
