//! [`Candidate`]: a directory in which the default address may be.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use std::path::{Path, PathBuf};

use rustix::fs::{self, FileType, Mode};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::{Location, Problem, lossy};
use crate::error::{AddressOrigin, RejectedDirectory, ServiceError};
use crate::sys::trust::{self, Found};
use crate::sys::user::is_me;

/// A directory that may contain the directory of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    path: PathBuf,
    origin: AddressOrigin,
    kind: Kind,
}

/// What a [`Candidate`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Contains one directory for each user, whose name is the user id: `/run/user`.
    Sessions,
    /// Accessible to this user only: the runtime directory of a session.
    Private,
    /// Shared by all users, with the sticky bit: a directory of temporary files.
    Shared,
    /// Owned by this user, and perhaps readable for others: the home directory.
    Home,
}

impl Candidate {
    pub(super) fn new(path: PathBuf, origin: AddressOrigin, kind: Kind) -> Self {
        Self { path, origin, kind }
    }

    pub(super) fn is_absolute(&self) -> bool {
        self.path.is_absolute()
    }

    /// Returns its path, for errors.
    pub(super) fn location(&self) -> Location {
        Location {
            path: self.path.clone(),
            origin: self.origin,
        }
    }

    /// Returns the path of the directory itself. The user id is queried each time, because it may change.
    fn path(&self) -> PathBuf {
        match self.kind {
            Kind::Sessions => self.path.join(geteuid().as_raw().to_string()),
            _ => self.path.clone(),
        }
    }

    /// Returns the path of the service's directory inside.
    fn directory(&self) -> PathBuf {
        self.path().join(match self.kind {
            Kind::Sessions | Kind::Private => "shmem_providers".to_owned(),
            Kind::Shared => format!("shmem_providers-{}", geteuid().as_raw()),
            Kind::Home => ".shmem_providers".to_owned(),
        })
    }

    /// Returns the path of the socket in this directory, if it is safe there. Creates the directory of the
    /// service if it does not exist.
    pub(super) fn locate(&self) -> Result<Location, Problem> {
        if !self.is_absolute() {
            return Err(ServiceError::RelativePath.into());
        }
        let directory = self.directory();
        let location = Location {
            path: directory.join("service"),
            origin: self.origin,
        };
        location.check_form()?;
        self.check_owner()?;
        create(&directory)?;
        check_is_private(&directory)?;
        Ok(location)
    }

    /// Checks that the directory belongs to this user: programs that are started by `sudo` may see the
    /// variables of another one.
    fn check_owner(&self) -> Result<(), Problem> {
        let path = self.path();
        match self.kind {
            Kind::Shared => return Ok(()),
            Kind::Sessions | Kind::Private => return check_is_private(&path),
            Kind::Home => {}
        }
        match trust::check(&path)? {
            Found::Directory { owner } if is_me(owner) => Ok(()),
            Found::Directory { owner } => Err(other_user(&path, owner)),
            Found::Nothing => Err(Problem::absent(&path)),
            Found::Unknown => Err(ServiceError::NotVisible { path: lossy(&path) }.into()),
        }
    }
}

/// Checks that no other user can redirect the path, and creates the directory if it does not exist.
pub(super) fn create(directory: &Path) -> Result<(), Problem> {
    if !matches!(trust::check(directory)?, Found::Directory { .. }) {
        match fs::mkdir(directory, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Problem::os("mkdir", directory, errno)),
        }
    }
    Ok(())
}

/// Checks that only this user can access the directory.
fn check_is_private(directory: &Path) -> Result<(), Problem> {
    check_is_closed(directory, Mode::RWXG | Mode::RWXO)
}

/// Checks that the directory belongs to this user, and that others have none of these permissions.
pub(super) fn check_is_closed(directory: &Path, others: Mode) -> Result<(), Problem> {
    let stat = fs::lstat(directory).map_err(|errno| Problem::os("lstat", directory, errno))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        let path = lossy(directory);
        return Err(ServiceError::NotADirectory { path }.into());
    }
    if !is_me(stat.st_uid) {
        return Err(other_user(directory, stat.st_uid));
    }
    if Mode::from_raw_mode(stat.st_mode).intersects(others) {
        let directory = lossy(directory);
        return Err(ServiceError::OpenToOthers { directory }.into());
    }
    Ok(())
}

fn other_user(path: &Path, uid: u32) -> Problem {
    let path = lossy(path);
    ServiceError::OtherUser { path, uid }.into()
}

/// Returns what is wrong if none of the directories can be used, and the first of them.
pub(super) fn no_directory(rejected: Vec<(&Candidate, Problem)>) -> (Location, Problem) {
    // A system without session directories is normal.
    let expected = rejected
        .into_iter()
        .filter(|(candidate, problem)| candidate.kind != Kind::Sessions || !problem.is_absent());
    let rejected: Vec<_> = expected
        .map(|(candidate, problem)| RejectedDirectory {
            path: lossy(&candidate.directory()),
            origin: candidate.origin,
            reason: problem.reason,
            errno: problem.errno,
        })
        .collect();
    let first = rejected.first();
    let location = Location {
        path: first.map_or_else(PathBuf::new, |first| (&first.path).into()),
        origin: first.map_or(AddressOrigin::Default, |first| first.origin),
    };
    let problem = Problem {
        errno: first.and_then(|first| first.errno),
        reason: ServiceError::NoDirectory { rejected },
    };
    (location, problem)
}
