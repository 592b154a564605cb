//! `/proc`: what processes have open, and what keeps them closed to us (`proc_pid(5)`).
//!
//! How a segment is opened by the descriptor of another process, in this order:
//!
//! 1. **Which process?** `/proc/PID` is opened without following links, and its owner compared: what
//!    another user's process has is never looked at, by root neither. The descriptor of the directory
//!    goes on meaning that process, whoever gets its number.
//! 2. **Which descriptor?** `fd/N` of the process, or every descriptor of every task whose table is
//!    its own: the main thread may have ended before the others.
//! 3. **What is it?** It is opened with `O_PATH`, which calls no driver and no file system, and known by
//!    its link (kind of object and nonce) and by the device of memfds, which no other file system has.
//!    That is asked of our own descriptor, so the answer stays true.
//! 4. Only then it is opened for reading and writing, through our own descriptor.
//!
//! What the object is worth (seals, owner, size) is for the caller to check.
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

use super::above_stdio_quietly;
use super::capabilities::Capabilities;
use super::user::User;
use crate::search::{Denial, Search};
use crate::text::Text;

/// How a segment is opened once it is known to be one. A lease on it (`fcntl(2)`) does not make us
/// wait.
const READ_WRITE: OFlags = OFlags::RDWR
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// How a directory is opened to be read.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// How a directory is opened to look into it by name.
const PLACE: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// How many bytes of directory entries are read at once.
const ENTRIES: usize = 4096;

/// The longest link that is compared. A longer one is cut, and equals none of ours.
const LINK: usize = 64;

/// How long a search may take. A few hundred descriptors take a millisecond.
const SEARCH: Duration = Duration::from_secs(3);

/// The inode of the initial pid namespace (`PROC_PID_INIT_INO`, which never changes).
const INITIAL_PID_NAMESPACE: &[u8] = b"pid:[4026531836]";

/// The number of this process in `/proc`, if that is mounted and shows it.
///
/// Where `/proc` belongs to an outer pid namespace, this is not what `getpid` returns, but what a
/// process that looks into the same `/proc` will find.
pub(crate) fn own_pid() -> Option<u32> {
    let mut link = [0; 16];
    let len = readlinkat_raw(CWD, "/proc/self", &mut link).ok()?;
    core::str::from_utf8(link.get(..len)?).ok()?.parse().ok()
}

/// Which object is looked for.
pub(crate) struct Wanted<'a> {
    /// Whose processes are looked into.
    pub(crate) user: User,
    /// What links to it read.
    pub(crate) link: &'a [u8],
    /// Whether an object with this link is the one, opened for reading and writing.
    pub(crate) is_genuine: &'a dyn Fn(&OwnedFd) -> bool,
}

/// The result of looking into one process.
pub(crate) enum Look {
    Found(OwnedFd),
    /// It does not have the object.
    Nothing,
    /// There is no such process.
    NoProcess,
    /// It belongs to another user.
    OtherUser(u32),
    /// It does not let us look.
    Closed(Denial),
}

/// Looks at one descriptor of a process.
///
/// The error is about this process: descriptors or memory have run out.
pub(crate) fn look_at(pid: u32, number: u32, wanted: &Wanted<'_>) -> Result<Look, Errno> {
    let process = match Process::open(pid, wanted.user)? {
        Ok(process) => process,
        Err(look) => return Ok(look),
    };
    let name = Text::<16>::joined(&[b"fd/", DecInt::new(number).as_bytes()]);
    process.look(&process.directory, name.as_bytes(), wanted)
}

/// Looks at all descriptors of a process.
///
/// The error is about this process: descriptors or memory have run out.
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

/// Looks at all descriptors of all processes of this user, and notes what could not be seen.
///
/// The error is about this process: descriptors or memory have run out.
pub(crate) fn search(
    wanted: &Wanted<'_>,
    clock: &mut Clock,
) -> Result<Result<OwnedFd, Search>, Errno> {
    let mut search = Search::default();
    search.other_namespaces = !is_initial_pid_namespace();
    search.hidden_processes = hides_processes();
    // A second time, because the last holder may have passed the segment on, while we looked, to a
    // process that we had already looked at.
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
    /// The process, if there is one and it is this user's.
    fn open(pid: u32, user: User) -> Result<Result<Self, Look>, Errno> {
        let path = Text::<16>::joined(&[b"/proc/", DecInt::new(pid).as_bytes()]);
        let opened = openat(CWD, path.as_bytes(), PLACE, Mode::empty())
            .and_then(|directory| Ok((fs::fstat(&directory)?, directory)));
        Ok(match opened {
            // The directory belongs to the effective user and group, whether the process can be
            // dumped or not; what is in it does not.
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
        // A main thread that has ended is closed to all but root, and the others are not.
        if !matches!(look, Look::Nothing | Look::Closed(_)) {
            return Ok(look);
        }
        // Two links, and one for each task (`proc_task_getattr` of the kernel).
        let tasks = fs::statat(&self.directory, "task", AtFlags::SYMLINK_NOFOLLOW);
        if tasks.is_ok_and(|stat| links(&stat) > 3) {
            self.look_into_tasks(wanted, clock)
        } else {
            Ok(look)
        }
    }

    /// Looks at the descriptors of the tasks that have a table of their own.
    fn look_into_tasks(&self, wanted: &Wanted<'_>, clock: &mut Clock) -> Result<Look, Errno> {
        let tasks = match openat(&self.directory, "task", DIRECTORY, Mode::empty()) {
            Ok(tasks) => tasks,
            Err(errno) => {
                out_of_resources(errno)?;
                return Ok(Look::Nothing);
            }
        };
        let mut tables = Tables::beside(self.pid);
        let mut buffer = [MaybeUninit::uninit(); ENTRIES];
        let mut entries = RawDir::new(&tasks, &mut buffer);
        while let Some(entry) = entries.next() {
            // The process has ended.
            let Ok(entry) = entry else { break };
            let Some(task) = number_of(entry.file_name().to_bytes()) else {
                continue;
            };
            if !tables.is_new(task) {
                continue;
            }
            let path = Text::<32>::joined(&[b"task/", DecInt::new(task).as_bytes(), b"/fd"]);
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

    /// Looks at the descriptors in this directory of the process.
    fn look_into(
        &self,
        path: &[u8],
        wanted: &Wanted<'_>,
        clock: &mut Clock,
    ) -> Result<Look, Errno> {
        let descriptors = match openat(&self.directory, path, DIRECTORY, Mode::empty()) {
            Ok(descriptors) => descriptors,
            Err(Errno::ACCESS | Errno::PERM) => return Ok(Look::Closed(self.denial())),
            // It has ended.
            Err(errno) => {
                out_of_resources(errno)?;
                return Ok(Look::Nothing);
            }
        };
        let mut buffer = [MaybeUninit::uninit(); ENTRIES];
        let mut entries = RawDir::new(&descriptors, &mut buffer);
        while let Some(entry) = entries.next() {
            // It has ended.
            let Ok(entry) = entry else { break };
            let name = entry.file_name();
            let mut found = [0; LINK];
            match readlinkat_raw(&descriptors, name, &mut found) {
                Ok(len) if found.get(..len) == Some(wanted.link) => {}
                // The directory may be listed by those who may not follow what is in it.
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

    /// Looks at one descriptor of the process.
    fn look(&self, at: &OwnedFd, name: &[u8], wanted: &Wanted<'_>) -> Result<Look, Errno> {
        match open(at, name, wanted) {
            Ok(Some(fd)) => Ok(Look::Found(fd)),
            Ok(None) => Ok(Look::Nothing),
            Err(Errno::ACCESS | Errno::PERM) => Ok(Look::Closed(self.denial())),
            Err(Errno::AGAIN) => Ok(Look::Closed(Denial::Lease)),
            // No such process or descriptor any more.
            Err(errno) => {
                out_of_resources(errno)?;
                Ok(Look::Nothing)
            }
        }
    }

    /// Why the process does not let us look: the rules of `ptrace(2)`, one after the other.
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
            // Real, effective, saved; the one for files does not count.
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
        // Where that is not known, it is not the reason.
        let own = Capabilities::own().map_or(u64::MAX, |own| own.effective);
        let is_dumpable = || {
            let stat = fs::statat(&self.directory, "fd", AtFlags::SYMLINK_NOFOLLOW);
            // What an undumpable process has belongs to root.
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
        let (mut theirs, mut ours) = ([0; 1024], [0; 1024]);
        let theirs = self.text(b"uid_map", &mut theirs);
        if theirs.is_some() && theirs != text("/proc/self/uid_map", &mut ours) {
            return Denial::UserNamespace;
        }
        Denial::Unknown
    }

    /// The beginning of a file of the process.
    fn text<'a>(&self, path: &[u8], buffer: &'a mut [u8]) -> Option<&'a str> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        text_of(
            openat(&self.directory, path, flags, Mode::empty()).ok()?,
            buffer,
        )
    }
}

/// Opens what a descriptor leads to for reading and writing, if it is the object that is wanted.
fn open(at: &OwnedFd, path: &[u8], wanted: &Wanted<'_>) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let object = openat(at, path, flags, Mode::empty())?;
    let own = Text::<32>::joined(&[
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

/// Whether a file that is open as a mere place (`O_PATH`) is one in the kernel's memory.
///
/// A link is only a path, and a same-user process that has a root directory of its own can make one
/// that reads like a memfd's. Where it leads, opening it could block for ever (FUSE). So the device is
/// compared, which the kernel chooses. Nothing here asks the file system behind it.
///
/// Before Linux 4.11, and where `memfd_create` is forbidden, the device of memfds is not known; then the
/// kind of file system is asked, which FUSE may take its time to answer.
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

/// The numbers of file systems in memory (`statfs(2)`).
const TMPFS: u32 = 0x0102_1994;
const HUGETLBFS: u32 = 0x9584_58f6;

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unnecessary_cast,
    reason = "a name of 32 bits, whatever the type"
)]
fn file_system(system: &fs::StatFs) -> u32 {
    system.f_type as u32
}

/// The device of an open file, as the kernel has it at hand; 0 if it is no regular file.
fn device(object: BorrowedFd<'_>) -> Option<u64> {
    /// `AT_STATX_DONT_SYNC` (`statx(2)`), which rustix names on Linux only.
    const DONT_SYNC: AtFlags = AtFlags::from_bits_retain(0x4000);
    let flags = AtFlags::EMPTY_PATH | DONT_SYNC;
    let facts = fs::statx(object, "", flags, StatxFlags::TYPE).ok()?;
    let is_file = u32::from(facts.stx_mode) & libc::S_IFMT == libc::S_IFREG;
    Some(if is_file {
        // Major 0 is for what has no device; the minor number is never 0.
        u64::from(facts.stx_dev_major) << 32 | u64::from(facts.stx_dev_minor)
    } else {
        0
    })
}

/// The device of all memfds of ordinary pages; 0 if it cannot be told. It is the system's, and never
/// changes.
fn memfd_device() -> u64 {
    static KNOWN: AtomicU64 = AtomicU64::new(0);

    known(&KNOWN, MemfdFlags::empty())
}

/// The devices of all memfds of huge pages, one for each size.
fn huge_devices() -> [u64; 2] {
    static KNOWN: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

    let [two, one] = &KNOWN;
    [
        known(two, MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB),
        known(one, MemfdFlags::HUGETLB | MemfdFlags::HUGE_1GB),
    ]
}

fn known(place: &AtomicU64, pages: MemfdFlags) -> u64 {
    match place.load(Relaxed) {
        0 => {
            let device = fs::memfd_create("shmem-device", MemfdFlags::CLOEXEC | pages)
                .ok()
                .and_then(|fd| device(fd.as_fd()))
                .unwrap_or(0);
            place.store(device, Relaxed);
            device
        }
        device => device,
    }
}

/// The tables of descriptors of one process that were looked into already.
struct Tables {
    /// A task for each.
    seen: [Option<u32>; 4],
    /// Whether the numbers of `/proc` are those that `kcmp` takes.
    comparable: bool,
}

impl Tables {
    fn beside(pid: u32) -> Self {
        let own = u32::try_from(getpid().as_raw_nonzero().get()).ok();
        Self {
            seen: [Some(pid), None, None, None],
            comparable: own.is_some() && own == own_pid(),
        }
    }

    /// Whether the task has a table that was not looked into yet. Where that cannot be told, it may.
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

/// Whether two tasks certainly have the same table of descriptors (`kcmp(2)`).
fn have_one_table(one: u32, other: u32) -> bool {
    /// `KCMP_FILES`.
    const FILES: libc::c_long = 2;
    #[allow(
        clippy::cast_lossless,
        clippy::cast_possible_wrap,
        reason = "no task has a number of more than 22 bits, and the type differs between machines"
    )]
    let (one, other) = (one as libc::c_long, other as libc::c_long);
    // SAFETY: the call takes numbers only, and changes nothing.
    unsafe { libc::syscall(libc::SYS_kcmp, one, other, FILES, 0, 0) == 0 }
}

/// What is left of the time for a search.
pub(crate) struct Clock {
    end: Duration,
    /// How many times it was looked at.
    looks: u32,
    is_over: bool,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            end: now().saturating_add(SEARCH),
            looks: 0,
            is_over: false,
        }
    }

    fn is_over(&mut self) -> bool {
        self.looks = self.looks.wrapping_add(1);
        if self.looks % 64 == 0 {
            self.is_over = now() > self.end;
        }
        self.is_over
    }
}

/// The time of a clock that nobody sets.
///
/// Not asked of rustix, which reads the auxiliary vector by itself: under valgrind that crashes.
fn now() -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the pointer is valid for a write of this type.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, time.as_mut_ptr()) };
    // SAFETY: whatever was written, any bytes are a value of it.
    let time = unsafe { time.assume_init() };
    Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0))
}

/// Whether `/proc` shows all processes of the system.
fn is_initial_pid_namespace() -> bool {
    let mut link = [0; 32];
    let len = readlinkat_raw(CWD, "/proc/self/ns/pid", &mut link).unwrap_or(0);
    link.get(..len) == Some(INITIAL_PID_NAMESPACE)
}

/// Whether `/proc` is mounted so that it hides processes which this one may not trace.
fn hides_processes() -> bool {
    let Ok(file) = openat(
        CWD,
        "/proc/self/mountinfo",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    ) else {
        return true;
    };
    // `… /proc … - proc proc rw,hidepid=invisible`: the last mount at a place is the one that is seen.
    let mut hides = false;
    let mut line = Text::<512>::joined(&[]);
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
                line.push(&[byte]);
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
            line = Text::joined(&[]);
        }
    }
}

/// The number in a file of `/proc` that holds a single one.
pub(crate) fn number(path: &str) -> Option<u64> {
    text(path, &mut [0; 32])?.trim().parse().ok()
}

/// The beginning of a file of `/proc`.
pub(crate) fn text<'a>(path: &str, buffer: &'a mut [u8]) -> Option<&'a str> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    text_of(openat(CWD, path, flags, Mode::empty()).ok()?, buffer)
}

fn text_of(file: OwnedFd, buffer: &mut [u8]) -> Option<&str> {
    let len = read(file, &mut *buffer).ok()?;
    let text = buffer.get(..len)?;
    // A text that is longer may be cut within a character.
    let whole = match core::str::from_utf8(text) {
        Ok(text) => return Some(text),
        Err(error) => error.valid_up_to(),
    };
    core::str::from_utf8(text.get(..whole)?).ok()
}

/// The number that an entry of a directory is called.
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

/// An error that is about us, and not about the process that we look at.
fn out_of_resources(errno: Errno) -> Result<(), Errno> {
    match errno {
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => Err(errno),
        _ => Ok(()),
    }
}
