//! [`ForkFd`]: a descriptor that threads share and that a forked child can close.
#![allow(unsafe_code)]

use core::sync::atomic::AtomicI32;
use core::sync::atomic::Ordering::{Acquire, Relaxed};

use rustix::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use crate::process::Owner;

/// A descriptor that other threads use as well, by references or reference counts.
///
/// In a forked child those threads do not exist, but the counts that they had a part in do: nothing
/// would ever be closed. So a child closes it by hand.
#[derive(Debug)]
pub(crate) struct ForkFd {
    /// -1 once closed.
    number: AtomicI32,
    owner: Owner,
}

impl ForkFd {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self {
            number: AtomicI32::new(fd.into_raw_fd()),
            owner: Owner::current(),
        }
    }

    /// The descriptor, unless it was closed.
    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        let number = self.number.load(Acquire);
        // SAFETY: it is open for as long as `self` lives, or until `close_in_child`, which is called
        // by nobody who still uses it.
        (number != -1).then(|| unsafe { BorrowedFd::borrow_raw(number) })
    }

    /// The same, but not in a child of the process that opened it.
    pub(crate) fn as_fd_of_owner(&self) -> Option<BorrowedFd<'_>> {
        self.as_fd().filter(|_| self.owner.is_current())
    }

    /// Closes it if this is a child of the process that opened it. Nobody else in the child uses it,
    /// because there is nobody else.
    pub(crate) fn close_in_child(&self) {
        if !self.owner.is_current() {
            self.close();
        }
    }

    fn close(&self) {
        let number = self.number.swap(-1, Relaxed);
        if number != -1 {
            // SAFETY: it came from an owner, and the swap lets nobody else do this.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }

    /// The descriptor, if it was not closed, for the holder of the only reference.
    pub(crate) fn take(&mut self) -> Option<OwnedFd> {
        let number = core::mem::replace(self.number.get_mut(), -1);
        // SAFETY: it came from an owner, and nobody else has it any more.
        (number != -1).then(|| unsafe { OwnedFd::from_raw_fd(number) })
    }
}

impl Drop for ForkFd {
    fn drop(&mut self) {
        self.close();
    }
}
