//! [`FoundFile`]: a file that is examined before it is opened. These systems have no descriptor that does not
//! open the file, so it is opened by its name, and compared afterwards.

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, AtFlags, Mode, OFlags, Stat};
use rustix::io::{self, Errno};

use crate::memory::mapping::Protection;
use crate::sys::access;
use crate::sys::file_lock::is_same;

/// A file that was found by its name: what `fstatat` reports.
pub(in crate::sys) struct FoundFile {
    pub(in crate::sys) stat: Stat,
}

impl FoundFile {
    /// Finds the file with this name, without opening it. Does not follow a symbolic link.
    pub(in crate::sys) fn at(directory: impl AsFd, name: &[u8]) -> io::Result<Self> {
        let stat = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(Self { stat })
    }

    /// Opens the file. Returns `ENOENT` if the name leads to another file now.
    pub(in crate::sys) fn open(
        &self,
        directory: impl AsFd,
        name: &[u8],
        protection: Protection,
    ) -> io::Result<OwnedFd> {
        let flags = access(protection)
            | OFlags::CLOEXEC
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::NOCTTY;
        let fd = fs::openat(directory, name, flags, Mode::empty())?;
        let fd = crate::sys::above_stdio_quietly(fd)?;
        if is_same(&fs::fstat(&fd)?, &self.stat) {
            Ok(fd)
        } else {
            Err(Errno::NOENT)
        }
    }
}
