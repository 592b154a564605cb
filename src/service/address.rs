//! Where clients and service of one user meet.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use std::env;
use std::ffi::OsString;
use std::path::{self, Path, PathBuf};

use rustix::fs::{self, FileType, Mode};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::host::ENV;
use crate::error::{Error, Result, Subject};
use crate::process::{Owner, Published};
use crate::sys;
use crate::sys::path_lock::{Denied, File};
use crate::sys::trust::{self, Found, Reason, Untrusted};
use crate::sys::user::{check_user, is_me};

/// The most bytes of the path of a socket: it is stored in 104 on some systems, with a zero at the end.
const MOST_BYTES: usize = 103;

/// Where to meet: as somebody chose, or where all programs of the user do.
#[derive(Debug, Default)]
pub(crate) struct Address {
    chosen: Option<Lookup>,
    /// Once it was asked.
    environment: Published<Read>,
}

/// How the address is found. It is evaluated each time, because directories come and go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// At this path only.
    Chosen(Location),
    /// In the first of these directories that can be used.
    Usual(Vec<Base>),
}

/// The path of a socket, and why it is this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// It is absolute, unless that could not be done.
    pub(crate) path: PathBuf,
    origin: Origin,
}

/// A directory that may contain the directory of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    path: PathBuf,
    origin: Origin,
    kind: Kind,
}

/// What a [`Base`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Contains one for each user, with the user id as its name: `/run/user`.
    Sessions,
    /// Accessible to this user only: the runtime directory of a session.
    Private,
    /// Shared by all users, with the sticky bit: a directory of temporary files.
    Shared,
    /// Owned by this user, and perhaps readable for others: the home directory.
    Home,
}

/// Where a path comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Argument,
    Variable(&'static str),
    /// The default of this system.
    Usual,
}

impl Address {
    /// A relative path is made absolute now, because the working directory may change.
    pub(crate) fn chosen(path: &Path) -> Self {
        Self {
            chosen: Some(Lookup::Chosen(Location::new(path, Origin::Argument))),
            ..Self::default()
        }
    }

    /// Reads the environment, if it has a say and was not read before.
    pub(crate) fn look_up(&self) {
        self.lookup();
    }

    /// How the address is found.
    pub(crate) fn lookup(&self) -> Lookup {
        if let Some(chosen) = &self.chosen {
            return chosen.clone();
        }
        loop {
            if let Some(known) = self.environment.get() {
                return known.lookup.clone();
            }
            self.environment.replace(None, Read::of_this_process());
        }
    }

    /// The path of the socket. The user's own directory is created if it does not exist, and checked each
    /// time.
    pub(crate) fn locate(&self) -> Result<Location> {
        self.lookup().locate()
    }
}

/// What was read last.
static LAST: Published<Read> = Published::new();

/// What a process has read of the environment. It is never freed: the environment changes rarely, and
/// what has not changed is not stored again.
struct Read {
    owner: Owner,
    lookup: Lookup,
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
        let lookup = Lookup::read();
        let owner = Owner::current();
        loop {
            let before = LAST.get();
            match before {
                Some(last) if last.lookup == lookup => return last,
                _ => {}
            }
            let new: &'static Self = Box::leak(Box::new(Self {
                owner,
                lookup: lookup.clone(),
                _before: before,
            }));
            if LAST.replace(before, new) {
                return new;
            }
        }
    }
}

impl Lookup {
    /// Reads the environment, unless this program has more privileges than the user who set it.
    fn read() -> Self {
        let is_ignored = trust::has_more_rights();
        let read =
            |name| env::var_os(name).filter(|value: &OsString| !is_ignored && !value.is_empty());
        if let Some(chosen) = read(ENV) {
            return Self::Chosen(Location::new(Path::new(&chosen), Origin::Variable(ENV)));
        }
        let base = |path: PathBuf, origin, kind| Base { path, origin, kind };
        let of_variable =
            |name, kind| read(name).map(|path| base(path.into(), Origin::Variable(name), kind));
        let mut bases = Vec::new();
        bases.extend(of_variable("XDG_RUNTIME_DIR", Kind::Private));
        bases.push(base("/run/user".into(), Origin::Usual, Kind::Sessions));
        let temporary = of_variable("TMPDIR", Kind::Shared);
        if !temporary
            .as_ref()
            .is_some_and(|base| base.path.is_absolute())
        {
            // A relative path would differ from program to program.
            let usual = if is_ignored || temporary.is_some() {
                "/tmp".into()
            } else {
                env::temp_dir()
            };
            bases.push(base(usual, Origin::Usual, Kind::Shared));
        }
        bases.extend(temporary);
        bases.extend(of_variable("HOME", Kind::Home));
        Self::Usual(bases)
    }

    /// The path that is tried first, for errors: whether it can be used is not looked at.
    pub(crate) fn first(&self) -> Location {
        match self {
            Self::Chosen(location) => location.clone(),
            Self::Usual(bases) => bases.first().map_or_else(
                || Location::new(Path::new(""), Origin::Usual),
                |base| Location {
                    path: base.path.clone(),
                    origin: base.origin,
                },
            ),
        }
    }

    /// The path of the socket: the chosen one, or in the first directory that can be used. All programs of
    /// the user see the same directories, so they agree.
    pub(crate) fn locate(&self) -> Result<Location> {
        check_user()?;
        let bases = match self {
            Self::Chosen(location) => return location.checked(),
            Self::Usual(bases) => bases,
        };
        let mut problems = Vec::new();
        for base in bases {
            match base.locate() {
                Ok(location) => return Ok(location),
                Err(problem) => problems.push((base, problem)),
            }
        }
        Err(no_place(&problems))
    }

    /// The same for a running service, which creates the directory of a chosen path again if it was removed.
    ///
    /// Also returns whether it did so.
    pub(crate) fn restore(&self) -> Result<(Location, bool)> {
        let mut is_made = false;
        if let Self::Chosen(location) = self {
            let parent = location.path.parent().unwrap_or(&location.path);
            if let Ok(Found::Nothing) = trust::check(parent) {
                is_made = fs::mkdir(parent, Mode::RWXU).is_ok();
            }
        }
        Ok((self.locate()?, is_made))
    }
}

/// The error if none of the directories can be used.
fn no_place(problems: &[(&Base, Problem)]) -> Error {
    // A missing session directory is normal, and not an error of the user.
    let told = problems
        .iter()
        .filter(|(base, problem)| base.kind != Kind::Sessions || !problem.is_absent());
    let mut texts = String::new();
    let mut address = String::new();
    let mut errno = None;
    for (base, problem) in told {
        let (path, origin) = (base.directory(), base.origin);
        if address.is_empty() {
            address = path.to_string_lossy().into_owned();
            errno = problem.errno;
            texts = format!("{}{origin}", problem.text);
        } else {
            let path = quoted(&path);
            texts = format!("{texts}; and {path}: {}{origin}", problem.text);
        }
    }
    if address.is_empty() {
        texts = "there is no directory for it".into();
    }
    Error::Service {
        address,
        problem: Cow::Owned(format!("{texts}; {CURE}")),
        errno,
    }
}

impl Origin {
    /// How to fix an address that cannot be used.
    fn cure(self) -> &'static str {
        match self {
            Self::Argument => {
                "choose the path of a socket in a directory that only this user can change, or \
                 give none to use that in SHMEM_SERVICE"
            }
            Self::Variable(_) | Self::Usual => CURE,
        }
    }
}

const CURE: &str = "set SHMEM_SERVICE, for all programs that share segments, to the path of a socket \
                    in a directory that only this user can change";

/// Why a path cannot be used.
#[derive(Debug)]
struct Problem {
    text: String,
    errno: Option<i32>,
}

impl Problem {
    fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            errno: None,
        }
    }

    fn refused(call: impl fmt::Display, errno: Errno) -> Self {
        let reason = std::io::Error::from(errno);
        Self {
            text: format!("{call}: {reason}"),
            errno: Some(errno.raw_os_error()),
        }
    }

    fn absent(path: &Path) -> Self {
        Self::refused(format_args!("lstat {}", quoted(path)), Errno::NOENT)
    }

    fn is_absent(&self) -> bool {
        self.errno == Some(Errno::NOENT.raw_os_error())
    }
}

impl From<Untrusted> for Problem {
    fn from(untrusted: Untrusted) -> Self {
        let Untrusted { path, reason } = untrusted;
        let path = quoted(&path);
        match reason {
            Reason::Owner(owner) => Self::new(format!(
                "{path} belongs to another user (uid {owner}), who could replace what is in it"
            )),
            Reason::Writable => Self::new(format!(
                "other users may rename what is in {path}: it is writable for them and has no \
                 sticky bit"
            )),
            Reason::NotADirectory => Self::new(format!(
                "{path} should be a directory and is something else"
            )),
            Reason::Os(call, errno) => Self::refused(format_args!("{call} {path}"), errno),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument => f.write_str(" (the path was given by the program)"),
            Self::Variable(name) => write!(f, " (the path is from {name})"),
            Self::Usual => f.write_str(" (the path is the usual one)"),
        }
    }
}

impl Base {
    /// The path of this one. The user id is asked for each time, because it may change.
    fn path(&self) -> PathBuf {
        match self.kind {
            Kind::Sessions => self.path.join(geteuid().as_raw().to_string()),
            _ => self.path.clone(),
        }
    }

    /// The directory of the service inside this one.
    fn directory(&self) -> PathBuf {
        self.path().join(match self.kind {
            Kind::Sessions | Kind::Private => "shmem_providers".into(),
            Kind::Shared => format!("shmem_providers-{}", geteuid().as_raw()),
            Kind::Home => ".shmem_providers".to_string(),
        })
    }

    /// The path of the socket in this directory, if it is safe. Creates the directory of the service if it
    /// does not exist.
    fn locate(&self) -> Result<Location, Problem> {
        if !self.path.is_absolute() {
            return Err(Problem::new("not an absolute path"));
        }
        let directory = self.directory();
        let location = Location {
            path: directory.join("service"),
            origin: self.origin,
        };
        location.check_form()?;
        self.check_is_ours()?;
        if !matches!(trust::check(&directory)?, Found::Directory { .. }) {
            match fs::mkdir(&directory, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => {
                    return Err(Problem::refused(
                        format_args!("mkdir {}", quoted(&directory)),
                        errno,
                    ));
                }
            }
        }
        check_is_private(&directory)?;
        Ok(location)
    }

    /// Programs started by `sudo` may see the variables of another user.
    fn check_is_ours(&self) -> Result<(), Problem> {
        let path = self.path();
        match self.kind {
            Kind::Shared => return Ok(()),
            Kind::Sessions | Kind::Private => return check_is_private(&path),
            Kind::Home => {}
        }
        let name = quoted(&path);
        match trust::check(&path)? {
            Found::Directory { owner } if is_me(owner) => Ok(()),
            Found::Directory { owner } => Err(Problem::new(format!(
                "{name} belongs to another user (uid {owner})"
            ))),
            Found::Nothing => Err(Problem::absent(&path)),
            Found::Unknown => Err(Problem::new(format!("{name} cannot be looked at"))),
        }
    }
}

/// Checks that only this user can access the directory.
fn check_is_private(directory: &Path) -> Result<(), Problem> {
    let facts = fs::lstat(directory)
        .map_err(|errno| Problem::refused(format_args!("lstat {}", quoted(directory)), errno))?;
    let name = quoted(directory);
    if FileType::from_raw_mode(facts.st_mode) != FileType::Directory {
        Err(Problem::new(format!(
            "{name} should be a directory and is something else, perhaps of another user"
        )))
    } else if !is_me(facts.st_uid) {
        Err(Problem::new(format!(
            "{name} belongs to another user (uid {})",
            facts.st_uid
        )))
    } else if Mode::from_raw_mode(facts.st_mode).intersects(Mode::RWXG | Mode::RWXO) {
        Err(Problem::new(format!(
            "{name} is open to other users: remove it or chmod 700"
        )))
    } else {
        Ok(())
    }
}

impl Location {
    fn new(path: &Path, origin: Origin) -> Self {
        // A path that cannot be made absolute is kept, and `check_form` reports it.
        let absolute = path::absolute(path).unwrap_or_else(|_| path.into());
        Self {
            path: absolute,
            origin,
        }
    }

    /// Checks the path itself, without looking at the file system.
    fn check_form(&self) -> Result<(), Problem> {
        let len = self.path.as_os_str().len();
        if len == 0 {
            return Err(Problem::new("the path is empty"));
        }
        if !self.path.is_absolute() {
            return Err(Problem::new(
                "not an absolute path, and there is no working directory",
            ));
        }
        if len > MOST_BYTES {
            return Err(Problem::new(format!(
                "{len} bytes are too long for the path of a socket: the most is {MOST_BYTES}"
            )));
        }
        if self.path.file_name().is_none() {
            return Err(Problem::new("not the path of a socket: it names none"));
        }
        Ok(())
    }

    /// Checks that no other user can redirect the path.
    fn checked(&self) -> Result<Self> {
        let check = || {
            self.check_form()?;
            let parent = self.path.parent().unwrap_or(&self.path);
            if let Found::Nothing = trust::check(parent)? {
                return Err(Problem::absent(parent));
            }
            let facts = fs::lstat(&self.path);
            let is_link =
                |facts: fs::Stat| FileType::from_raw_mode(facts.st_mode) == FileType::Symlink;
            if facts.is_ok_and(is_link) {
                return Err(Problem::new(
                    "a symbolic link: the path of the socket itself is needed",
                ));
            }
            Ok(())
        };
        match check() {
            Ok(()) => Ok(self.clone()),
            Err(problem) => Err(self.unusable(problem)),
        }
    }

    /// The error for an address that cannot be used.
    fn unusable(&self, problem: Problem) -> Error {
        let Problem { text, errno } = problem;
        Error::Service {
            address: String::from(self.path.to_string_lossy()),
            problem: Cow::Owned(format!("{text}{}; {}", self.origin, self.origin.cure())),
            errno,
        }
    }

    /// The error for a service that does not work as it should.
    pub(crate) fn problem(&self, what: impl fmt::Display) -> Error {
        Error::Service {
            address: String::from(self.path.to_string_lossy()),
            problem: Cow::Owned(format!("{what}{}", self.origin)),
            errno: None,
        }
    }

    /// The error for a call on the socket that the system refused, with the likely reason.
    pub(crate) fn refused(&self, call: &'static str, errno: Errno) -> Error {
        self.refused_on(call, File::Socket, errno)
    }

    fn refused_on(&self, call: &'static str, file: File, errno: Errno) -> Error {
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
        let mut problem = Problem::refused(format_args!("{call} {}", quoted(&path)), errno);
        if matches!(errno, Errno::ACCESS | Errno::PERM) {
            problem.text += &self.who_forbids();
        } else if errno == Errno::PROTOTYPE {
            problem.text += ": another program listens there, and is not a service of this crate";
        }
        self.unusable(problem)
    }

    /// The likely reason for denied access.
    fn who_forbids(&self) -> String {
        // The deepest one that is visible.
        let mut seen = self.path.ancestors();
        let seen = seen.find_map(|path| Some((path, fs::lstat(path).ok()?.st_uid)));
        if let Some((path, owner)) = seen.filter(|&(_, owner)| !is_me(owner)) {
            let path = quoted(path);
            return format!("; {path} belongs to another user (uid {owner})");
        }
        "; it belongs to this user: its permissions or a security module (AppArmor, SELinux, \
         Landlock, a sandbox) may forbid it"
            .into()
    }

    /// The error for a claim that was denied.
    pub(crate) fn denied(&self, denied: Denied) -> Error {
        let problem = match denied {
            Denied::Occupied | Denied::Served => {
                return self.problem("another service is there already");
            }
            Denied::OtherUser(File::Lock, owner) => {
                format!("the lock file beside it belongs to another user (uid {owner})")
            }
            Denied::OtherUser(_, owner) => {
                format!("the file belongs to another user (uid {owner})")
            }
            Denied::NotSocket => "the file exists and is not a socket; not touching it".into(),
            Denied::NotLock => {
                "the file with `.lock` behind its name exists and is not a lock; not touching it"
                    .into()
            }
            Denied::OtherProgram => {
                "another program listens there, and is not a service of this crate".into()
            }
            Denied::Moved => "the directory was replaced at this moment".into(),
            Denied::Os(call, file, errno) => return self.refused_on(call, file, errno),
        };
        self.unusable(Problem::new(problem))
    }

    /// The error if a process of another user serves there.
    pub(crate) fn other_user(&self, owner: u32) -> Error {
        self.unusable(Problem::new(format!(
            "the service there is run by another user (uid {owner})"
        )))
    }
}

/// The path in quotes, with special characters escaped.
fn quoted(path: &Path) -> String {
    format!("{:?}", path.to_string_lossy())
}

/// Returns `true` if the system has run out of a resource other than disk space.
fn is_shortage(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS
    )
}
