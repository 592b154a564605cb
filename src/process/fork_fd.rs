//! [`ForkFd`]: a descriptor that threads share and that a forked child can close.
#![allow(unsafe_code)]

use core::sync::atomic::AtomicI32;
use core::sync::atomic::Ordering::{Acquire, Relaxed};

use rustix::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use crate::process::Owner;

/// A descriptor that several threads use through references or reference counts.
///
/// A forked child has none of those threads, but it has their share of the reference counts, so
/// that the descriptor would never be closed there. Therefore the child closes it explicitly.
#[derive(Debug)]
pub(crate) struct ForkFd {
    /// -1 once the descriptor is closed.
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

    /// Returns the descriptor unless it is closed.
    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        let number = self.number.load(Acquire);
        // SAFETY: the descriptor is open until `self` is dropped or `close_in_child` is called, and
        // the callers of `close_in_child` no longer use it.
        (number != -1).then(|| unsafe { BorrowedFd::borrow_raw(number) })
    }

    /// As [`as_fd`](Self::as_fd), but returns `None` in a child of the process that opened the
    /// descriptor.
    pub(crate) fn as_fd_of_owner(&self) -> Option<BorrowedFd<'_>> {
        self.as_fd().filter(|_| self.owner.is_current())
    }

    /// Closes the descriptor if this is a child of the process that opened it. No other thread of
    /// the child uses it: after `fork()` there is none.
    pub(crate) fn close_in_child(&self) {
        if !self.owner.is_current() {
            self.close();
        }
    }

    fn close(&self) {
        let number = self.number.swap(-1, Relaxed);
        if number != -1 {
            // SAFETY: the number comes from an `OwnedFd`, and only the caller that swaps it out
            // closes it.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }

    /// Takes the descriptor out, unless it is closed. The caller has the only reference.
    pub(crate) fn take(&mut self) -> Option<OwnedFd> {
        let number = core::mem::replace(self.number.get_mut(), -1);
        // SAFETY: the number comes from an `OwnedFd`, and `&mut self` excludes other users.
        (number != -1).then(|| unsafe { OwnedFd::from_raw_fd(number) })
    }
}

impl Drop for ForkFd {
    fn drop(&mut self) {
        self.close();
    }
}
