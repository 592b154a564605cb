//! The locks by which processes tell each other that they hold a file (`flock(2)`), and what a file has to
//! look like before it is opened.

use rustix::fd::AsFd;
use rustix::fs::{self, FlockOperation, Stat};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// The result of trying to take a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sys) enum Lock {
    Taken,
    /// Another process holds one.
    Refused,
    /// Locks are not available: a sandbox forbids the call, or the file system has none.
    Missing(Errno),
}

/// Tries to take a lock. The kernel releases it with the last descriptor or mapping of the open file, however
/// a process ends.
pub(in crate::sys) fn lock(fd: impl AsFd, operation: FlockOperation) -> Lock {
    match fs::flock(fd, operation) {
        Ok(()) => Lock::Taken,
        Err(Errno::WOULDBLOCK) => Lock::Refused,
        Err(errno) => Lock::Missing(errno),
    }
}

pub(in crate::sys) fn is_same(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

/// Returns an error for a file of this user that others may write to or have linked.
///
/// Where hard links are not protected (`fs.protected_hardlinks`), another user can give a second
/// name to any file of this user in the file system.
pub(in crate::sys) fn check_access(stat: &Stat) -> Result<()> {
    if stat.st_nlink > 1 {
        return Err(Error::Foreign {
            found: "the file has more than one name",
        });
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(Error::Foreign {
            found: "its permissions let other users write to it",
        });
    }
    Ok(())
}
