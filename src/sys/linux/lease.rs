//! Whether anybody else has a file open: `fcntl(2)`, `F_SETLEASE`.
//!
//! The kernel gives a write lease only if the file is open once, and as long as one is held, nobody
//! else can open the file. What counts are open files, not descriptors: a mapping keeps the file open
//! that it was made of, after its descriptor is closed. What was duplicated or inherited by a forked
//! child is the same open file, and does not show.
#![allow(unsafe_code)]

use core::ffi::c_int;

use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{DupFlags, dup3};
use rustix::path::DecInt;

use crate::error::{Result, Subject};
use crate::sys::{above_stdio_quietly, failed};
use crate::util::fixed_str::FixedStr;

/// Which signal tells of a lease that is to be given back (`fcntl(2)`). The crate libc does not have it
/// for every machine, on all of which it is 10.
const F_SETSIG: c_int = 10;

/// Opens the file of a new memfd anew, and puts it in the place of the old one, which the kernel does
/// not count among the files that are open for writing.
pub(crate) fn make_countable(fd: &mut OwnedFd) -> Result<()> {
    let number = DecInt::from_fd(&*fd);
    let path = FixedStr::<32>::joined(&[b"/proc/thread-self/fd/", number.as_bytes()]);
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let again = openat(CWD, path.as_bytes(), flags, Mode::empty())
        .and_then(above_stdio_quietly)
        .map_err(|errno| failed("open", errno, Subject::Nothing))?;
    // rustix names this flag on Linux only; the kernel is the same.
    let flags = DupFlags::from_bits_retain(OFlags::CLOEXEC.bits());
    dup3(&again, fd, flags).map_err(|errno| failed("dup3", errno, Subject::Nothing))
}

/// Keeps everybody out if nobody else has the file open.
pub(crate) fn take(fd: &OwnedFd) -> bool {
    // Who wants to open the file has SIGIO sent to us, which kills. The default of this one is to do
    // nothing. The kernel forgets it with each lease that is given back.
    fcntl(fd, F_SETSIG, libc::SIGURG) != -1 && fcntl(fd, libc::F_SETLEASE, libc::F_WRLCK) != -1
}

/// Lets others in again. `false` if one has got in meanwhile.
pub(crate) fn give_back(fd: &OwnedFd) -> bool {
    fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) != -1
}

fn fcntl(fd: &OwnedFd, command: c_int, argument: c_int) -> c_int {
    // SAFETY: the descriptor is open, and neither command takes a pointer.
    unsafe { libc::fcntl(fd.as_raw_fd(), command, argument) }
}

#[cfg(all(test, feature = "std", target_os = "linux", not(shmem_android_rules)))]
mod tests;
