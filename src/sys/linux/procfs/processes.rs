//! Which descriptors other processes have open, and why some processes do not let this one look
//! (`proc_pid(5)`).
//!
//! An object is opened through the descriptor of another process in these steps:
//!
//! 1. **Which process?** `/proc/PID` is opened without following links, and its owner is checked.
//!    Processes of other users are never examined, not even by root. The directory descriptor keeps
//!    referring to that process, even if its id is reused.
//! 2. **Which descriptor?** `fd/N` of the process, or every descriptor of every task that has a
//!    table of its own: the main thread may have ended before the others.
//! 3. **Which object?** It is opened with `O_PATH`, which calls no driver and no file system, and
//!    recognised: a segment by its link (kind of object and nonce) and by the device of memfds, which no
//!    other file system has, a doorbell by its link, inode, owner and mode. Both are read from the descriptor of this process, so they cannot change
//!    afterwards.
//! 4. Only then is it opened for reading, or also for writing, through the descriptor of this process.
//!
//! The caller checks the object itself: its seals, owner and size.

use core::mem::MaybeUninit;
use core::time::Duration;

use rustix::fd::OwnedFd;
use rustix::fs::{self, AtFlags, CWD, Mode, OFlags, RawDir, Stat, openat, readlinkat_raw};
use rustix::io::Errno;
use rustix::path::DecInt;
use rustix::process::getegid;

use super::object::{LINK, Wanted, open};
use super::tables::Tables;
use super::{hides_processes, is_initial_pid_namespace, number_of, text, text_of};
use crate::error::search::{Denial, Search};
use crate::sys::clock;
use crate::sys::linux::capabilities::Capabilities;
use crate::sys::user::User;
use crate::util::fixed_str::FixedStr;

/// How a directory is opened to list it.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// How a directory is opened to look up names in it.
const SEARCH_ONLY: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The size of the buffer for directory entries, in bytes.
const ENTRIES: usize = 4096;

/// The time limit of a search. A few hundred descriptors take a millisecond.
const SEARCH: Duration = Duration::from_secs(3);

/// The result of examining one process.
pub(crate) enum Look {
    /// It has the object, which is open now.
    Found(OwnedFd),
    /// It does not have the object.
    Nothing,
    /// The process does not exist.
    NoProcess,
    /// It belongs to another user, with this id.
    OtherUser(u32),
    /// It does not let this process look.
    Closed(Denial),
}

/// Examines one descriptor of a process.
///
/// Returns an error only if this process has run out of descriptors or memory.
pub(crate) fn look_at(pid: u32, number: u32, wanted: &Wanted<'_>) -> Result<Look, Errno> {
    let process = match Process::open(pid, wanted.user)? {
        Ok(process) => process,
        Err(look) => return Ok(look),
    };
    let name = FixedStr::<16>::joined(&[b"fd/", DecInt::new(number).as_bytes()]);
    process.look(&process.directory, name.as_bytes(), wanted)
}

/// Examines all descriptors of a process.
///
/// Returns an error only if this process has run out of descriptors or memory.
pub(crate) fn look_through(
    pid: u32,
    wanted: &Wanted<'_>,
    clock: &mut Clock,
) -> Result<Look, Errno> {
    match Process::open(pid, wanted.user)? {
        Ok(process) => process.look_through(wanted, clock),
        Err(look) => Ok(look),
    }
}

/// Examines all descriptors of all processes of the user. If none has the object, returns what was
/// examined and what could not be seen.
///
/// Returns an error only if this process has run out of descriptors or memory.
pub(crate) fn search(
    wanted: &Wanted<'_>,
    clock: &mut Clock,
) -> Result<Result<OwnedFd, Search>, Errno> {
    let mut search = Search::default();
    search.other_namespaces = !is_initial_pid_namespace();
    search.hidden_processes = hides_processes();
    // Twice, because during the search the last holder may have passed the segment on to a process
    // that had already been examined.
    for _ in 0..2 {
        (search.processes, search.closed) = (0, 0);
        let processes = openat(CWD, "/proc", DIRECTORY, Mode::empty())?;
        let mut buffer = [MaybeUninit::uninit(); ENTRIES];
        let mut entries = RawDir::new(&processes, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let Some(pid) = number_of(entry.file_name().to_bytes()) else {
                continue;
            };
            let Ok(process) = Process::open(pid, wanted.user)? else {
                continue;
            };
            match process.look_through(wanted, clock)? {
                Look::Found(fd) => return Ok(Ok(fd)),
                Look::Closed(denial) => {
                    search.note_closed(pid, denial);
                }
                Look::Nothing => search.processes += 1,
                Look::NoProcess | Look::OtherUser(_) => {}
            }
            if clock.is_over() {
                search.stopped = true;
                return Ok(Err(search));
            }
        }
    }
    Ok(Err(search))
}

/// A process of this user.
struct Process {
    pid: u32,
    /// Its directory in `/proc`.
    directory: OwnedFd,
    group: u32,
}

impl Process {
    /// Opens the process, if it exists and belongs to the user.
    fn open(pid: u32, user: User) -> Result<Result<Self, Look>, Errno> {
        let path = FixedStr::<16>::joined(&[b"/proc/", DecInt::new(pid).as_bytes()]);
        let opened = openat(CWD, path.as_bytes(), SEARCH_ONLY, Mode::empty())
            .and_then(|directory| Ok((fs::fstat(&directory)?, directory)));
        Ok(match opened {
            // The directory belongs to the effective user and group of the process. Its files
            // belong to root if the process is not dumpable.
            Ok((stat, _)) if !user.is(stat.st_uid) => Err(Look::OtherUser(stat.st_uid)),
            Ok((stat, directory)) => Ok(Self {
                pid,
                directory,
                group: stat.st_gid,
            }),
            Err(errno) => {
                out_of_resources(errno)?;
                Err(Look::NoProcess)
            }
        })
    }

    fn look_through(&self, wanted: &Wanted<'_>, clock: &mut Clock) -> Result<Look, Errno> {
        let look = self.look_into(b"fd", wanted, clock)?;
        // The main thread, if it has ended, can be examined by root only; the other threads can
        // still be.
        if !matches!(look, Look::Nothing | Look::Closed(_)) {
            return Ok(look);
        }
        // The directory has two links, and one for each task (`proc_task_getattr` of the kernel).
        let tasks = fs::statat(&self.directory, "task", AtFlags::SYMLINK_NOFOLLOW);
        if tasks.is_ok_and(|stat| links(&stat) > 3) {
            self.look_into_tasks(wanted, clock)
        } else {
            Ok(look)
        }
    }

    /// Examines the descriptors of the tasks that have a table of their own.
    fn look_into_tasks(&self, wanted: &Wanted<'_>, clock: &mut Clock) -> Result<Look, Errno> {
        let tasks = match openat(&self.directory, "task", DIRECTORY, Mode::empty()) {
            Ok(tasks) => tasks,
            Err(errno) => {
                out_of_resources(errno)?;
                return Ok(Look::Nothing);
            }
        };
        let mut tables = Tables::starting_with(self.pid);
        let mut buffer = [MaybeUninit::uninit(); ENTRIES];
        let mut entries = RawDir::new(&tasks, &mut buffer);
        while let Some(entry) = entries.next() {
            // An error means that the process has ended.
            let Ok(entry) = entry else { break };
            let Some(task) = number_of(entry.file_name().to_bytes()) else {
                continue;
            };
            if !tables.is_new(task) {
                continue;
            }
            let path = FixedStr::<32>::joined(&[b"task/", DecInt::new(task).as_bytes(), b"/fd"]);
            match self.look_into(path.as_bytes(), wanted, clock)? {
                Look::Nothing => {}
                look => return Ok(look),
            }
            if clock.is_over() {
                break;
            }
        }
        Ok(Look::Nothing)
    }

    /// Examines the descriptors in this directory of the process.
    fn look_into(
        &self,
        path: &[u8],
        wanted: &Wanted<'_>,
        clock: &mut Clock,
    ) -> Result<Look, Errno> {
        let descriptors = match openat(&self.directory, path, DIRECTORY, Mode::empty()) {
            Ok(descriptors) => descriptors,
            Err(Errno::ACCESS | Errno::PERM) => return Ok(Look::Closed(self.denial())),
            // The process has ended.
            Err(errno) => {
                out_of_resources(errno)?;
                return Ok(Look::Nothing);
            }
        };
        let mut buffer = [MaybeUninit::uninit(); ENTRIES];
        let mut entries = RawDir::new(&descriptors, &mut buffer);
        while let Some(entry) = entries.next() {
            // An error means that the process has ended.
            let Ok(entry) = entry else { break };
            let name = entry.file_name();
            let mut found = [0; LINK];
            match readlinkat_raw(&descriptors, name, &mut found) {
                Ok(len) if found.get(..len) == Some(wanted.link) => {}
                // Permission to list the directory does not include permission to follow its links.
                Err(Errno::ACCESS | Errno::PERM) => return Ok(Look::Closed(self.denial())),
                _ => {
                    if clock.is_over() {
                        break;
                    }
                    continue;
                }
            }
            match self.look(&descriptors, name.to_bytes(), wanted)? {
                Look::Nothing => {}
                look => return Ok(look),
            }
        }
        Ok(Look::Nothing)
    }

    /// Examines one descriptor of the process.
    fn look(&self, at: &OwnedFd, name: &[u8], wanted: &Wanted<'_>) -> Result<Look, Errno> {
        match open(at, name, wanted) {
            Ok(Some(fd)) => Ok(Look::Found(fd)),
            Ok(None) => Ok(Look::Nothing),
            Err(Errno::ACCESS | Errno::PERM) => Ok(Look::Closed(self.denial())),
            Err(Errno::AGAIN) => Ok(Look::Closed(Denial::Lease)),
            // The process has ended or closed the descriptor.
            Err(errno) => {
                out_of_resources(errno)?;
                Ok(Look::Nothing)
            }
        }
    }

    /// Returns the reason why the process does not let this one look, by the rules of `ptrace(2)`.
    fn denial(&self) -> Denial {
        let mut buffer = [0; 4096];
        let status = self.text(b"status", &mut buffer).unwrap_or_default();
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        };
        let own_group = getegid().as_raw();
        let mixed = |name| {
            let mut ids = field(name).unwrap_or_default().split_ascii_whitespace();
            let real = ids.next();
            // Real, effective, saved, file system. The last one does not matter.
            ids.take(2).any(|id| Some(id) != real)
        };
        if self.group != own_group || mixed("Uid") || mixed("Gid") {
            return Denial::Ids {
                group: self.group,
                own_group,
            };
        }
        let permitted = field("CapPrm")
            .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
            .unwrap_or(0);
        // If that is not known, capabilities are not reported as the reason.
        let own = Capabilities::current().map_or(u64::MAX, |sets| sets.effective);
        let is_dumpable = || {
            let stat = fs::statat(&self.directory, "fd", AtFlags::SYMLINK_NOFOLLOW);
            // The files of a process that is not dumpable belong to root.
            stat.is_ok_and(|stat| User::current().is(stat.st_uid))
        };
        if !is_dumpable() {
            return Denial::Undumpable;
        }
        if permitted & !own != 0 {
            return Denial::Capabilities {
                more: permitted & !own,
            };
        }
        let (mut other, mut own) = ([0; 1024], [0; 1024]);
        let other = self.text(b"uid_map", &mut other);
        if other.is_some() && other != text("/proc/self/uid_map", &mut own) {
            return Denial::UserNamespace;
        }
        Denial::Unknown
    }

    /// Reads the beginning of a file of the process.
    fn text<'a>(&self, path: &[u8], buffer: &'a mut [u8]) -> Option<&'a str> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        text_of(
            openat(&self.directory, path, flags, Mode::empty()).ok()?,
            buffer,
        )
    }
}

/// The time limit of a search.
pub(crate) struct Clock {
    end: Duration,
    /// How often it was checked.
    checks: u32,
    is_over: bool,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            end: now().saturating_add(SEARCH),
            checks: 0,
            is_over: false,
        }
    }

    fn is_over(&mut self) -> bool {
        // Reading the clock each time would be slow.
        self.checks = self.checks.wrapping_add(1);
        if self.checks % 64 == 0 {
            self.is_over = now() > self.end;
        }
        self.is_over
    }
}

/// Returns the seconds of the monotonic clock.
fn now() -> Duration {
    Duration::from_secs(clock::now().as_secs())
}

#[allow(
    clippy::useless_conversion,
    clippy::unnecessary_fallible_conversions,
    reason = "the type differs from machine to machine"
)]
fn links(stat: &Stat) -> u64 {
    u64::try_from(stat.st_nlink).unwrap_or(0)
}

/// Returns the error if this process has run out of resources. Other errors concern the process
/// that is examined.
fn out_of_resources(errno: Errno) -> Result<(), Errno> {
    match errno {
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => Err(errno),
        _ => Ok(()),
    }
}
