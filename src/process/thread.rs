//! [`ThreadNumber`]: a thread, and whether it has ended.

use alloc::vec::Vec;
use core::num::NonZeroUsize;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::Relaxed;

use crate::process::fork_lock::ForkLock;

/// Names a thread of this process. It does not come again, and the thread of a forked child has that
/// of the thread that forked it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ThreadNumber(NonZeroUsize);

/// The enlisted threads that have not ended. What a child inherits of it are names of its parent's
/// threads, for which nobody asks there.
static LIVING: ForkLock<Vec<NonZeroUsize>> = ForkLock::new(Vec::new());

std::thread_local! {
    static THIS: Entry = Entry(ThreadNumber::next());
}

/// Strikes the thread off the list when it ends.
struct Entry(ThreadNumber);

impl Drop for Entry {
    fn drop(&mut self) {
        LIVING.lock_now().retain(|&number| number != self.0.0);
    }
}

impl ThreadNumber {
    /// The calling thread. `None` while it ends.
    pub(crate) fn current() -> Option<Self> {
        THIS.try_with(|entry| entry.0).ok()
    }

    /// The same for a thread whose end is to be noticed. If it is ending already, nobody will.
    pub(crate) fn enlisted() -> Self {
        let this = Self::current().unwrap_or_else(Self::next);
        let mut living = LIVING.lock_now();
        if !living.contains(&this.0) {
            living.push(this.0);
        }
        this
    }

    /// Whether the thread with this number, which was enlisted, has ended.
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
