//! Opening the object behind a descriptor again, with other permissions, through `/proc`.

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io;
use rustix::path::DecInt;

use super::huge_pages::PageSize;
use super::mapping::map_fd_at;
#[cfg(target_os = "linux")]
use crate::error::Error;
use crate::error::{Result, Subject};
use crate::memory::mapping::{Mapping, Protection};
use crate::sys::{above_stdio_quietly, failed_for, is_read_only, limits};
use crate::util::fixed_str::FixedStr;

/// Opens the object again. With `O_NONBLOCK`, a lease on it does not block the call.
///
/// The caller has checked that it is a file in memory: a device would be another object when it is
/// opened again.
pub(crate) fn reopen(fd: impl AsFd, access: OFlags) -> io::Result<OwnedFd> {
    let number = DecInt::from_fd(fd);
    let path = FixedStr::<32>::joined(&[b"/proc/thread-self/fd/", number.as_bytes()]);
    let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK;
    openat(CWD, path.as_bytes(), flags, Mode::empty()).and_then(above_stdio_quietly)
}

/// Opens the object for writing, if the descriptor permits reading only: allocating memory needs the
/// permission to write.
#[cfg(target_os = "linux")]
pub(super) fn writable(fd: &OwnedFd) -> Result<Option<OwnedFd>> {
    if !is_read_only(fd) {
        return Ok(None);
    }
    let reopened = reopen(fd, OFlags::RDWR).map_err(|_| Error::Foreign {
        found: "its memory is not reserved, and without /proc or the permission to write it, it \
                cannot be reserved",
    })?;
    Ok(Some(reopened))
}

/// Maps the first `len` bytes of a file in memory for reading.
///
/// The mapping is one of a descriptor that permits reading only, so that `mprotect` cannot make it
/// writable, and so that it does not keep a process from sealing the file. Without `/proc`, only the
/// pages are protected.
pub(crate) fn map_file_for_reading(fd: &OwnedFd, len: usize, pages: PageSize) -> Result<Mapping> {
    let reopened = if is_read_only(fd) {
        None
    } else {
        reopen(fd, OFlags::RDONLY).ok()
    };
    let fd = reopened.as_ref().unwrap_or(fd);
    map_fd_at(fd, None, len, Protection::Read, pages.unmap())
        .map_err(|errno| failed_for("mmap", errno, Subject::Bytes(len), limits::for_mapping))
}

/// Does the same for ordinary pages.
pub(crate) fn map_for_reading(fd: &OwnedFd, len: usize) -> Result<Mapping> {
    map_file_for_reading(fd, len, PageSize::Ordinary)
}
