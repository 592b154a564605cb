//! Sets the size of files and reserves their space.
//!
//! Space is reserved when a file is created, so that a full file system causes an error here, and not
//! SIGBUS in a process that accesses the page later.

use rustix::fd::AsFd;
use rustix::fs::{self, FallocateFlags};
use rustix::io::{self, Errno};

use crate::error::limit::Limit;
use crate::error::{Result, Subject};
use crate::sys::{failed, failed_for, limits};

/// How much is reserved by one call. A signal undoes a whole call, so in a program with a
/// fast timer a large one would never succeed.
pub(super) const STEP: u64 = 4 << 20;

/// How much is reserved by one call after signals interrupted others: one page of any machine.
const SMALLEST_STEP: u64 = 64 << 10;

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

/// Reserves the first `end` bytes of an object, which may be smaller.
pub(super) fn allocate(fd: impl AsFd, end: u64) -> io::Result<()> {
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

/// Reserves space by writing, on file systems without `fallocate`. Returns
/// how many bytes were written.
fn write_zeros(fd: impl AsFd, start: u64, len: u64) -> io::Result<u64> {
    let zeros = [0; 4096];
    let len = usize::try_from(len).unwrap_or(zeros.len()).min(zeros.len());
    match io::pwrite(fd, zeros.get(..len).unwrap_or(&zeros), start) {
        Err(Errno::INTR) => Ok(0),
        written => Ok(written? as u64),
    }
}
