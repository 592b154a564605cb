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
//! 3. A killed process removes nothing. So a process does the same with all files before it creates its first
//!    one, and when there is no space left.
//!
//! A forked child shares the open file with its parent, and thus the lock. The file is opened again
//! because a lock that was taken through the shared open file would not show that the other of them holds it.
//! Names are random and never used twice, so the holder of the exclusive lock removes no name but its own.

use std::env;
use std::path::{Path, PathBuf};

use alloc::boxed::Box;
use alloc::format;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::error::limit::Limit;
use crate::error::{Error, Result, Subject};
use crate::id::ShMemId;
use crate::id::kind::IdKind;
use crate::process::Published;
use crate::sys::file_lock::{Lock, check_access, lock};
use crate::sys::found_file::FoundFile;
use crate::sys::trust::{self, Found, Reason, Untrusted};
use crate::sys::user::{check_user, is_me};
use crate::sys::{SEARCH, above_stdio_quietly, check_owner, failed, failed_for};

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
        match fs::openat(&directory.0, id.as_str(), flags, mode) {
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

/// Opens the file with this name, if it is a segment of this user.
pub(crate) fn open(id: &ShMemId) -> Result<OwnedFd> {
    let Some(directory) = Directory::find()? else {
        return Err(Error::Gone { id: *id });
    };
    for _ in 0..TRIES {
        let fd = directory.open_file(id.as_str(), id)?;
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
    if let Ok(directory) = Directory::open(&path()) {
        directory.remove_if_unused(id.as_str());
    }
}

/// Looks at up to `most` files, and removes those that no process holds. Returns how many were removed.
pub(crate) fn remove_unused(most: usize) -> Result<usize> {
    let Some(directory) = Directory::find()? else {
        return Ok(0);
    };
    let refused = |call| move |errno| failed(call, errno, Subject::Nothing);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let readable = fs::openat(&directory.0, ".", flags, Mode::empty()).map_err(refused("open"))?;
    let entries = Dir::new(readable).map_err(refused("getdents"))?;
    let (mut seen, mut removed) = (0, 0);
    for entry in entries {
        let entry = entry.map_err(refused("getdents"))?;
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

/// The directory of the files, which belongs to this user and is not accessible to others.
struct Directory(OwnedFd);

impl Directory {
    /// Opens the directory, and creates it first if it does not exist.
    fn create() -> Result<Self> {
        for _ in 0..TRIES {
            if let Some(directory) = Self::find()? {
                return Ok(directory);
            }
            match fs::mkdir(path(), Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed_for("mkdir", errno, Subject::Nothing, limit)),
            }
        }
        Err(failed_for("mkdir", Errno::NOENT, Subject::Nothing, limit))
    }

    /// Opens the directory. Returns `None` if it does not exist.
    fn find() -> Result<Option<Self>> {
        check_user()?;
        let path = path();
        if let Found::Nothing = trust::check(&path)? {
            return Ok(None);
        }
        match Self::open(&path) {
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Opens the directory, if it is one of this user and not accessible to others.
    fn open(path: &Path) -> Result<Self> {
        let unsafe_because = |problem, owner| Error::Directory {
            path: path.to_string_lossy().into_owned(),
            problem,
            owner,
        };
        let flags = SEARCH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(CWD, path, flags, Mode::empty()).and_then(above_stdio_quietly);
        let fd = fd.map_err(|errno| match errno {
            Errno::NOTDIR | Errno::LOOP => unsafe_because("is not a directory", None),
            _ => failed_for("open", errno, Subject::Nothing, limit),
        })?;
        let stat = fs::fstat(&fd).map_err(|errno| failed("fstat", errno, Subject::Nothing))?;
        if !is_me(stat.st_uid) {
            return Err(unsafe_because("belongs to another user", Some(stat.st_uid)));
        }
        if stat.st_mode & 0o077 != 0 {
            return Err(unsafe_because("is accessible to other users", None));
        }
        Ok(Self(fd))
    }

    /// Opens a file for reading and writing, if it is a regular file of this user alone.
    fn open_file(&self, name: &str, id: &ShMemId) -> Result<OwnedFd> {
        let found =
            FoundFile::at(&self.0, name.as_bytes()).map_err(|errno| refused("open", errno, id))?;
        check(&found.stat)?;
        let opened = found.open(&self.0, name.as_bytes());
        opened.map_err(|errno| match errno {
            Errno::WOULDBLOCK => Error::Foreign {
                found: "another process has a lease on it",
            },
            _ => refused("open", errno, id),
        })
    }

    /// Removes the file if no process holds it, and the directory if it is empty then. Returns `true` if the
    /// file was removed.
    fn remove_if_unused(&self, name: &str) -> bool {
        let Ok(fd) = self.open_file(name, &ShMemId::default()) else {
            return false;
        };
        let is_unused = lock(&fd, FlockOperation::NonBlockingLockExclusive) == Lock::Taken;
        if is_unused {
            self.remove(name);
        }
        is_unused
    }

    /// Removes the file, and the directory if it is empty then.
    fn remove(&self, name: &str) {
        // What fails here is left to the next process that creates a file.
        let _ = fs::unlinkat(&self.0, name, AtFlags::empty());
        // Fails while there are other files. A process that is about to create one creates the directory again.
        let _ = fs::rmdir(path());
    }
}

/// Returns an error unless this is a regular file of this user that others can neither write nor have linked.
fn check(stat: &Stat) -> Result<()> {
    check_owner(stat.st_uid)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::Foreign {
            found: "it is not a regular file",
        });
    }
    check_access(stat)
}

/// Returns the path of the directory for the present user.
fn path() -> PathBuf {
    parent().join(format!("shmem-{}", geteuid().as_raw()))
}

/// Returns the directory for temporary files. The environment is read once: in a forked child another
/// thread of the parent may have held its lock during the fork.
fn parent() -> &'static Path {
    static PARENT: Published<PathBuf> = Published::new();

    loop {
        if let Some(parent) = PARENT.get() {
            return parent;
        }
        let chosen = (!trust::has_more_rights()).then(env::temp_dir);
        // A relative path would differ from program to program.
        let parent = chosen.filter(|path| path.is_absolute());
        PARENT.replace(None, Box::leak(Box::new(parent.unwrap_or("/tmp".into()))));
    }
}

impl From<Untrusted> for Error {
    fn from(untrusted: Untrusted) -> Self {
        let (problem, owner) = match untrusted.reason {
            Reason::Owner(uid) => ("belongs to another user", Some(uid)),
            Reason::Writable => (
                "lets other users rename what it contains, because it lacks the sticky bit",
                None,
            ),
            Reason::NotADirectory => ("is not a directory", None),
            Reason::Os(call, errno) => return failed_for(call, errno, Subject::Nothing, limit),
        };
        Self::Directory {
            path: untrusted.path.to_string_lossy().into_owned(),
            problem,
            owner,
        }
    }
}

/// What is wrong with the directory for temporary files, if this error of a call in it tells.
fn limit(errno: Errno) -> Option<Limit> {
    let problem = match errno {
        Errno::NOENT => "does not exist",
        Errno::ROFS => "is on a file system that is mounted read-only",
        Errno::ACCESS | Errno::PERM => {
            "may not be used by this process, because its permissions or a security module (Landlock, \
             AppArmor, SELinux) forbid it"
        }
        Errno::NOSPC | Errno::DQUOT => "has no space left",
        _ => return None,
    };
    Some(Limit::TemporaryDirectory { problem })
}

/// Returns the error for a call on a file that the system refused.
fn refused(call: &'static str, errno: Errno, id: &ShMemId) -> Error {
    match errno {
        Errno::NOENT => Error::Gone { id: *id },
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
