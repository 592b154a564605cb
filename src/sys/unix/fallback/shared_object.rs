//! Recognising objects in memory by their size alone.

use rustix::fd::AsFd;

use crate::sys::SharedObject;

impl SharedObject {
    /// Returns the object that a received descriptor refers to.
    pub(crate) fn from_fd(fd: impl AsFd) -> Option<Self> {
        Self::from_stat(fd)
    }

    /// Does the same.
    pub(in crate::sys) fn from_any(fd: impl AsFd) -> Option<Self> {
        Self::from_stat(fd)
    }

    /// Returns `true` if the object can be that of a segment of `size` bytes. Some systems round
    /// sizes up to whole pages, which have 16 KiB on some machines.
    pub(crate) fn fits(&self, size: u64) -> bool {
        self.size
            .checked_sub(size)
            .is_some_and(|rest| rest < 64 << 10)
    }
}
