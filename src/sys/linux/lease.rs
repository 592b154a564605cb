//! Whether anything else has a file open: `fcntl(2)`, `F_SETLEASE`.
//!
//! The kernel grants a write lease only if the file is open exactly once. While the lease is held,
//! no other process can open the file. Open files count, not descriptors: a mapping keeps its file open
//! after the descriptor is closed. Duplicated descriptors, and those that a forked child inherits,
//! belong to the same open file and are not noticed.
#![allow(unsafe_code)]

use core::ffi::c_int;

use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::io::{DupFlags, dup3};

use super::reopen::reopen;
use crate::error::{Result, Subject};
use crate::sys::failed;

/// Selects the signal that is sent when a process opens a leased file (`fcntl(2)`). The
/// crate libc does not define it for every machine; it is 10 on all of them.
const F_SETSIG: c_int = 10;

/// Reopens a new memfd and replaces the descriptor by the new one. The kernel does not count the
/// open file that `memfd_create` returns among those that are open for writing.
pub(crate) fn make_countable(fd: &mut OwnedFd) -> Result<()> {
    let reopened =
        reopen(&*fd, OFlags::RDWR).map_err(|errno| failed("open", errno, Subject::Nothing))?;
    // rustix defines this flag for `dup3` on Linux only; Android's kernel is the same.
    let flags = DupFlags::from_bits_retain(OFlags::CLOEXEC.bits());
    dup3(&reopened, fd, flags).map_err(|errno| failed("dup3", errno, Subject::Nothing))
}

/// Takes a write lease, which prevents others from opening the file. Returns `false` if the file is
/// open elsewhere or the system refuses.
pub(crate) fn take(fd: &OwnedFd) -> bool {
    // When another process tries to open the file, the kernel sends a signal to this one: by
    // default SIGIO, which kills it. SIGURG is ignored by default. The choice lasts until the lease
    // ends.
    fcntl(fd, F_SETSIG, libc::SIGURG) != -1 && fcntl(fd, libc::F_SETLEASE, libc::F_WRLCK) != -1
}

/// Gives the lease back. Returns `false` if the kernel has broken it in the meantime, because
/// another process opened the file.
pub(crate) fn give_back(fd: &OwnedFd) -> bool {
    fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) != -1
}

fn fcntl(fd: &OwnedFd, command: c_int, argument: c_int) -> c_int {
    // SAFETY: `fd` is open, and the commands of the callers above take an integer, not a pointer.
    unsafe { libc::fcntl(fd.as_raw_fd(), command, argument) }
}

#[cfg(all(test, feature = "std", target_os = "linux", not(shmem_android_rules)))]
mod tests;
