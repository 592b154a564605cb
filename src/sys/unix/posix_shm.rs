//! The memory of POSIX shared memory objects: reserved when they are made.

use rustix::fd::AsFd;
#[cfg(any(all(target_os = "linux", not(shmem_apple_rules)), shmem_apple_rules))]
use rustix::fs;
#[cfg(any(target_os = "linux", shmem_apple_rules))]
use rustix::io;
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
use rustix::io::Errno;

use super::failed;
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
use crate::error::Error;
use crate::error::{Result, Subject};
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
use crate::limit::Limit;

/// Gives the object its size and reserves the memory, so that a full `/dev/shm` is an error here,
/// and not a SIGBUS in whoever touches the page.
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
pub(crate) fn reserve(fd: impl AsFd, size: usize) -> Result<()> {
    let refused = |call, errno| failed(call, errno, Subject::Bytes(size));
    let end = size as u64;
    // Every machine has memory for a step, so it need not be asked.
    let total = if end > STEP {
        super::limits::ram_and_swap()
    } else {
        STEP
    };
    if end > total {
        // It cannot be had, and to try would use up all there is.
        return Err(Error::Os {
            call: "fallocate",
            errno: Errno::NOSPC.raw_os_error(),
            subject: Subject::Bytes(size),
            limit: Some(Limit::Memory { total }),
        });
    }
    super::limits::check_file_size(size)?;
    fs::ftruncate(&fd, end).map_err(|errno| refused("ftruncate", errno))?;
    let (mut start, mut step) = (0, STEP);
    while start < end {
        let len = step.min(end - start);
        match fs::fallocate(&fd, fs::FallocateFlags::empty(), start, len) {
            Ok(()) => start += len,
            // What takes longer than the time between two signals is never done.
            Err(Errno::INTR) => step = (step / 2).max(SMALLEST_STEP),
            Err(Errno::OPNOTSUPP) => {
                start += write_zeros(&fd, start, len).map_err(|errno| refused("pwrite", errno))?;
            }
            Err(errno) => return Err(refused("fallocate", errno)),
        }
    }
    Ok(())
}

/// How much is reserved by one call, until a signal interrupts one: that undoes the whole call, so that
/// a large one would never end in a program with a fast timer.
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
const STEP: u64 = 4 << 20;

/// How much is reserved by one call at least: one page of any machine.
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
const SMALLEST_STEP: u64 = 64 << 10;

/// Reserves by writing, where `/dev/shm` is on a file system that cannot do it otherwise. Says how
/// far it got.
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
fn write_zeros(fd: impl AsFd, start: u64, len: u64) -> io::Result<u64> {
    let zeros = [0; 4096];
    let len = usize::try_from(len).unwrap_or(zeros.len()).min(zeros.len());
    match io::pwrite(fd, zeros.get(..len).unwrap_or(&zeros), start) {
        Err(Errno::INTR) => Ok(0),
        written => Ok(written? as u64),
    }
}

/// Gives the object its size. The memory is not reserved: not every system can.
#[cfg(any(not(target_os = "linux"), shmem_apple_rules))]
pub(crate) fn reserve(fd: impl AsFd, size: usize) -> Result<()> {
    super::limits::check_file_size(size)?;
    set_size(fd, size as u64).map_err(|errno| failed("ftruncate", errno, Subject::Bytes(size)))
}

#[cfg(all(not(target_os = "linux"), not(shmem_apple_rules)))]
use rustix::fs::ftruncate as set_size;

/// What Apple's kernel makes of it: a size can be set once, and becomes whole pages of 16 KiB.
#[cfg(shmem_apple_rules)]
fn set_size(fd: impl AsFd, size: u64) -> io::Result<()> {
    let whole_pages = size.next_multiple_of(16 << 10);
    match fs::fstat(&fd)?.st_size {
        0 => fs::ftruncate(fd, whole_pages),
        _ => Err(io::Errno::INVAL),
    }
}
