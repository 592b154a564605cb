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
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
use crate::error::limit::Limit;
use crate::error::{Result, Subject};

/// Gives the object its size and reserves the memory, so that a full `/dev/shm` is an error here,
/// and not a SIGBUS in whoever touches the page.
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
pub(crate) fn reserve(fd: impl AsFd, size: usize) -> Result<()> {
    let refused = |call, errno| failed(call, errno, Subject::Bytes(size));
    check_memory(size)?;
    super::limits::check_file_size(size)?;
    let end = size as u64;
    fs::ftruncate(&fd, end).map_err(|errno| refused("ftruncate", errno))?;
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

/// Reserves the memory of the first `len` bytes of an object that another program may have made, if it
/// has not reserved it, or a peer has taken it away. What the object contains stays.
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
pub(crate) fn reserve_existing(fd: impl AsFd, len: usize) -> Result<()> {
    /// What the system counts the memory of a file in.
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
        // It is not known whether it is reserved.
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(failed("fallocate", errno, Subject::Bytes(len))),
    }
}

/// Returns an error for more than the machine has: to try would use up all there is.
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
fn check_memory(size: usize) -> Result<()> {
    // Every machine has memory for a step, so it need not be asked.
    if size as u64 <= STEP {
        return Ok(());
    }
    let total = super::limits::ram_and_swap();
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

/// Reserves the memory up to here, of an object that need not be as large.
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
fn allocate(fd: impl AsFd, end: u64) -> io::Result<()> {
    let (mut start, mut step) = (0, STEP);
    while start < end {
        let len = step.min(end - start);
        match fs::fallocate(&fd, fs::FallocateFlags::KEEP_SIZE, start, len) {
            Ok(()) => start += len,
            // What takes longer than the time between two signals is never done.
            Err(Errno::INTR) => step = (step / 2).max(SMALLEST_STEP),
            Err(errno) => return Err(errno),
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

/// Not every system can.
#[cfg(any(not(target_os = "linux"), shmem_apple_rules))]
#[expect(clippy::unnecessary_wraps, reason = "on Linux it can fail")]
pub(crate) fn reserve_existing(_fd: impl AsFd, _len: usize) -> Result<()> {
    Ok(())
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
