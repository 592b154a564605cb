//! `shm_open`, with the flags that it should always have had, and space reserved for good.

use core::ffi::CStr;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, Mode};
use rustix::io;
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
use rustix::io::Errno;

use super::{above_stdio_quietly, failed};
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
use crate::error::Error;
use crate::error::{Result, Subject};
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
use crate::limit::Limit;

/// How a name is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// It must not exist yet.
    New,
    /// It must exist.
    Existing,
}

/// Opens the object with this name (`/` and one component), close-on-exec.
pub(crate) fn shm_open(name: &CStr, opening: Opening) -> io::Result<OwnedFd> {
    above_stdio_quietly(open(name, opening)?).inspect_err(|_| {
        if opening == Opening::New {
            // What was made is left behind by nobody else either.
            let _ = shm_unlink(name);
        }
    })
}

/// Everybody may put names into `/dev/shm`: a symbolic link is not followed, and a pipe or a device
/// does not make us wait.
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
fn open(name: &CStr, opening: Opening) -> io::Result<OwnedFd> {
    use fs::OFlags;
    let mut flags =
        OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    if opening == Opening::New {
        flags |= OFlags::CREATE | OFlags::EXCL;
    }
    // What shm_open(3) of the C libraries does. rustix does it too, but follows links.
    let path = crate::text::Text::<64>::joined(&[b"/dev/shm", name.to_bytes()]);
    fs::open(path.as_bytes(), flags, Mode::RUSR | Mode::WUSR)
}

#[cfg(any(not(target_os = "linux"), shmem_apple_rules))]
fn open(name: &CStr, opening: Opening) -> io::Result<OwnedFd> {
    use rustix::shm::OFlags;
    let flags = match opening {
        Opening::New => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
        Opening::Existing => OFlags::RDWR,
    };
    rustix::shm::open(name, flags, Mode::RUSR | Mode::WUSR)
}

/// Takes the name away. Who has the object open keeps it.
pub(crate) fn shm_unlink(name: &CStr) -> io::Result<()> {
    rustix::shm::unlink(name)
}

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
    let mut start = 0;
    while start < end {
        let len = STEP.min(end - start);
        match fs::fallocate(&fd, fs::FallocateFlags::empty(), start, len) {
            Ok(()) => start += len,
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP) => {
                start += write_zeros(&fd, start, len).map_err(|errno| refused("pwrite", errno))?;
            }
            Err(errno) => return Err(refused("fallocate", errno)),
        }
    }
    Ok(())
}

/// How much is reserved by one call. A signal ends a call with nothing done, so that a large one
/// would never come to its end in a program with a fast timer.
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
const STEP: u64 = 4 << 20;

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
