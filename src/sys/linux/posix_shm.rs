//! The size and memory of POSIX shared memory objects.

use rustix::fd::AsFd;
use rustix::fs;
use rustix::io::Errno;

use super::reservation::{STEP, allocate, reserve_file};
use crate::error::limit::Limit;
use crate::error::{Error, Result, Subject};
use crate::sys::{failed, failed_for, limits};

/// Sets the size of a new object and reserves its memory.
pub(crate) fn reserve(fd: impl AsFd, size: usize) -> Result<()> {
    check_memory(size)?;
    reserve_file(fd, size, limits::for_dev_shm)
}

/// Reserves the memory of the first `len` bytes of an existing object, unless all of it is
/// reserved. Another program may have created the object without reserving memory, or freed it
/// since. The content does not change.
pub(crate) fn reserve_existing(fd: impl AsFd, len: usize) -> Result<()> {
    /// The unit of `st_blocks`, in bytes.
    const BLOCK: u64 = 512;

    let stat = fs::fstat(&fd).map_err(|errno| failed("fstat", errno, Subject::Nothing))?;
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
    match allocate(fd, len as u64) {
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

/// Returns an error for more memory than the machine has. Trying to reserve it would use up all
/// there is.
fn check_memory(size: usize) -> Result<()> {
    // Every machine has memory for one step, so the total need not be queried.
    if size as u64 <= STEP {
        return Ok(());
    }
    let total = limits::ram_and_swap();
    if size as u64 > total {
        return Err(Error::Os {
            call: "fallocate",
            errno: Errno::NOSPC.raw_os_error(),
            subject: Subject::Bytes(size),
            limit: Some(Limit::Memory { total }),
        });
    }
    Ok(())
}
