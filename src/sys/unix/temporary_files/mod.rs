//! Files of this user that end with their last holder, in a directory of this user below the one for
//! temporary files.
//!
//! The directory is `shmem-UID` below `$TMPDIR` or `/tmp`. It is created when the first file is, and removed
//! with the last one. No other user can change it, and every file in it with an id for its name is a
//! segment. A lock shows whether any process holds a file:
//!
//! 1. A process that creates or opens a file takes a shared `flock(2)` on it, and then checks whether
//!    the file still has a name. If not, it was removed in between: a creator takes another name, and
//!    for an opener the segment does not exist.
//! 2. A process that drops a file closes it, opens it again, and tries to take the exclusive lock, which it
//!    gets only if no process has a shared one. Then it removes the name. From the moment when it has the lock,
//!    other processes do not get a shared one, and afterwards they find no name.
//! 3. A killed process removes nothing. So a process does the same with the file that it is to open, and
//!    with all files before it creates its first one, and when there is no space left.
//!
//! A forked child shares the open file with its parent, and thus the lock. The file is opened again
//! because a lock that was taken through the shared open file would not show that the other of them holds it.
//! Names are random and never used twice, so the holder of the exclusive lock removes no name but its own.

mod directory;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use self::directory::{Directory, check, limit};
use crate::error::limit::Limit;
use crate::error::{Error, Result, Subject};
use crate::id::ShMemId;
use crate::id::kind::IdKind;
use crate::sys::file_lock::{Lock, lock};
use crate::sys::{above_stdio_quietly, failed, failed_for};

/// How often to try again when another process removes what was found.
const TRIES: usize = 1000;

/// How many files are checked before the first one of a process is created.
pub(crate) const MOST_CHECKED: usize = 1000;

/// Creates the file with this name. Also returns `EEXIST` if another process removes the new file.
pub(crate) fn create(id: &ShMemId) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mode = Mode::RUSR | Mode::WUSR;
    for _ in 0..TRIES {
        let directory = Directory::create()?;
        match fs::openat(&directory, id.as_str(), flags, mode) {
            Ok(fd) => return complete(&directory, fd, id),
            // The directory was empty, and another process has removed it.
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(refused("open", errno, id)),
        }
    }
    Err(refused("open", Errno::NOENT, id))
}

/// Takes the lock of a new file. After an error the file does not exist.
fn complete(directory: &Directory, fd: OwnedFd, id: &ShMemId) -> Result<OwnedFd> {
    let complete = || {
        let fd = above_stdio_quietly(fd).map_err(|errno| refused("fcntl", errno, id))?;
        match lock(&fd, FlockOperation::NonBlockingLockShared) {
            Lock::Taken => {}
            Lock::Refused => return Err(refused("flock", Errno::EXIST, id)),
            // Without a lock, other processes would remove the file.
            Lock::Missing(errno) => return Err(refused("flock", errno, id)),
        }
        let stat = fs::fstat(&fd).map_err(|errno| refused("fstat", errno, id))?;
        if stat.st_nlink == 0 {
            return Err(refused("open", Errno::EXIST, id));
        }
        // The umask or an access control list of the directory may have removed permissions.
        if stat.st_mode & 0o7777 != 0o600 {
            fs::fchmod(&fd, Mode::RUSR | Mode::WUSR)
                .map_err(|errno| refused("fchmod", errno, id))?;
        }
        Ok(fd)
    };
    complete().inspect_err(|_| directory.remove(id.as_str()))
}

/// Returns the descriptor of a file that another process has opened, and whose lock it has passed on as well.
pub(crate) fn adopt(fd: OwnedFd, id: &ShMemId) -> Result<OwnedFd> {
    let stat = fs::fstat(&fd).map_err(|errno| refused("fstat", errno, id))?;
    check(&stat)?;
    Ok(fd)
}

/// Opens the file with this name, if it is a segment of this user.
pub(crate) fn open(id: &ShMemId) -> Result<OwnedFd> {
    let Some(directory) = Directory::find()? else {
        return Err(Error::Gone { id: *id });
    };
    for _ in 0..TRIES {
        let fd = directory.open_file(id.as_str(), id)?;
        if lock(&fd, FlockOperation::NonBlockingLockExclusive) == Lock::Taken {
            // Its last holder was killed.
            directory.remove(id.as_str());
            return Err(Error::Gone { id: *id });
        }
        let locked = lock(&fd, FlockOperation::NonBlockingLockShared);
        if let Lock::Missing(errno) = locked {
            return Err(refused("flock", errno, id));
        }
        let stat = fs::fstat(&fd).map_err(|errno| refused("fstat", errno, id))?;
        if locked == Lock::Taken && stat.st_nlink != 0 {
            return Ok(fd);
        }
        // The file is being removed.
        rustix::thread::sched_yield();
    }
    Err(Error::Gone { id: *id })
}

/// Removes the file if no process holds it, and the directory if it is empty then.
pub(crate) fn remove_if_unused(id: &ShMemId) {
    // Other users could not change the way to it when the file was created. The directory itself is checked.
    if let Ok(directory) = Directory::of_this_user() {
        directory.remove_if_unused(id.as_str());
    }
}

/// Looks at up to `most` files, and removes those that no process holds. Returns how many were removed.
pub(crate) fn remove_unused(most: usize) -> Result<usize> {
    let Some(directory) = Directory::find()? else {
        return Ok(0);
    };
    let (mut seen, mut removed) = (0, 0);
    for entry in directory.entries()? {
        let entry = entry.map_err(|errno| failed("getdents", errno, Subject::Nothing))?;
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        if ShMemId::from_string(name).kind() != IdKind::File {
            continue;
        }
        seen += 1;
        if seen > most {
            break;
        }
        removed += usize::from(directory.remove_if_unused(name));
    }
    Ok(removed)
}

/// Returns the limit that an open file has run into.
pub(crate) fn limit_of(fd: impl AsFd, errno: Errno) -> Option<Limit> {
    if errno != Errno::NOSPC {
        return limit(errno);
    }
    let stat = fs::fstatvfs(fd).ok()?;
    Some(Limit::TemporarySpace {
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
    })
}

/// Returns an error if the file system has less free space than a file needs. Trying to reserve it would take
/// all of it from other programs for a moment.
pub(crate) fn check_space(fd: impl AsFd, size: usize) -> Result<()> {
    match limit_of(fd, Errno::NOSPC) {
        // A file system without a limit reports a total of 0.
        Some(limit @ Limit::TemporarySpace { free, total }) if total > 0 && size as u64 > free => {
            Err(Error::Os {
                call: "fallocate",
                errno: Errno::NOSPC.raw_os_error(),
                subject: Subject::Bytes(size),
                limit: Some(limit),
            })
        }
        _ => Ok(()),
    }
}

/// Returns the error for a call on a file that the system refused.
fn refused(call: &'static str, errno: Errno, id: &ShMemId) -> Error {
    match errno {
        Errno::NOENT => Error::Gone { id: *id },
        Errno::XDEV => Error::Foreign {
            found: "another file system is mounted there",
        },
        Errno::WOULDBLOCK => Error::Foreign {
            found: "another process has a lease on it",
        },
        Errno::NOSYS | Errno::PERM | Errno::NOLCK | Errno::OPNOTSUPP if call == "flock" => {
            Error::Unsupported {
                what: "files cannot be locked (flock) in the directory for temporary files ($TMPDIR, or else \
                       /tmp), so that nothing would tell whether a process holds a segment there: set \
                       TMPDIR to a directory on a local file system",
            }
        }
        _ => failed_for(call, errno, Subject::Id(*id), limit),
    }
}
