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
/// A child that is forked inherits all values of its parent. It compares the owner that is stored in
/// one of them with its own to find out that the value is not its to unlink, to allocate from or to
/// lock.
///
/// This is not the process number: in a new pid namespace, child and parent may both be process 1.
/// It is a number that every fork changes (see `sys::generation`). It means nothing outside of the
/// line of a process and its ancestors: do not store it where other processes read it.
///
/// What shares the memory of this process is this process: a thread, and a child of `vfork` or
/// `clone(CLONE_VM)`, which may only execute another program or end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(NonZeroUsize);

impl Owner {
    /// How many bits the number has at most. The others are free for whoever stores it.
    pub(crate) const BITS: u32 = usize::BITS - 2;

    /// This process.
    pub(crate) fn current() -> Self {
        let number = generation() & (usize::MAX >> (usize::BITS - Self::BITS));
        Self(NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN))
    }

    /// Returns `true` if this is the current process, `false` in a child that it has forked.
    pub(crate) fn is_current(self) -> bool {
        self == Self::current()
    }

    /// The number, which is never 0 and has at most [`BITS`](Self::BITS) bits.
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
    fn a_child_is_another_owner_than_all_that_it_descends_from() {
        let parent = Owner::current();
        assert!(parent.is_current());
        assert!(in_child(|| {
            let child = Owner::current();
            child.is_current()
                && !parent.is_current()
                && in_child(|| !child.is_current() && !parent.is_current())
                // One that is not asked for in between.
                && in_child(|| in_child(|| !child.is_current() && !parent.is_current()))
                && child.is_current()
        }));
        assert!(parent.is_current());
        assert!(parent.0.get() < 1 << Owner::BITS);
    }
}
