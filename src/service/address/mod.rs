//! Where the clients and the service of one user meet, and where the names of segments are registered.
//!
//! `environment` reads the variables, `candidates` finds a default directory, `location` checks the path of
//! a socket and creates the errors about it. `names` finds the directory of names.

mod candidates;
mod environment;
mod location;
#[allow(dead_code, reason = "not every system has names")]
mod names;

use alloc::string::String;
use alloc::vec::Vec;
use std::path::Path;

use rustix::fs::{self, Mode};
use rustix::io::Errno;

use self::candidates::{Candidate, no_directory};
use self::environment::Environment;
pub(crate) use self::location::Location;
#[allow(unused_imports, reason = "not every system has names")]
pub(crate) use self::location::is_shortage;
#[allow(unused_imports, reason = "not every system has names")]
pub(crate) use self::names::directory_of_names;
use crate::error::{AddressOrigin, Result, ServiceError};
use crate::process::Published;
use crate::sys::trust::{self, Found, Reason, Untrusted};
use crate::sys::user::check_user;

/// The address of a service: one that was chosen, or the default of this user.
#[derive(Debug, Default)]
pub(crate) struct Address {
    chosen: Option<Lookup>,
    /// The environment, after it was read.
    environment: Published<Environment>,
}

/// How to find an address. It is evaluated each time, because directories come and go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// At this path only.
    Chosen(Location),
    /// In the first of these directories that can be used.
    Default(Vec<Candidate>),
}

impl Address {
    /// Chooses the path of a socket. A relative path is made absolute now, because the working directory may
    /// change.
    pub(crate) fn chosen(path: &Path) -> Self {
        Self {
            chosen: Some(Lookup::Chosen(Location::new(path, AddressOrigin::Program))),
            ..Self::default()
        }
    }

    /// Reads the environment, unless it was read before or the address was chosen.
    pub(crate) fn read_environment(&self) {
        self.lookup();
    }

    /// Returns how to find the address.
    pub(crate) fn lookup(&self) -> Lookup {
        if let Some(chosen) = &self.chosen {
            return chosen.clone();
        }
        loop {
            if let Some(environment) = self.environment.get() {
                return environment.lookup().clone();
            }
            self.environment
                .replace(None, Environment::of_this_process());
        }
    }

    /// Returns the path of the socket. Creates the default directory if it does not exist, and checks it
    /// each time.
    pub(crate) fn locate(&self) -> Result<Location> {
        self.lookup().locate()
    }
}

impl Lookup {
    /// Returns the path that is tried first, for errors. It is not checked.
    pub(crate) fn first(&self) -> Location {
        match self {
            Self::Chosen(location) => location.clone(),
            Self::Default(candidates) => candidates.first().map_or_else(
                || Location::new(Path::new(""), AddressOrigin::Default),
                Candidate::location,
            ),
        }
    }

    /// Returns the path of the socket: the chosen one, or one in the first directory that can be used. All
    /// programs of the user see the same directories, so they agree.
    pub(crate) fn locate(&self) -> Result<Location> {
        check_user()?;
        let candidates = match self {
            Self::Chosen(location) => return location.checked(),
            Self::Default(candidates) => candidates,
        };
        let mut rejected = Vec::new();
        for candidate in candidates {
            match candidate.locate() {
                Ok(location) => return Ok(location),
                Err(problem) => rejected.push((candidate, problem)),
            }
        }
        let (first, problem) = no_directory(rejected);
        Err(first.error(problem))
    }

    /// The same for a running service, which creates the directory of a chosen path again if it was removed.
    ///
    /// Also returns `true` if it did so.
    pub(crate) fn restore(&self) -> Result<(Location, bool)> {
        let mut is_created = false;
        if let Self::Chosen(location) = self {
            let parent = location.path.parent().unwrap_or(&location.path);
            if let Ok(Found::Nothing) = trust::check(parent) {
                is_created = fs::mkdir(parent, Mode::RWXU).is_ok();
            }
        }
        Ok((self.locate()?, is_created))
    }
}

/// Why a path cannot be used.
#[derive(Debug)]
pub(crate) struct Problem {
    reason: ServiceError,
    errno: Option<i32>,
}

impl Problem {
    /// The system refused a call on the path.
    fn os(call: &'static str, path: &Path, errno: Errno) -> Self {
        Self {
            reason: ServiceError::Os {
                call,
                path: lossy(path),
            },
            errno: Some(errno.raw_os_error()),
        }
    }

    /// There is no such directory.
    fn absent(path: &Path) -> Self {
        Self::os("lstat", path, Errno::NOENT)
    }

    fn is_absent(&self) -> bool {
        self.errno == Some(Errno::NOENT.raw_os_error())
    }
}

impl From<ServiceError> for Problem {
    fn from(reason: ServiceError) -> Self {
        Self {
            reason,
            errno: None,
        }
    }
}

impl From<Untrusted> for Problem {
    fn from(untrusted: Untrusted) -> Self {
        let Untrusted { path, reason } = untrusted;
        let lossy_path = lossy(&path);
        match reason {
            Reason::Owner(uid) => ServiceError::OtherUser {
                path: lossy_path,
                uid,
            }
            .into(),
            Reason::Writable => ServiceError::OthersMayRename {
                directory: lossy_path,
            }
            .into(),
            Reason::NotADirectory => ServiceError::NotADirectory { path: lossy_path }.into(),
            Reason::Os(call, errno) => Self::os(call, &path, errno),
        }
    }
}

/// Returns the path as text. Bytes that are not UTF-8 are replaced.
fn lossy(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
