//! `/proc`: which descriptors other processes have open, and why some processes do not let this one
//! look (`proc_pid(5)`).
//!
//! A segment is opened through the descriptor of another process in these steps:
//!
//! 1. **Which process?** `/proc/PID` is opened without following links, and its owner is checked.
//!    Processes of other users are never examined, not even by root. The directory descriptor keeps
//!    referring to that process, even if its id is reused.
//! 2. **Which descriptor?** `fd/N` of the process, or every descriptor of every task that has a
//!    table of its own: the main thread may have ended before the others.
//! 3. **Which object?** It is opened with `O_PATH`, which calls no driver and no file system, and
//!    recognised by its link (kind of object and nonce) and by the device of memfds, which no other
//!    file system has. Both are read from the descriptor of this process, so they cannot change
//!    afterwards.
//! 4. Only then is it opened for reading and writing, through the descriptor of this process.
//!
//! The caller checks the object itself: its seals, owner and size.
#![allow(unsafe_code)]

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use core::time::Duration;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    self, AtFlags, CWD, MemfdFlags, Mode, OFlags, RawDir, Stat, StatxFlags, openat, readlinkat_raw,
};
use rustix::io::{Errno, read};
use rustix::path::DecInt;
use rustix::process::{getegid, getpid};

use super::capabilities::Capabilities;
use super::clock;
use crate::error::search::{Denial, Search};
use crate::sys::above_stdio_quietly;
use crate::sys::user::User;
use crate::util::fixed_str::FixedStr;

/// How a segment is opened once it has been recognised. With `O_NONBLOCK`, a lease on it
/// (`fcntl(2)`) does not block the call.
const READ_WRITE: OFlags = OFlags::RDWR
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

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

/// The size of the buffer for a link. A longer link is truncated, and equals none that is looked
/// for.
const LINK: usize = 64;

/// The time limit of a search. A few hundred descriptors take a millisecond.
const SEARCH: Duration = Duration::from_secs(3);

/// The link of the initial pid namespace, with its inode (`PROC_PID_INIT_INO`, which never
/// changes).
const INITIAL_PID_NAMESPACE: &[u8] = b"pid:[4026531836]";

/// Returns the id of this process in `/proc`, or `None` if `/proc` is not mounted or does not show
/// it.
///
/// If `/proc` belongs to an outer pid namespace, this is not what `getpid` returns, but the id that
/// other processes find in the same `/proc`.
pub(crate) fn own_pid() -> Option<u32> {
    let mut link = [0; 16];
    let len = readlinkat_raw(CWD, "/proc/self", &mut link).ok()?;
    core::str::from_utf8(link.get(..len)?).ok()?.parse().ok()
}

/// The object to look for.
pub(crate) struct Wanted<'a> {
    /// The user whose processes are examined.
    pub(crate) user: User,
    /// The text of links to it in `/proc`.
    pub(crate) link: &'a [u8],
    /// Returns `true` if an object with this link, opened for reading and writing, is the right
    /// one.
    pub(crate) is_genuine: &'a dyn Fn(&OwnedFd) -> bool,
}

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

/// Opens the object of a descriptor for reading and writing, if it is the wanted one.
fn open(at: &OwnedFd, path: &[u8], wanted: &Wanted<'_>) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let object = openat(at, path, flags, Mode::empty())?;
    let own = FixedStr::<32>::joined(&[
        b"/proc/thread-self/fd/",
        DecInt::from_fd(&object).as_bytes(),
    ]);
    let mut found = [0; LINK];
    let len = readlinkat_raw(CWD, own.as_bytes(), &mut found)?;
    if found.get(..len) != Some(wanted.link) || !is_memory(object.as_fd()) {
        return Ok(None);
    }
    let fd = openat(CWD, own.as_bytes(), READ_WRITE, Mode::empty())?;
    let fd = above_stdio_quietly(fd)?;
    Ok(Some(fd).filter(wanted.is_genuine))
}

/// Returns `true` if a file opened with `O_PATH` is a file in the kernel's memory.
///
/// The text of a link is only a path, and a process of the same user with its own root directory
/// can create a file whose path looks like that of a memfd. Opening that file could block forever
/// (FUSE). So the device is compared, which the kernel chooses. This sends no request to the file
/// system of the file.
///
/// Before Linux 4.11, and where `memfd_create` is forbidden, the device of memfds is not known. The
/// type of the file system is compared then, and FUSE can delay the answer to that.
fn is_memory(object: BorrowedFd<'_>) -> bool {
    match (device(object), memfd_device()) {
        (Some(0), _) => false,
        (Some(device), of_memfds) if of_memfds != 0 => {
            device == of_memfds || huge_devices().contains(&device)
        }
        _ => fs::fstatfs(object)
            .is_ok_and(|system| [TMPFS, HUGETLBFS].contains(&file_system(&system))),
    }
}

/// The types of file systems in memory (`statfs(2)`).
const TMPFS: u32 = 0x0102_1994;
const HUGETLBFS: u32 = 0x9584_58f6;

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unnecessary_cast,
    reason = "a magic number of 32 bits, whatever the type"
)]
fn file_system(system: &fs::StatFs) -> u32 {
    system.f_type as u32
}

/// Returns the device of an open file from the kernel's cache, or 0 if it is not a regular file.
fn device(object: BorrowedFd<'_>) -> Option<u64> {
    /// `AT_STATX_DONT_SYNC` (`statx(2)`), which rustix names on Linux only.
    const DONT_SYNC: AtFlags = AtFlags::from_bits_retain(0x4000);
    let flags = AtFlags::EMPTY_PATH | DONT_SYNC;
    let stat = fs::statx(object, "", flags, StatxFlags::TYPE).ok()?;
    let is_file = u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFREG;
    Some(if is_file {
        // File systems without a device have major number 0 and a minor number other than 0.
        u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor)
    } else {
        0
    })
}

/// Returns the device of all memfds of ordinary pages, or 0 if it is not known. It is the same in
/// the whole system and never changes.
fn memfd_device() -> u64 {
    static KNOWN: AtomicU64 = AtomicU64::new(0);

    cached(&KNOWN, MemfdFlags::empty())
}

/// Returns the devices of all memfds of huge pages, one for each page size.
fn huge_devices() -> [u64; 2] {
    static KNOWN: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

    let [two, one] = &KNOWN;
    [
        cached(two, MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB),
        cached(one, MemfdFlags::HUGETLB | MemfdFlags::HUGE_1GB),
    ]
}

/// Returns the device of memfds of these pages, and stores it in `cache`.
fn cached(cache: &AtomicU64, pages: MemfdFlags) -> u64 {
    match cache.load(Relaxed) {
        0 => {
            let device = fs::memfd_create("shmem-device", MemfdFlags::CLOEXEC | pages)
                .ok()
                .and_then(|fd| device(fd.as_fd()))
                .unwrap_or(0);
            cache.store(device, Relaxed);
            device
        }
        device => device,
    }
}

/// The descriptor tables of one process that have been examined.
struct Tables {
    /// One task for each table.
    seen: [Option<u32>; 4],
    /// The ids in `/proc` are those that `kcmp` takes.
    comparable: bool,
}

impl Tables {
    /// Starts with the table of the main thread.
    fn starting_with(pid: u32) -> Self {
        let own = u32::try_from(getpid().as_raw_nonzero().get()).ok();
        Self {
            seen: [Some(pid), None, None, None],
            comparable: own.is_some() && own == own_pid(),
        }
    }

    /// Returns `true` if the task's table has not been examined, or if that is not known. Remembers
    /// it then.
    fn is_new(&mut self, task: u32) -> bool {
        if self.seen.contains(&Some(task)) {
            return false;
        }
        if !self.comparable {
            return true;
        }
        let mut known = self.seen.iter().flatten();
        if known.any(|&other| have_one_table(task, other)) {
            return false;
        }
        if let Some(free) = self.seen.iter_mut().find(|seen| seen.is_none()) {
            *free = Some(task);
        }
        true
    }
}

/// Returns `true` if two tasks certainly share one descriptor table (`kcmp(2)`).
fn have_one_table(one: u32, other: u32) -> bool {
    /// `KCMP_FILES`.
    const FILES: libc::c_long = 2;
    #[allow(
        clippy::cast_lossless,
        clippy::cast_possible_wrap,
        reason = "a task id has at most 22 bits, and the type differs between machines"
    )]
    let (one, other) = (one as libc::c_long, other as libc::c_long);
    // SAFETY: the call takes only integers, and changes nothing.
    unsafe { libc::syscall(libc::SYS_kcmp, one, other, FILES, 0, 0) == 0 }
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
    Duration::from_secs(u64::try_from(clock::now().tv_sec).unwrap_or(0))
}

/// Returns `true` if this process is in the initial pid namespace, so that `/proc` shows all
/// processes.
fn is_initial_pid_namespace() -> bool {
    let mut link = [0; 32];
    let len = readlinkat_raw(CWD, "/proc/self/ns/pid", &mut link).unwrap_or(0);
    link.get(..len) == Some(INITIAL_PID_NAMESPACE)
}

/// Returns `true` if `/proc` is mounted with `hidepid`, so that it hides processes that this one
/// may not trace, or if that is not known.
fn hides_processes() -> bool {
    let Ok(file) = openat(
        CWD,
        "/proc/self/mountinfo",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    ) else {
        return true;
    };
    // `… /proc … - proc proc rw,hidepid=invisible`. The last mount at a path is the visible one.
    let mut hides = false;
    let mut line = FixedStr::<512>::joined(&[]);
    let mut part = [0; 1024];
    loop {
        let len = match read(&file, &mut part) {
            Ok(0) => return hides,
            Ok(len) => len,
            Err(Errno::INTR) => continue,
            Err(_) => return true,
        };
        for &byte in part.get(..len).unwrap_or_default() {
            if byte != b'\n' {
                line.push_truncated(&[byte]);
                continue;
            }
            let text = core::str::from_utf8(line.as_bytes()).unwrap_or_default();
            if text.split(' ').nth(4) == Some("/proc") {
                hides = text.split_once(" - ").is_some_and(|(_, source)| {
                    let option = source
                        .rsplit([' ', ','])
                        .find_map(|option| option.strip_prefix("hidepid="));
                    !matches!(option, None | Some("0" | "off"))
                });
            }
            line = FixedStr::joined(&[]);
        }
    }
}

/// Reads a file of `/proc` that contains a single number.
pub(crate) fn number(path: &str) -> Option<u64> {
    text(path, &mut [0; 32])?.trim().parse().ok()
}

/// Reads the beginning of a file of `/proc`.
pub(crate) fn text<'a>(path: &str, buffer: &'a mut [u8]) -> Option<&'a str> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    text_of(openat(CWD, path, flags, Mode::empty()).ok()?, buffer)
}

fn text_of(file: OwnedFd, buffer: &mut [u8]) -> Option<&str> {
    let len = read(file, &mut *buffer).ok()?;
    let text = buffer.get(..len)?;
    // A longer text may be cut in the middle of a character.
    let whole = match core::str::from_utf8(text) {
        Ok(text) => return Some(text),
        Err(error) => error.valid_up_to(),
    };
    core::str::from_utf8(text.get(..whole)?).ok()
}

/// Parses the name of a directory entry as a number.
fn number_of(name: &[u8]) -> Option<u32> {
    core::str::from_utf8(name).ok()?.parse().ok()
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
