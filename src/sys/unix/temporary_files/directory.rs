//! [`Directory`]: where the files are, and who may change it.

use alloc::boxed::Box;
use alloc::format;
use std::env;
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::{TRIES, refused};
use crate::error::limit::Limit;
use crate::error::{Error, Result, Subject};
use crate::id::ShMemId;
use crate::memory::mapping::Protection;
use crate::process::Published;
use crate::sys::file_lock::{Lock, check_access, lock};
use crate::sys::found_file::FoundFile;
use crate::sys::trust::{self, Found, Reason, Untrusted};
use crate::sys::user::{check_user, is_me};
use crate::sys::{SEARCH, above_stdio_quietly, check_owner, failed, failed_for};

/// The directory of the files, which belongs to this user and is not accessible to others.
pub(super) struct Directory(OwnedFd);

impl Directory {
    /// Opens the directory, and creates it first if it does not exist.
    pub(super) fn create() -> Result<Self> {
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
    pub(super) fn find() -> Result<Option<Self>> {
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

    /// Opens the directory, without a check of the way to it.
    pub(super) fn of_this_user() -> Result<Self> {
        Self::open(&path())
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

    /// Returns what the directory contains.
    pub(super) fn entries(&self) -> Result<Dir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let readable = fs::openat(&self.0, ".", flags, Mode::empty());
        let entries = readable.and_then(above_stdio_quietly).and_then(Dir::new);
        entries.map_err(|errno| failed_for("open", errno, Subject::Nothing, limit))
    }

    /// Opens a file for reading and writing, if it is a regular file of this user alone.
    pub(super) fn open_file(&self, name: &str, id: &ShMemId) -> Result<OwnedFd> {
        let found =
            FoundFile::at(&self.0, name.as_bytes()).map_err(|errno| refused("open", errno, id))?;
        check(&found.stat)?;
        let opened = found.open(&self.0, name.as_bytes(), Protection::ReadWrite);
        opened.map_err(|errno| refused("open", errno, id))
    }

    /// Removes the file if no process holds it, and the directory if it is empty then. Returns `true` if the
    /// file was removed.
    pub(super) fn remove_if_unused(&self, name: &str) -> bool {
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
    pub(super) fn remove(&self, name: &str) {
        // What fails here is left to the next process that creates a file.
        let _ = fs::unlinkat(&self.0, name, AtFlags::empty());
        // Fails while there are other files. A process that is about to create one creates the directory again.
        let _ = fs::rmdir(path());
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Returns an error unless this is a regular file of this user that others can neither write nor have linked.
pub(super) fn check(stat: &Stat) -> Result<()> {
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
pub(super) fn limit(errno: Errno) -> Option<Limit> {
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
