//! The size and memory of POSIX shared memory objects, and of files.
//!
//! Memory is reserved when an object is created, so that a full `/dev/shm` causes an error here,
//! and not SIGBUS in a process that accesses the page later. It is the same with the space of files.

use rustix::fd::AsFd;
use rustix::fs::{self, FallocateFlags};
use rustix::io::{self, Errno};

use crate::error::limit::Limit;
use crate::error::{Error, Result, Subject};
use crate::sys::{failed, failed_for, limits};

/// How much memory is reserved by one call. A signal undoes a whole call, so in a program with a
/// fast timer a large one would never succeed.
const STEP: u64 = 4 << 20;

/// How much is reserved by one call after signals interrupted others: one page of any machine.
const SMALLEST_STEP: u64 = 64 << 10;

/// Sets the size of a new object and reserves its memory.
pub(crate) fn reserve(fd: impl AsFd, size: usize) -> Result<()> {
    check_memory(size)?;
    reserve_file(fd, size, limits::for_dev_shm)
}

/// Sets the size of a new file and reserves its space. `limit_for` is the function of [`limits`] for
/// the file.
pub(crate) fn reserve_file(
    fd: impl AsFd,
    size: usize,
    limit_for: impl Fn(Errno) -> Option<Limit>,
) -> Result<()> {
    let refused = |call, errno| failed_for(call, errno, Subject::Bytes(size), &limit_for);
    limits::check_file_size(size)?;
    let end = size as u64;
    fs::ftruncate(&fd, end).map_err(|errno| failed("ftruncate", errno, Subject::Bytes(size)))?;
    match allocate(&fd, end) {
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

/// Reserves the first `end` bytes of an object, which may be smaller.
fn allocate(fd: impl AsFd, end: u64) -> io::Result<()> {
    let (mut start, mut step) = (0, STEP);
    while start < end {
        let len = step.min(end - start);
        match fs::fallocate(&fd, FallocateFlags::KEEP_SIZE, start, len) {
            Ok(()) => start += len,
            // A call that takes longer than the time between two signals never completes.
            Err(Errno::INTR) => step = (step / 2).max(SMALLEST_STEP),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
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
