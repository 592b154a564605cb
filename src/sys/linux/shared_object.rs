//! Recognising objects in memory: by their seals, or as ashmem.

use rustix::fd::AsFd;
use rustix::fs::{AtFlags, StatxFlags, fcntl_get_seals, statx};

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

    /// Does the same for a file as well, which is only identified: its size is 0.
    ///
    /// That takes no answer of a program that serves its file system.
    pub(in crate::sys) fn from_any(fd: impl AsFd) -> Option<Self> {
        /// `AT_STATX_DONT_SYNC` (`statx(2)`), which rustix names on Linux only.
        const DONT_SYNC: AtFlags = AtFlags::from_bits_retain(0x4000);

        Self::from_fd(&fd).or_else(|| {
            let flags = AtFlags::EMPTY_PATH | DONT_SYNC;
            let stat = statx(&fd, "", flags, StatxFlags::INO).ok()?;
            Some(Self {
                size: 0,
                device: u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor),
                inode: stat.stx_ino,
            })
        })
    }

    /// Returns `true` if the object can be that of a segment of `size` bytes.
    pub(crate) fn fits(&self, size: u64) -> bool {
        self.size == size
    }
}
