//! Sets the size of files and reserves their space.
//!
//! Space is reserved when a file is created, so that a full file system causes an error here, and not
//! SIGBUS in a process that accesses the page later.

use rustix::fd::AsFd;
use rustix::fs;
use rustix::io::{self, Errno};

use super::allocate::{STEP, allocate};
use crate::error::limit::Limit;
use crate::error::{Result, Subject};
use crate::sys::{failed, failed_for, limits};

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
