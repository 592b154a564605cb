//! The names of POSIX shared memory where nothing tells whether anybody has a segment open: they live
//! until they are removed.

use core::ffi::CStr;

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, Stat, fstat};
use rustix::io::{self, Errno};
use rustix::shm::{self, OFlags};

use super::{above_stdio_quietly, check_owner, failed};
use crate::error::{Error, Result, Subject};
use crate::id::ShMemId;

/// Creates the object with this name, which must not exist.
pub(crate) fn create(name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    let fd = shm::open(name, flags, Mode::RUSR | Mode::WUSR)?;
    above_stdio_quietly(fd).inspect_err(|_| {
        // It is new, and nobody else removes it.
        let _ = shm::unlink(name);
    })
}

/// Opens the object with this name, if it is a segment of this user.
pub(crate) fn open(name: &CStr, id: &ShMemId) -> Result<OwnedFd> {
    let (fd, stat) = find(name, id)?;
    if stat.st_mode & 0o022 != 0 {
        return Err(Error::Foreign {
            found: "its permissions let other users write to it",
        });
    }
    Ok(fd)
}

/// Removes the name if it leads to the object that is open here, as far as the system tells which one it
/// is: macOS does not.
pub(crate) fn unlink_own(fd: &OwnedFd, name: &CStr, id: &ShMemId) -> Result<()> {
    let (_, there) = find(name, id)?;
    let ours = fstat(fd).map_err(|errno| failed("fstat", errno, Subject::Id(*id)))?;
    if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino) {
        return Err(Error::Gone { id: *id });
    }
    unlink(name, id)
}

/// Removes the name if it leads to an object of this user.
pub(crate) fn unlink_any(name: &CStr, id: &ShMemId) -> Result<()> {
    find(name, id)?;
    unlink(name, id)
}

/// Leaves the object to live by itself, as all of them do.
#[expect(clippy::unnecessary_wraps, reason = "on Linux it can fail")]
pub(crate) fn persist(_fd: &OwnedFd) -> Result<()> {
    Ok(())
}

/// Nothing tells whether it is unused.
pub(crate) fn remove_if_unused(_name: &CStr) -> bool {
    false
}

/// Nothing tells which are unused.
#[expect(clippy::unnecessary_wraps, reason = "on Linux it can fail")]
pub(crate) fn remove_unused(_is_ours: impl Fn(&str) -> bool, _most: usize) -> Result<usize> {
    Ok(0)
}

fn find(name: &CStr, id: &ShMemId) -> Result<(OwnedFd, Stat)> {
    let fd = shm::open(name, OFlags::RDWR, Mode::empty())
        .and_then(above_stdio_quietly)
        .map_err(|errno| refused("shm_open", errno, id))?;
    let stat = fstat(&fd).map_err(|errno| failed("fstat", errno, Subject::Id(*id)))?;
    check_owner(stat.st_uid)?;
    Ok((fd, stat))
}

fn unlink(name: &CStr, id: &ShMemId) -> Result<()> {
    shm::unlink(name).map_err(|errno| refused("shm_unlink", errno, id))
}

/// The error for an id that the system refused.
fn refused(call: &'static str, errno: Errno, id: &ShMemId) -> Error {
    match errno {
        Errno::NOENT => Error::Gone { id: *id },
        Errno::ACCESS | Errno::PERM => Error::OtherUser { owner: None },
        // A symbolic link; a socket; a directory.
        Errno::LOOP | Errno::NXIO | Errno::ISDIR => Error::Foreign {
            found: "it is not a file of shared memory",
        },
        _ => failed(call, errno, Subject::Id(*id)),
    }
}
