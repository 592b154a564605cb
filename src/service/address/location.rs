//! [`Location`]: the path of a socket, the checks of it, and the errors about it.

use alloc::boxed::Box;
use std::path::{self, Path, PathBuf};

use rustix::fs::{self, FileType, Stat};
use rustix::io::Errno;

use super::{Problem, lossy};
use crate::error::{AddressOrigin, Error, PathOwner, Result, ServiceError, Subject};
use crate::sys;
use crate::sys::path_lock::{File, LockError};
use crate::sys::trust::{self, Found};
use crate::sys::user::is_me;

/// The maximum length of the path of a socket, in bytes: some systems store it in 104 bytes, with a zero at
/// the end.
const MAX_LEN: usize = 103;

/// The path of a socket, and where the path comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// It is absolute, unless it could not be made so.
    pub(crate) path: PathBuf,
    pub(super) origin: AddressOrigin,
}

impl Location {
    pub(super) fn new(path: &Path, origin: AddressOrigin) -> Self {
        // A path that cannot be made absolute is kept, and `check_form` reports it.
        let absolute = path::absolute(path).unwrap_or_else(|_| path.into());
        Self {
            path: absolute,
            origin,
        }
    }

    /// Checks the path itself, without the file system.
    pub(super) fn check_form(&self) -> Result<(), Problem> {
        let len = self.path.as_os_str().len();
        if len == 0 {
            return Err(ServiceError::EmptyPath.into());
        }
        if !self.path.is_absolute() {
            return Err(ServiceError::NoWorkingDirectory.into());
        }
        if len > MAX_LEN {
            return Err(ServiceError::TooLong { len, max: MAX_LEN }.into());
        }
        if self.path.file_name().is_none() {
            return Err(ServiceError::NoFileName.into());
        }
        Ok(())
    }

    /// Checks that no other user can redirect the path.
    pub(super) fn checked(&self) -> Result<Self> {
        let check = || {
            self.check_form()?;
            let parent = self.path.parent().unwrap_or(&self.path);
            if let Found::Nothing = trust::check(parent)? {
                return Err(Problem::absent(parent));
            }
            let is_link = |stat: Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
            if fs::lstat(&self.path).is_ok_and(is_link) {
                return Err(ServiceError::SymbolicLink.into());
            }
            Ok(())
        };
        match check() {
            Ok(()) => Ok(self.clone()),
            Err(problem) => Err(self.error(problem)),
        }
    }

    /// Returns the error about the service at this path, or about the path itself.
    pub(crate) fn error(&self, problem: impl Into<Problem>) -> Error {
        let Problem { reason, errno } = problem.into();
        Error::Service {
            address: lossy(&self.path),
            origin: self.origin,
            reason,
            errno,
        }
    }

    /// Returns the error for a call on the socket that the system refused, with the likely reason.
    pub(crate) fn os_error(&self, call: &'static str, errno: Errno) -> Error {
        self.os_error_on(call, File::Socket, errno)
    }

    fn os_error_on(&self, call: &'static str, file: File, errno: Errno) -> Error {
        if is_shortage(errno) {
            // The path is not the reason.
            return sys::failed(call, errno, Subject::Nothing);
        }
        let mut path = self.path.clone();
        match file {
            File::Socket => {}
            File::Directory => drop(path.pop()),
            File::Lock => path.as_mut_os_string().push(".lock"),
        }
        let mut problem = Problem::os(call, &path, errno);
        if matches!(errno, Errno::ACCESS | Errno::PERM) {
            problem.reason = ServiceError::PermissionDenied {
                call,
                path: lossy(&path),
                owner: self.foreign_owner().map(Box::new),
            };
        } else if errno == Errno::PROTOTYPE {
            problem.reason = ServiceError::OtherProgram;
        }
        self.error(problem)
    }

    /// Returns the owner of the deepest component of the path that is visible, if it is another user.
    fn foreign_owner(&self) -> Option<PathOwner> {
        let mut visible = self.path.ancestors();
        let (path, uid) = visible.find_map(|path| Some((path, fs::lstat(path).ok()?.st_uid)))?;
        (!is_me(uid)).then(|| PathOwner {
            path: lossy(path),
            uid,
        })
    }

    /// Returns the error for a claim that was denied.
    pub(crate) fn denied(&self, denied: LockError) -> Error {
        let path = |file| {
            let mut path = lossy(&self.path);
            if file == File::Lock {
                path.push_str(".lock");
            }
            path
        };
        self.error(match denied {
            LockError::Occupied | LockError::Served => ServiceError::AlreadyServed,
            LockError::OtherUser(file, uid) => ServiceError::OtherUser {
                path: path(file),
                uid,
            },
            LockError::NotSocket => ServiceError::NotASocket,
            LockError::NotLock => ServiceError::NotALock,
            LockError::OtherProgram => ServiceError::OtherProgram,
            LockError::Moved => ServiceError::Replaced,
            LockError::Os(call, file, errno) => return self.os_error_on(call, file, errno),
        })
    }
}

/// Returns `true` if the system has run out of a resource other than disk space.
pub(crate) fn is_shortage(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS
    )
}
