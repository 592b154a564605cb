//! The size and memory of POSIX shared memory objects.
//!
//! Memory is reserved when an object is created, so that a full `/dev/shm` causes an error here,
//! and not SIGBUS in a process that accesses the page later.

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs;
use rustix::io::{self, Errno};

use super::allocate::{STEP, allocate, check_memory};
use super::reopen::writable;
use crate::error::{Result, Subject};
use crate::sys::{failed, failed_for, limits};

/// Sets the size of a new object and reserves its memory.
pub(crate) fn reserve(fd: impl AsFd, size: usize) -> Result<()> {
    let refused = |call, errno| failed_for(call, errno, Subject::Bytes(size), limits::for_dev_shm);
    check_memory(size)?;
    limits::check_file_size(size)?;
    let end = size as u64;
    fs::ftruncate(&fd, end).map_err(|errno| failed("ftruncate", errno, Subject::Bytes(size)))?;
    match allocate(&fd, 0..end, STEP) {
        Err(Errno::OPNOTSUPP) => {
            let mut start = 0;
            while start < end {
                start += write_zeros(&fd, start, end - start)
                    .map_err(|errno| refused("pwrite", errno))?;
            }
            Ok(())
        }
        done => done.map_err(|errno| refused("fallocate", errno)),
    }
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

/// Reserves memory by writing, where `/dev/shm` is on a file system without `fallocate`. Returns
/// how many bytes were written.
fn write_zeros(fd: impl AsFd, start: u64, len: u64) -> io::Result<u64> {
    let zeros = [0; 4096];
    let len = usize::try_from(len).unwrap_or(zeros.len()).min(zeros.len());
    match io::pwrite(fd, zeros.get(..len).unwrap_or(&zeros), start) {
        Err(Errno::INTR) => Ok(0),
        written => Ok(written? as u64),
    }
}
