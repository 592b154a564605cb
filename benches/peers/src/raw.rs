//! What the rows do with raw system calls.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use bench::Result;
use bench::raw::{self, Pages};

/// Creates a sealed memfd.
pub(crate) fn memfd(len: usize) -> Result<OwnedFd> {
    raw::memfd(c"raw", len)
}

/// Creates, maps, writes if asked to, and drops a memfd.
pub(crate) fn life(len: usize, write: bool) -> Result {
    let fd = memfd(len)?;
    let mut pages = Pages::shared(&fd, len)?;
    if write {
        pages.write(len);
    }
    Ok(())
}

/// Creates a memfd, maps it, copies these bytes into it, and drops it.
pub(crate) fn holding(bytes: &[u8]) -> Result {
    let fd = memfd(bytes.len())?;
    Pages::shared(&fd, bytes.len())?.copy(0, bytes);
    Ok(())
}

/// Opens and maps a path in `/proc`, and drops both.
pub(crate) fn attach(path: &CStr, len: usize) -> Result {
    let fd = raw::open(path)?;
    Pages::shared(&fd, len)?;
    Ok(())
}

/// Maps a duplicate of a descriptor, and drops both.
pub(crate) fn duplicate(fd: &OwnedFd, len: usize) -> Result {
    let fd = rustix::io::fcntl_dupfd_cloexec(fd, 0)?;
    Pages::shared(&fd, len)?;
    Ok(())
}
