//! The names of POSIX shared memory on Linux: files in `/dev/shm`, which are removed after use.
//!
//! Every user can put anything there, so a file is examined before it is opened: it must be a
//! regular file of this user, have one name, and not be writable for others.
//!
//! A name exists until it is removed, and a program that is killed or ends by `exit` does not
//! remove it. So a lock shows whether any process has a segment open, by this protocol:
//!
//! 1. A file of this crate is marked by its mode, [`MARK`], from the call that creates it. A file
//!    without the mark, because another program created it or because it persists, is never cleaned
//!    up.
//! 2. A process that creates or opens a file takes a shared `flock(2)` on it, and then checks
//!    whether the file still has a name. If not, the file was cleaned up in between: a creator
//!    takes another name, and for an opener the segment did not exist.
//! 3. A process that cleans up takes the exclusive lock, which it gets only if no process has a shared
//!    one, and then checks whether the file is marked. From that moment other processes do not get
//!    a shared lock, and afterwards they find no name.
//!
//! The kernel releases a lock with the last descriptor or mapping of its open file, however a
//! process ends. Forked children and clones share the open file and thus the lock. Unlike process
//! ids, locks mean the same in all containers that share the file system. Programs that open a
//! segment without this crate take no lock, but its creator has one.
//!
//! Between the check where a name leads and its removal, another process could remove the name and
//! give it to a newer segment. The functions here that remove names therefore exclude each other by
//! a second lock on the file (`F_SETLK`, `fcntl(2)`), and repeat the check while they hold it.

use core::ffi::CStr;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::{self, Errno};
use rustix::path::DecInt;

use crate::error::{Error, Result, Subject};
use crate::id::ShMemId;
use crate::id::kind::IdKind;
use crate::memory::mapping::Protection;
use crate::sys::file_lock::{Lock, check_access, is_same, lock};
use crate::sys::found_file::FoundFile;
use crate::sys::growth::GROWABLE;
use crate::sys::procfs::object::is_memfd;
use crate::sys::{FileInfo, above_stdio_quietly, check_owner, failed, failed_for, limits};
use crate::util::fixed_str::FixedStr;

const DIRECTORY: &str = "/dev/shm";

/// The mode of files that are removed when no process has them open: readable and writable for the
/// user, and a bit that has no meaning for files.
const MARK: u32 = 0o1600;

/// The mode of files that persist.
const UNMARKED: u32 = 0o600;

/// How often to try to take a lock that another process holds. It holds it for a few system calls.
const TRIES: usize = 1000;

/// Creates the object with this name, which must not exist. Also returns `EEXIST` if another
/// process cleans up the new file.
pub(crate) fn create(name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR
        | OFlags::CREATE
        | OFlags::EXCL
        | OFlags::CLOEXEC
        | OFlags::NOFOLLOW
        | OFlags::NOCTTY;
    // Without locks, the file must never have the mark: a process that has seen the mark may be about to
    // remove the name.
    let mode = if are_locks_missing() { UNMARKED } else { MARK };
    let fd = fs::open(path(name).as_bytes(), flags, Mode::from_raw_mode(mode))?;
    let fd = above_stdio_quietly(fd).inspect_err(|_| {
        // The file is new, and nothing else would remove it.
        let _ = fs::unlink(path(name).as_bytes());
    })?;
    let lock = lock(&fd, FlockOperation::NonBlockingLockShared);
    let stat = fs::fstat(&fd)?;
    if lock == Lock::Refused || stat.st_nlink == 0 {
        return Err(Errno::EXIST);
    }
    // The umask or an access control list of the directory may have removed permissions.
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

/// Whether a process with a descriptor that permits reading only can never write to the object: `/proc`
/// opens it again.
pub(crate) const READ_ONLY_STAYS: bool = false;

/// Is never called, and returns an error.
pub(crate) fn create_for_readers(_name: &CStr) -> io::Result<OwnedFd> {
    Err(Errno::NOTSUP)
}

/// Returns `true` if files cannot be locked here. The first call tries it on the directory.
fn are_locks_missing() -> bool {
    const UNKNOWN: u8 = 0;
    const THERE: u8 = 1;
    const MISSING: u8 = 2;
    static ANSWER: AtomicU8 = AtomicU8::new(UNKNOWN);

    match ANSWER.load(Relaxed) {
        UNKNOWN => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let Ok(directory) = fs::open(DIRECTORY, flags, Mode::empty()) else {
                // Not cached: the next call tries again.
                return false;
            };
            let locked = lock(&directory, FlockOperation::NonBlockingLockShared);
            let is_missing = matches!(locked, Lock::Missing(_));
            ANSWER.store(if is_missing { MISSING } else { THERE }, Relaxed);
            is_missing
        }
        answer => answer == MISSING,
    }
}

/// Opens the object with this name, if it is a segment of this user.
pub(crate) fn open(name: &CStr, id: &ShMemId, protection: Protection) -> Result<OwnedFd> {
    for _ in 0..TRIES {
        let found = find(name, id)?;
        check_access(&found.stat)?;
        let fd = open_found(&found, name, id, protection)?;
        let lock = lock(&fd, FlockOperation::NonBlockingLockShared);
        let stat = fs::fstat(&fd).map_err(|errno| failed("fstat", errno, Subject::Id(*id)))?;
        if lock != Lock::Refused && stat.st_nlink != 0 {
            return Ok(fd);
        }
        // The file is being removed.
        rustix::thread::sched_yield();
    }
    Err(Error::Gone { id: *id })
}

/// Checks that a descriptor from another process is that of a segment of this user, and takes the lock
/// that every holder has. Returns the id that opens the segment, or the empty id if it has no name
/// here any more.
pub(crate) fn adopt(fd: &OwnedFd) -> Result<ShMemId> {
    // The kernel answers this without asking a file system, and only for files in memory.
    if fs::fcntl_get_seals(fd).is_err() {
        return Err(Error::Foreign {
            found: "it is not a file in memory",
        });
    }
    let stat = fs::fstat(fd).map_err(|errno| failed("fstat", errno, Subject::Nothing))?;
    check_owner(stat.st_uid)?;
    if is_memfd(fd.as_fd()) {
        return Err(Error::Foreign {
            found: "it is a memfd, not a POSIX segment",
        });
    }
    check_access(&stat)?;
    let id = id_of(fd, &stat).unwrap_or_default();
    match lock(fd, FlockOperation::NonBlockingLockShared) {
        Lock::Refused => Err(Error::Gone { id }),
        Lock::Taken | Lock::Missing(_) => Ok(id),
    }
}

/// Returns the name of an open file, if it still has one in `/dev/shm`.
fn id_of(fd: &OwnedFd, stat: &Stat) -> Option<ShMemId> {
    let own = FixedStr::<32>::joined(&[b"/proc/thread-self/fd/", DecInt::from_fd(fd).as_bytes()]);
    let mut link = [0; 64];
    let len = fs::readlinkat_raw(CWD, own.as_bytes(), &mut link).ok()?;
    let text = core::str::from_utf8(link.get(..len)?).ok()?;
    let id = ShMemId::from_string(text.strip_prefix(DIRECTORY)?);
    if id.kind() != IdKind::Posix {
        return None;
    }
    let name = CStr::from_bytes_until_nul(id.as_array()).ok()?;
    let found = find(name, &id).ok()?;
    is_same(&found.stat, stat).then_some(id)
}

/// Removes the name if it refers to the open object.
pub(crate) fn unlink_own(fd: &OwnedFd, name: &CStr, id: &ShMemId) -> Result<()> {
    match remove(name, fd) {
        Ok(true) => Ok(()),
        Ok(false) | Err(Errno::NOENT) => Err(Error::Gone { id: *id }),
        Err(errno) => Err(refused("shm_unlink", errno, id)),
    }
}

/// Removes the name if it refers to an object of this user.
pub(crate) fn unlink_any(name: &CStr, id: &ShMemId) -> Result<()> {
    for _ in 0..TRIES {
        let found = find(name, id)?;
        // If the object may not be opened, it cannot be locked, and is removed without the lock.
        let opened = open_found(&found, name, id, Protection::ReadWrite);
        match remove(name, opened.as_ref().unwrap_or(&found.fd)) {
            Ok(true) => return Ok(()),
            // The name now refers to another object.
            Ok(false) => {}
            Err(Errno::NOENT) => break,
            Err(errno) => return Err(refused("shm_unlink", errno, id)),
        }
    }
    Err(Error::Gone { id: *id })
}

/// Makes the object persist after its last user.
pub(crate) fn persist(fd: &OwnedFd) -> Result<()> {
    let growable = FileInfo::of(fd)?.mode & GROWABLE;
    fs::fchmod(fd, Mode::from_raw_mode(UNMARKED | growable))
        .map_err(|errno| failed("fchmod", errno, Subject::Nothing))
}

/// Removes the name if it refers to an object of this crate and this user that no process has open.
/// Returns `true` if it was removed.
pub(crate) fn remove_if_unused(name: &CStr) -> bool {
    let id = ShMemId::default();
    let unused = || {
        let found = find(name, &id).ok()?;
        if !is_marked(&found.stat) {
            return None;
        }
        let fd = open_found(&found, name, &id, Protection::ReadWrite).ok()?;
        if lock(&fd, FlockOperation::NonBlockingLockExclusive) != Lock::Taken {
            return None;
        }
        // Checked again, because no process can change the mark any more while the lock is held.
        is_marked(&fs::fstat(&fd).ok()?).then_some(fd)
    };
    unused().is_some_and(|fd| remove(name, &fd) == Ok(true))
}

/// Looks at up to `most` names for which `is_ours` returns `true`, and removes those of objects
/// that no process has open. Returns how many were removed.
pub(crate) fn remove_unused(is_ours: impl Fn(&str) -> bool, most: usize) -> Result<usize> {
    let refused = |errno| failed_for("shm_open", errno, Subject::Nothing, limits::for_dev_shm);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = fs::open(DIRECTORY, flags, Mode::empty()).map_err(refused)?;
    let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
    let mut entries = fs::RawDir::new(&directory, &mut buffer);
    let (mut seen, mut removed) = (0, 0);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(|errno| failed("getdents", errno, Subject::Nothing))?;
        let name = FixedStr::<32>::truncated(&[b"/", entry.file_name().to_bytes(), b"\0"]);
        let Ok(name) = CStr::from_bytes_until_nul(name.as_bytes()) else {
            // Too long for a name of this crate.
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

/// Opens an object that [`find`] has found.
fn open_found(
    found: &FoundFile,
    name: &CStr,
    id: &ShMemId,
    protection: Protection,
) -> Result<OwnedFd> {
    let opened = found.open(CWD, path(name).as_bytes(), protection);
    opened.map_err(|errno| match errno {
        Errno::NOENT => Error::Gone { id: *id },
        Errno::ACCESS if permissions(&found.stat) & 0o600 != 0o600 => Error::Foreign {
            found: "its permissions do not let its owner read and write it",
        },
        Errno::WOULDBLOCK => Error::Foreign {
            found: "another process has a lease on it",
        },
        _ => refused("open", errno, id),
    })
}

/// Finds the object with this name without opening it. Returns an error unless it is a regular file
/// of this user.
fn find(name: &CStr, id: &ShMemId) -> Result<FoundFile> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = fs::open(DIRECTORY, flags, Mode::empty())
        .map_err(|errno| refused("shm_open", errno, id))?;
    let component = name.to_bytes().get(1..).unwrap_or_default();
    let found = FoundFile::at(&directory, component).map_err(|errno| match errno {
        Errno::NOENT => Error::Gone { id: *id },
        Errno::XDEV => Error::Foreign {
            found: "another file system is mounted there",
        },
        _ => refused("shm_open", errno, id),
    })?;
    check_owner(found.stat.st_uid)?;
    if FileType::from_raw_mode(found.stat.st_mode) != FileType::RegularFile {
        return Err(Error::Foreign {
            found: "it is not a shared-memory file",
        });
    }
    Ok(found)
}

/// Removes the name if it refers to this object. Returns `false` if it refers to another one.
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

/// The lock for removing names of an object. At most one process holds it.
struct Removal<'a>(Option<&'a OwnedFd>);

impl<'a> Removal<'a> {
    /// Waits a short time for the lock, and continues without it after that: a process that holds
    /// it longer has been stopped, or does so on purpose.
    fn begin(fd: &'a OwnedFd) -> Self {
        for _ in 0..TRIES {
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
            // If this fails, closing the descriptor releases the lock.
            let _ = fs::fcntl_lock(fd, FlockOperation::Unlock);
        }
    }
}

fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

/// Returns `true` if the object is removed when no process has it open, whether or not it is growable.
fn is_marked(stat: &Stat) -> bool {
    permissions(stat) & !GROWABLE == MARK
}

/// Returns the path that `shm_open(3)` of the C libraries opens for this name.
fn path(name: &CStr) -> FixedStr<64> {
    FixedStr::joined(&[DIRECTORY.as_bytes(), name.to_bytes()])
}

/// Returns the error for a call on `/dev/shm` that the system refused.
fn refused(call: &'static str, errno: Errno, id: &ShMemId) -> Error {
    failed_for(call, errno, Subject::Id(*id), limits::for_dev_shm)
}
