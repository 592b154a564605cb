//! The size of POSIX shared memory objects. Their memory is not reserved: not every system can do
//! that.

use rustix::fd::AsFd;
#[cfg(not(shmem_apple_rules))]
use rustix::fs::ftruncate as set_size;

use crate::error::{Result, Subject};
use crate::sys::{failed, limits};

/// Sets the size of a new object.
pub(crate) fn reserve(fd: impl AsFd, size: usize) -> Result<()> {
    limits::check_file_size(size)?;
    set_size(fd, size as u64).map_err(|errno| failed("ftruncate", errno, Subject::Bytes(size)))
}

/// Does nothing.
#[expect(clippy::unnecessary_wraps, reason = "the Linux version can fail")]
pub(crate) fn reserve_existing(_fd: impl AsFd, _len: usize) -> Result<()> {
    Ok(())
}

/// Acts like Apple's kernel: the size can be set only once, and is rounded up to whole pages of 16
/// KiB.
#[cfg(shmem_apple_rules)]
fn set_size(fd: impl AsFd, size: u64) -> rustix::io::Result<()> {
    let whole_pages = size.next_multiple_of(16 << 10);
    match rustix::fs::fstat(&fd)?.st_size {
        0 => rustix::fs::ftruncate(fd, whole_pages),
        _ => Err(rustix::io::Errno::INVAL),
    }
}
