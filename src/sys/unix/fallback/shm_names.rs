//! The names of POSIX shared memory, where the system does not report whether a segment is open:
//! they exist until they are removed.

use core::ffi::CStr;

use rustix::fd::OwnedFd;
use rustix::fs::{FileType, Mode, Stat, fstat};
use rustix::io::{self, Errno};
use rustix::shm::{self, OFlags};

use crate::error::{Error, Result, Subject};
use crate::id::ShMemId;
use crate::memory::mapping::Protection;
use crate::sys::{above_stdio, above_stdio_quietly, check_owner, failed, failed_for, limits};

/// Whether a process with a descriptor that permits reading only can never write to the object.
///
/// On Apple's systems it cannot: the kernel keeps the permission of the descriptor for its mappings, and
/// nothing but the name opens the object again or changes its mode. On the BSDs and illumos, objects are
/// files, or at least have a mode that every process of the user can change.
pub(crate) const READ_ONLY_STAYS: bool = cfg!(any(target_vendor = "apple", shmem_apple_rules));

/// Creates the object with this name, which must not exist.
pub(crate) fn create(name: &CStr) -> io::Result<OwnedFd> {
    create_as(name, Mode::RUSR | Mode::WUSR)
}

/// Does the same, with a mode that permits everybody but this call and root to read only.
pub(crate) fn create_for_readers(name: &CStr) -> io::Result<OwnedFd> {
    create_as(name, Mode::RUSR)
}

fn create_as(name: &CStr, mode: Mode) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    let fd = shm::open(name, flags, mode)?;
    above_stdio_quietly(fd).inspect_err(|_| {
        // The object is new, and nothing else would remove it.
        let _ = shm::unlink(name);
    })
}

/// Opens the object with this name, if it is a segment of this user.
pub(crate) fn open(name: &CStr, id: &ShMemId, protection: Protection) -> Result<OwnedFd> {
    let (fd, stat) = find(name, id, protection)?;
    if stat.st_mode & 0o022 != 0 {
        return Err(Error::Foreign {
            found: "its permissions let other users write to it",
        });
    }
    Ok(fd)
}

/// Checks that a descriptor from another process can be that of a segment of this user. Returns the
/// empty id, because the name is not known.
pub(crate) fn adopt(fd: &OwnedFd) -> Result<ShMemId> {
    let stat = fstat(fd).map_err(|errno| failed("fstat", errno, Subject::Nothing))?;
    check_owner(stat.st_uid)?;
    match FileType::from_raw_mode(stat.st_mode) {
        // Apple's systems report no type.
        FileType::RegularFile | FileType::Unknown => {}
        _ => {
            return Err(Error::Foreign {
                found: "it is not a shared-memory object",
            });
        }
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(Error::Foreign {
            found: "its permissions let other users write to it",
        });
    }
    Ok(ShMemId::default())
}

/// Removes the name if it refers to the open object, as far as the system reports that: macOS does
/// not.
pub(crate) fn unlink_own(fd: &OwnedFd, name: &CStr, id: &ShMemId) -> Result<()> {
    let (_, named) = find(name, id, Protection::Read)?;
    let open = fstat(fd).map_err(|errno| failed("fstat", errno, Subject::Id(*id)))?;
    if (named.st_dev, named.st_ino) != (open.st_dev, open.st_ino) {
        return Err(Error::Gone { id: *id });
    }
    unlink(name, id)
}

/// Removes the name if it refers to an object of this user.
pub(crate) fn unlink_any(name: &CStr, id: &ShMemId) -> Result<()> {
    find(name, id, Protection::ReadWrite)?;
    unlink(name, id)
}

/// Does nothing: all objects persist.
#[expect(clippy::unnecessary_wraps, reason = "the Linux version can fail")]
pub(crate) fn persist(_fd: &OwnedFd) -> Result<()> {
    Ok(())
}

/// Returns `false`: it is not known whether the object is unused.
pub(crate) fn remove_if_unused(_name: &CStr) -> bool {
    false
}

/// Removes nothing: it is not known which objects are unused.
#[expect(clippy::unnecessary_wraps, reason = "the Linux version can fail")]
pub(crate) fn remove_unused(_is_ours: impl Fn(&str) -> bool, _most: usize) -> Result<usize> {
    Ok(0)
}

fn find(name: &CStr, id: &ShMemId, protection: Protection) -> Result<(OwnedFd, Stat)> {
    let flags = match protection {
        Protection::ReadWrite => OFlags::RDWR,
        Protection::Read => OFlags::RDONLY,
    };
    let fd = shm::open(name, flags, Mode::empty())
        .map_err(|errno| refused("shm_open", errno, id))
        .and_then(above_stdio)?;
    let stat = fstat(&fd).map_err(|errno| failed("fstat", errno, Subject::Id(*id)))?;
    check_owner(stat.st_uid)?;
    Ok((fd, stat))
}

fn unlink(name: &CStr, id: &ShMemId) -> Result<()> {
    shm::unlink(name).map_err(|errno| refused("shm_unlink", errno, id))
}

/// Returns the error for a call on a name that the system refused.
fn refused(call: &'static str, errno: Errno, id: &ShMemId) -> Error {
    match errno {
        Errno::NOENT => Error::Gone { id: *id },
        Errno::ACCESS | Errno::PERM => Error::OtherUser { owner: None },
        // A symbolic link; a socket; a directory.
        Errno::LOOP | Errno::NXIO | Errno::ISDIR => Error::Foreign {
            found: "it is not a shared-memory file",
        },
        _ => failed_for(call, errno, Subject::Id(*id), limits::for_dev_shm),
    }
}
