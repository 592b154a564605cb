//! Recognising objects in memory: by their seals, or as ashmem.

use rustix::fd::AsFd;
use rustix::fs::fcntl_get_seals;

use super::ashmem;
use crate::sys::SharedObject;

impl SharedObject {
    /// Returns the object that a received descriptor refers to, or `None` if it is not in memory.
    ///
    /// Only files of the kernel's own file systems in memory can have seals (`F_GET_SEALS`,
    /// `fcntl(2)`). Nothing else is examined: the kernel would forward the question about a file of
    /// a file system in user space to the program that serves it, which could block for as long as
    /// it likes.
    pub(crate) fn from_fd(fd: impl AsFd) -> Option<Self> {
        if fcntl_get_seals(&fd).is_ok() {
            Self::from_stat(fd)
        } else {
            // The device does not report which region it is.
            Some(Self {
                size: ashmem::size(fd)?,
                device: 0,
                inode: 0,
            })
        }
    }

    /// Returns `true` if the object can be that of a segment of `size` bytes.
    pub(crate) fn fits(&self, size: u64) -> bool {
        self.size == size
    }
}
