//! [`Owner`]: the process that a value belongs to.

use core::num::NonZeroUsize;

#[cfg(any(unix, windows))]
use crate::sys::generation;

/// Other systems have no processes.
#[cfg(not(any(unix, windows)))]
fn generation() -> usize {
    1
}

/// A process, as it and its forked children tell each other apart.
///
/// A forked child inherits all values of its parent. It compares the owner that is stored in a
/// value with its own, to find out that the value is not the child's to unlink, to allocate from,
/// or to lock.
///
/// This is not the process number: in a new pid namespace, child and parent can both be process 1.
/// It is a number that changes with every fork (see `sys::generation`). It has a meaning only for a
/// process, its ancestors and its descendants: do not store it where other processes read it.
///
/// Threads share the memory of the process and therefore its owner. So does a child of `vfork` or
/// `clone(CLONE_VM)`, which may only execute another program or end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(NonZeroUsize);

impl Owner {
    /// The maximum number of bits of [`number`](Self::number). The other bits are free for
    /// other uses.
    pub(crate) const BITS: u32 = usize::BITS - 2;

    /// Returns the current process.
    #[inline]
    pub(crate) fn current() -> Self {
        let number = generation() & (usize::MAX >> (usize::BITS - Self::BITS));
        Self(NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN))
    }

    /// Returns `true` if this is the current process, and `false` in a child that it forked.
    #[inline]
    pub(crate) fn is_current(self) -> bool {
        self == Self::current()
    }

    /// Returns the number, which is never 0 and has at most [`BITS`](Self::BITS) bits.
    #[cfg(feature = "std")]
    pub(crate) const fn number(self) -> usize {
        self.0.get()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::Owner;
    use crate::process::tests::in_child;

    #[test]
    fn a_child_differs_from_all_its_ancestors() {
        let parent = Owner::current();
        assert!(parent.is_current());
        assert!(in_child(|| {
            let child = Owner::current();
            child.is_current()
                && !parent.is_current()
                && in_child(|| !child.is_current() && !parent.is_current())
                // A generation in between that never asks for its owner.
                && in_child(|| in_child(|| !child.is_current() && !parent.is_current()))
                && child.is_current()
        }));
        assert!(parent.is_current());
        assert!(parent.0.get() < 1 << Owner::BITS);
    }
}
