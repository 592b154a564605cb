//! The size and memory of POSIX shared memory objects.

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs;
use rustix::io::Errno;

use super::allocate::{STEP, allocate, check_memory};
use super::reopen::writable;
use super::reservation::reserve_file;
use crate::error::{Result, Subject};
use crate::sys::{failed, failed_for, limits};

/// Sets the size of a new object and reserves its memory.
pub(crate) fn reserve(fd: impl AsFd, size: usize) -> Result<()> {
    check_memory(size)?;
    reserve_file(fd, size, limits::for_dev_shm)
}

/// Reserves the memory of the first `len` bytes of an existing object, unless all of it is
/// reserved. Another program may have created the object without reserving memory, or freed it
/// since. The content does not change.
pub(crate) fn reserve_existing(fd: &OwnedFd, len: usize) -> Result<()> {
    /// The unit of `st_blocks`, in bytes.
    const BLOCK: u64 = 512;

    let stat = fs::fstat(fd).map_err(|errno| failed("fstat", errno, Subject::Nothing))?;
    #[allow(
        clippy::useless_conversion,
        reason = "the types differ from machine to machine"
    )]
    let (size, blocks) = (
        u64::try_from(stat.st_size).unwrap_or(0),
        u64::try_from(stat.st_blocks).unwrap_or(0),
    );
    if blocks.saturating_mul(BLOCK) >= size {
        return Ok(());
    }
    check_memory(len)?;
    let reopened = writable(fd)?;
    match allocate(reopened.as_ref().unwrap_or(fd), 0..len as u64, STEP) {
        // If the file system cannot reserve memory, it is not known whether it is reserved.
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(failed_for(
            "fallocate",
            errno,
            Subject::Bytes(len),
            limits::for_dev_shm,
        )),
    }
}
