//! The names of POSIX shared memory on Linux: files in `/dev/shm`, which clean themselves up.
//!
//! Every user may put anything there, so nothing is opened before it is known what it is: a regular file
//! of this user, under one name, that others may not write.
//!
//! A name lives until it is removed, and a program that is killed or ends by `exit` does not remove it.
//! So a lock tells whether any process has a segment open, by this protocol:
//!
//! 1. A file of this crate is marked by its mode, [`MARK`], from the call on that creates it. What is
//!    not marked, because another program has made it or because it persists, is never cleaned up.
//! 2. Whoever creates or opens a file takes a shared `flock(2)` on it, and only then looks whether the
//!    file still has a name. If it has none, it was cleaned up in between: a creator takes another
//!    name, and for others there was no such segment.
//! 3. Whoever cleans up takes the exclusive lock, which it gets only if nobody has a shared one, and only
//!    then looks whether the file is marked. Whoever was going to take a shared lock does not get it from
//!    then on, and finds no name after it.
//!
//! The kernel releases a lock with the last descriptor or mapping of its open file, however a process
//! ends; forked children and clones share the open file, and so the lock. Locks, unlike process numbers,
//! mean the same in every container that shares the file system. Programs that open a segment without
//! this crate take no lock: its creator does.
//!
//! Between the look at where a name leads and its removal, the name could be removed by another process
//! and given to a newer segment. Processes that remove a name by the functions here exclude each other by
//! a second lock on the file that the name leads to (`F_SETLK`, `fcntl(2)`), and look again while they
//! have it.

use core::ffi::CStr;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::{self, Errno};
use rustix::path::DecInt;

use super::{above_stdio_quietly, check_owner, failed};
use crate::ShMemId;
use crate::error::{Error, Result, Subject};
use crate::text::Text;

const FOLDER: &str = "/dev/shm";

/// The mode of files that are removed when nobody has them open: to read and to write for the user, and
/// a bit that has no meaning for files.
const MARK: u32 = 0o1600;

/// The mode of files that stay.
const UNMARKED: u32 = 0o600;

/// How often a lock that another process has is asked for: it has it for a few system calls.
const TURNS: usize = 1000;

/// Creates the object with this name, which must not exist. `EEXIST` also if another process has taken
/// the name meanwhile.
pub(crate) fn create(name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR
        | OFlags::CREATE
        | OFlags::EXCL
        | OFlags::CLOEXEC
        | OFlags::NOFOLLOW
        | OFlags::NOCTTY;
    // Without locks it must never have the mark: a process that has seen the mark may be about to remove
    // the name.
    let mode = if are_locks_missing() { UNMARKED } else { MARK };
    let fd = fs::open(path(name).as_bytes(), flags, Mode::from_raw_mode(mode))?;
    let fd = above_stdio_quietly(fd).inspect_err(|_| {
        // It is new, and nobody else removes it.
        let _ = fs::unlink(path(name).as_bytes());
    })?;
    let lock = lock(&fd, FlockOperation::NonBlockingLockShared);
    let stat = fs::fstat(&fd)?;
    if lock == Lock::Refused || stat.st_nlink == 0 {
        return Err(Errno::EXIST);
    }
    // The umask, or an access control list of the folder, can take away permissions.
    let mode = if lock == Lock::Taken { MARK } else { UNMARKED };
    if permissions(&stat) != mode {
        let changed = fs::fchmod(&fd, Mode::from_raw_mode(mode));
        if let Err(errno) = changed {
            let _ = remove(name, &fd);
            return Err(errno);
        }
    }
    Ok(fd)
}

/// Returns `true` if files cannot be locked here. The directory is asked, once per process.
fn are_locks_missing() -> bool {
    const UNKNOWN: u8 = 0;
    const THERE: u8 = 1;
    const MISSING: u8 = 2;
    static ANSWER: AtomicU8 = AtomicU8::new(UNKNOWN);

    match ANSWER.load(Relaxed) {
        UNKNOWN => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let Ok(folder) = fs::open(FOLDER, flags, Mode::empty()) else {
                // Asked again the next time.
                return false;
            };
            let is_missing = lock(&folder, FlockOperation::NonBlockingLockShared) == Lock::Missing;
            ANSWER.store(if is_missing { MISSING } else { THERE }, Relaxed);
            is_missing
        }
        answer => answer == MISSING,
    }
}

/// Opens the object with this name, if it is a segment of this user.
pub(crate) fn open(name: &CStr, id: &ShMemId) -> Result<OwnedFd> {
    for _ in 0..TURNS {
        let found = find(name, id)?;
        check_access(&found.stat)?;
        let fd = found.open(name, id)?;
        let lock = lock(&fd, FlockOperation::NonBlockingLockShared);
        let stat = fs::fstat(&fd).map_err(|errno| failed("fstat", errno, Subject::Id(*id)))?;
        if lock != Lock::Refused && stat.st_nlink != 0 {
            return Ok(fd);
        }
        // It is being removed.
        rustix::thread::sched_yield();
    }
    Err(Error::Gone { id: *id })
}

/// Removes the name if it leads to the object that is open here.
pub(crate) fn unlink_own(fd: &OwnedFd, name: &CStr, id: &ShMemId) -> Result<()> {
    match remove(name, fd) {
        Ok(true) => Ok(()),
        Ok(false) | Err(Errno::NOENT) => Err(Error::Gone { id: *id }),
        Err(errno) => Err(failed("shm_unlink", errno, Subject::Id(*id))),
    }
}

/// Removes the name if it leads to an object of this user.
pub(crate) fn unlink_any(name: &CStr, id: &ShMemId) -> Result<()> {
    for _ in 0..TURNS {
        let found = find(name, id)?;
        // Without the permission to open it, it is removed without excluding others.
        let opened = found.open(name, id);
        match remove(name, opened.as_ref().unwrap_or(&found.fd)) {
            Ok(true) => return Ok(()),
            // Now it leads to another one.
            Ok(false) => {}
            Err(Errno::NOENT) => break,
            Err(errno) => return Err(failed("shm_unlink", errno, Subject::Id(*id))),
        }
    }
    Err(Error::Gone { id: *id })
}

/// Leaves the object to live by itself.
pub(crate) fn persist(fd: &OwnedFd) -> Result<()> {
    fs::fchmod(fd, Mode::from_raw_mode(UNMARKED))
        .map_err(|errno| failed("fchmod", errno, Subject::Nothing))
}

/// Removes the name if it leads to an object of this crate and this user that nobody has open. Returns
/// `true` if it was removed.
pub(crate) fn remove_if_unused(name: &CStr) -> bool {
    let id = ShMemId::default();
    let unused = || {
        let found = find(name, &id).ok()?;
        if permissions(&found.stat) != MARK {
            return None;
        }
        let fd = found.open(name, &id).ok()?;
        if lock(&fd, FlockOperation::NonBlockingLockExclusive) != Lock::Taken {
            return None;
        }
        // Only now can nobody change it any more.
        (permissions(&fs::fstat(&fd).ok()?) == MARK).then_some(fd)
    };
    unused().is_some_and(|fd| remove(name, &fd) == Ok(true))
}

/// Removes, of the first `most` names that are ours by their text, those that nobody has open. Returns
/// how many were removed.
pub(crate) fn remove_unused(is_ours: impl Fn(&str) -> bool, most: usize) -> Result<usize> {
    let refused = |errno| failed("shm_open", errno, Subject::Nothing);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = fs::open(FOLDER, flags, Mode::empty()).map_err(refused)?;
    let mut room = [MaybeUninit::<u8>::uninit(); 4096];
    let mut entries = fs::RawDir::new(&folder, &mut room);
    let (mut seen, mut removed) = (0, 0);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(|errno| failed("getdents", errno, Subject::Nothing))?;
        let name = Text::<32>::joined(&[b"/", entry.file_name().to_bytes(), b"\0"]);
        let Ok(name) = CStr::from_bytes_until_nul(name.as_bytes()) else {
            // It is too long.
            continue;
        };
        if !name.to_str().is_ok_and(&is_ours) {
            continue;
        }
        seen += 1;
        if seen > most {
            break;
        }
        removed += usize::from(remove_if_unused(name));
    }
    Ok(removed)
}

/// Something in `/dev/shm`: a descriptor that reaches it without opening it, and what the system says
/// of it.
struct Found {
    fd: OwnedFd,
    stat: Stat,
}

impl Found {
    /// Opens it. What can block, or act when it is opened, was sorted out by [`find`].
    fn open(&self, name: &CStr, id: &ShMemId) -> Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let number = DecInt::from_fd(&self.fd);
        let link = Text::<32>::joined(&[b"/proc/thread-self/fd/", number.as_bytes()]);
        let opened = match fs::open(link.as_bytes(), flags, Mode::empty()) {
            // There is no `/proc`.
            Err(Errno::NOENT | Errno::NOTDIR) => fs::open(
                path(name).as_bytes(),
                flags | OFlags::NOFOLLOW,
                Mode::empty(),
            ),
            opened => opened,
        };
        let fd = opened
            .and_then(above_stdio_quietly)
            .map_err(|errno| match errno {
                Errno::NOENT => Error::Gone { id: *id },
                Errno::ACCESS if permissions(&self.stat) & 0o600 != 0o600 => Error::Foreign {
                    found: "its permissions do not let its owner read and write it",
                },
                Errno::WOULDBLOCK => Error::Foreign {
                    found: "another process has a lease on it",
                },
                _ => failed("open", errno, Subject::Id(*id)),
            })?;
        match fs::fstat(&fd) {
            Ok(stat) if is_same(&stat, &self.stat) => Ok(fd),
            Ok(_) => Err(Error::Gone { id: *id }),
            Err(errno) => Err(failed("fstat", errno, Subject::Id(*id))),
        }
    }
}

/// Finds the object with this name, if it is a regular file of this user, without opening it.
fn find(name: &CStr, id: &ShMemId) -> Result<Found> {
    let refused = |errno| failed("shm_open", errno, Subject::Id(*id));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = fs::open(FOLDER, flags, Mode::empty()).map_err(refused)?;
    let component = name.to_bytes().get(1..).unwrap_or_default();
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // What is mounted there can be a file system in user space, which a question to it would wait for.
    let fd = match fs::openat2(
        &folder,
        component,
        flags,
        Mode::empty(),
        ResolveFlags::NO_XDEV,
    ) {
        // Before Linux 5.6; in a sandbox that is older.
        Err(Errno::NOSYS | Errno::PERM) => fs::openat(&folder, component, flags, Mode::empty()),
        found => found,
    };
    let fd = fd.map_err(|errno| match errno {
        Errno::NOENT => Error::Gone { id: *id },
        Errno::XDEV => Error::Foreign {
            found: "another file system is mounted there",
        },
        _ => refused(errno),
    })?;
    let stat = fs::fstat(&fd).map_err(|errno| failed("fstat", errno, Subject::Id(*id)))?;
    check_owner(stat.st_uid)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::Foreign {
            found: "it is not a file of shared memory",
        });
    }
    Ok(Found { fd, stat })
}

/// Returns an error for a file of this user to which others have access.
///
/// Where hard links are not protected (`fs.protected_hardlinks`), another user can give any file of
/// this one that is in the file system a second name.
fn check_access(stat: &Stat) -> Result<()> {
    if stat.st_nlink > 1 {
        return Err(Error::Foreign {
            found: "the file has more than one name",
        });
    }
    if permissions(stat) & 0o022 != 0 {
        return Err(Error::Foreign {
            found: "its permissions let other users write to it",
        });
    }
    Ok(())
}

/// Removes the name if it leads to this object; `false` if it leads to another one.
fn remove(name: &CStr, fd: &OwnedFd) -> io::Result<bool> {
    let _exclusive = Removal::begin(fd);
    let path = path(name);
    let (there, ours) = (
        fs::statat(
            CWD,
            path.as_bytes(),
            AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT,
        )?,
        fs::fstat(fd)?,
    );
    if !is_same(&there, &ours) {
        return Ok(false);
    }
    fs::unlink(path.as_bytes())?;
    Ok(true)
}

/// The right to remove names of one object, which one process has at a time.
struct Removal<'a>(Option<&'a OwnedFd>);

impl<'a> Removal<'a> {
    /// Waits for it, but not for long: a process that keeps it longer was stopped, or does so on purpose.
    fn begin(fd: &'a OwnedFd) -> Self {
        for _ in 0..TURNS {
            match fs::fcntl_lock(fd, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::AGAIN | Errno::ACCESS) => rustix::thread::sched_yield(),
                Err(_) => break,
                Ok(()) => return Self(Some(fd)),
            }
        }
        Self(None)
    }
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        if let Some(fd) = self.0 {
            // It ends with the descriptor at the latest.
            let _ = fs::fcntl_lock(fd, FlockOperation::Unlock);
        }
    }
}

/// The result of asking for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    Taken,
    /// Another process has one.
    Refused,
    /// There are no locks here: a sandbox forbids the call.
    Missing,
}

fn lock(fd: impl AsFd, operation: FlockOperation) -> Lock {
    match fs::flock(fd, operation) {
        Ok(()) => Lock::Taken,
        Err(Errno::WOULDBLOCK) => Lock::Refused,
        Err(_) => Lock::Missing,
    }
}

fn is_same(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

/// What `shm_open(3)` of the C libraries opens for this name.
fn path(name: &CStr) -> Text<64> {
    Text::joined(&[FOLDER.as_bytes(), name.to_bytes()])
}
