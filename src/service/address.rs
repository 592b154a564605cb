//! Where clients and service of one user meet.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::fmt;
use std::env;
use std::path::{Path, PathBuf};

use rustix::fs::{self, FileType, Mode};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::host::ENV;
use crate::error::{Error, Result, Subject};
use crate::process::{Owner, Published};
use crate::sys;

/// Where to meet: as somebody chose, or where all programs of the user do.
#[derive(Debug, Default)]
pub(crate) struct Address {
    chosen: Option<PathBuf>,
    /// Once it was asked.
    environment: Published<Read>,
}

/// What the environment says about where to meet.
#[derive(Clone, PartialEq)]
struct Environment {
    chosen: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    runtime: Option<PathBuf>,
    temporary: PathBuf,
}

impl Address {
    pub(crate) fn chosen(path: &Path) -> Self {
        Self {
            chosen: Some(path.to_owned()),
            ..Self::default()
        }
    }

    /// Reads the environment, if it has a say and was not read before.
    pub(crate) fn look_up(&self) {
        if self.chosen.is_none() {
            self.environment();
        }
    }

    fn environment(&self) -> &'static Environment {
        loop {
            if let Some(known) = self.environment.get() {
                return &known.environment;
            }
            self.environment.replace(None, Read::of_this_process());
        }
    }

    /// The path of the socket. The user's own folder is made if need be, and checked each time.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        if let Some(path) = &self.chosen {
            return checked(path.clone());
        }
        let environment = self.environment();
        match &environment.chosen {
            Some(path) => checked(path.clone()),
            None => checked(own_folder(environment)?.join("service")),
        }
    }
}

/// What was read last.
static LAST: Published<Read> = Published::new();

/// What a process has read of the environment. It is never freed: the environment changes rarely, and
/// what has not changed is not stored again.
struct Read {
    owner: Owner,
    environment: Environment,
    /// So that it can be told from what is lost.
    _before: Option<&'static Self>,
}

impl fmt::Debug for Published<Read> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Published")
    }
}

impl Read {
    /// In a forked child, what its parent read last, if it did: a thread of the parent may have had the
    /// lock of the standard library for the environment, and then the child could never read it.
    fn of_this_process() -> &'static Self {
        if let Some(last) = LAST.get() {
            if !last.owner.is_current() {
                return last;
            }
        }
        let environment = Environment::read();
        let owner = Owner::current();
        loop {
            let before = LAST.get();
            match before {
                Some(last) if last.environment == environment => return last,
                _ => {}
            }
            let new: &'static Self = Box::leak(Box::new(Self {
                owner,
                environment: environment.clone(),
                _before: before,
            }));
            if LAST.replace(before, new) {
                return new;
            }
        }
    }
}

impl Environment {
    fn read() -> Self {
        let chosen = env::var_os(ENV).filter(|path| !path.is_empty());
        Self {
            chosen: chosen.map(Into::into),
            runtime: env::var_os("XDG_RUNTIME_DIR").map(Into::into),
            temporary: env::temp_dir(),
        }
    }
}

/// A path that fits into the address of a socket on every system (104 bytes on some, with the zero).
fn checked(path: PathBuf) -> Result<PathBuf> {
    if path.as_os_str().len() < 104 {
        return Ok(path);
    }
    Err(problem(
        &path,
        "is too long for the path of a socket: the most is 103 bytes",
    ))
}

/// A folder that only this user can enter: in `$XDG_RUNTIME_DIR`, or where that usually is, or else
/// where temporary files are.
fn own_folder(environment: &Environment) -> Result<PathBuf> {
    let user = geteuid().as_raw();
    let usual = PathBuf::from(format!("/run/user/{user}"));
    let private = environment.runtime.iter().chain([&usual]);
    for base in private {
        // Programs started by `sudo` and the like see that of somebody else.
        if base.is_absolute() && is_private(base).is_ok_and(|fault| fault.is_none()) {
            return made(base.join("shmem_providers"));
        }
    }
    let folder = format!("shmem_providers-{user}");
    made(environment.temporary.join(folder))
}

/// The folder, after it was made, or if it is safe to use.
fn made(folder: PathBuf) -> Result<PathBuf> {
    match fs::mkdir(&folder, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(sys::failed("mkdir", errno, Subject::Nothing)),
    }
    let fault =
        is_private(&folder).map_err(|errno| sys::failed("lstat", errno, Subject::Nothing))?;
    match fault {
        None => Ok(folder),
        Some(fault) => Err(problem(&folder, fault)),
    }
}

/// Why others could interfere with what is in there, if they could.
fn is_private(folder: &Path) -> Result<Option<&'static str>, Errno> {
    let facts = fs::lstat(folder)?;
    Ok(
        if FileType::from_raw_mode(facts.st_mode) != FileType::Directory {
            Some("should be a folder, and is something else, perhaps of another user")
        } else if facts.st_uid != geteuid().as_raw() {
            Some("belongs to another user; set SHMEM_SERVICE or XDG_RUNTIME_DIR")
        } else if Mode::from_raw_mode(facts.st_mode).intersects(Mode::RWXG | Mode::RWXO) {
            Some("is open to other users; remove it, or take away their rights")
        } else {
            None
        },
    )
}

/// The error about something at this path.
pub(crate) fn problem(path: &Path, problem: &'static str) -> Error {
    Error::Service {
        address: String::from(path.to_string_lossy()),
        problem,
    }
}
