//! `errno` after calls of the C library that rustix does not have.
#![allow(unsafe_code)]

#[cfg(any(target_os = "solaris", target_os = "illumos"))]
use libc::___errno as location;
#[cfg(any(target_os = "netbsd", target_os = "openbsd", target_os = "android"))]
use libc::__errno as location;
#[cfg(any(target_os = "linux", target_os = "dragonfly"))]
use libc::__errno_location as location;
#[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
use libc::__error as location;

use rustix::io::Errno;

/// Returns `errno` of this thread. The caller has just made a call that failed.
pub(crate) fn last_errno() -> Errno {
    // SAFETY: the function has no preconditions.
    let errno = unsafe { location() };
    // SAFETY: the function returns a pointer to the `errno` of this thread, which is valid as long
    // as the thread runs.
    Errno::from_raw_os_error(unsafe { *errno })
}
