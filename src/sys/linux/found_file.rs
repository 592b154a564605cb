//! [`FoundFile`]: a file that is examined before it is opened.

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::{self, Errno};
use rustix::path::DecInt;

use crate::memory::mapping::Protection;
use crate::sys::access;
use crate::sys::file_lock::is_same;
use crate::util::fixed_str::FixedStr;

/// A file that was found by its name: an `O_PATH` descriptor of it, and what `fstat` reports.
pub(in crate::sys) struct FoundFile {
    pub(in crate::sys) fd: OwnedFd,
    pub(in crate::sys) stat: Stat,
}

impl FoundFile {
    /// Finds the file with this name, without opening it. Does not follow a symbolic link. Returns `EXDEV`
    /// if another file system is mounted there.
    pub(in crate::sys) fn at(directory: impl AsFd, name: &[u8]) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // A file system in user space could be mounted there, and examining it could block.
        let resolve = ResolveFlags::NO_XDEV;
        let fd = match fs::openat2(&directory, name, flags, Mode::empty(), resolve) {
            // Before Linux 5.6, or in a sandbox that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => fs::openat(&directory, name, flags, Mode::empty()),
            found => found,
        }?;
        let stat = fs::fstat(&fd)?;
        Ok(Self { fd, stat })
    }

    /// Opens the file. Returns `ENOENT` if the name, which is only used where `/proc`
    /// is not mounted, leads to another file now.
    ///
    /// The caller has excluded files that would block or have an effect when opened.
    pub(in crate::sys) fn open(
        &self,
        directory: impl AsFd,
        name: &[u8],
        protection: Protection,
    ) -> io::Result<OwnedFd> {
        let flags = access(protection) | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let number = DecInt::from_fd(&self.fd);
        let link = FixedStr::<32>::joined(&[b"/proc/thread-self/fd/", number.as_bytes()]);
        let fd = match fs::open(link.as_bytes(), flags, Mode::empty()) {
            // `/proc` is not mounted.
            Err(Errno::NOENT | Errno::NOTDIR) => {
                fs::openat(directory, name, flags | OFlags::NOFOLLOW, Mode::empty())
            }
            opened => opened,
        }?;
        let fd = crate::sys::above_stdio_quietly(fd)?;
        if is_same(&fs::fstat(&fd)?, &self.stat) {
            Ok(fd)
        } else {
            Err(Errno::NOENT)
        }
    }
}
