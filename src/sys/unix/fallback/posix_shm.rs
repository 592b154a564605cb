//! The size of POSIX shared memory objects. Their memory is not reserved: not every system can do
//! that.

use rustix::fd::AsFd;
#[cfg(not(shmem_apple_rules))]
use rustix::fs::ftruncate as set_size;

#[cfg(all(feature = "std", not(target_os = "solaris")))]
use crate::error::limit::Limit;
use crate::error::{Result, Subject};
#[cfg(all(feature = "std", not(target_os = "solaris")))]
use crate::sys::write_at;
use crate::sys::{failed, limits};

/// Sets the size of a new object.
pub(crate) fn reserve(fd: impl AsFd, size: usize) -> Result<()> {
    limits::check_file_size(size)?;
    set_size(fd, size as u64).map_err(|errno| failed("ftruncate", errno, Subject::Bytes(size)))
}

/// Sets the size of a new file and reserves its space, by writing to all of it. `limit_for` is the function of
/// [`limits`] for the file.
#[cfg(all(feature = "std", not(target_os = "solaris")))]
pub(crate) fn reserve_file(
    fd: impl AsFd,
    size: usize,
    limit_for: impl Fn(rustix::io::Errno) -> Option<Limit>,
) -> Result<()> {
    let zeros = [0; 4096];
    limits::check_file_size(size)?;
    for start in (0..size).step_by(zeros.len()) {
        let len = zeros.len().min(size - start);
        write_at(&fd, start, zeros.get(..len).unwrap_or(&zeros), &limit_for)?;
    }
    Ok(())
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
