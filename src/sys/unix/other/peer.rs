//! The peer of a Unix socket: who it is, and what it may send.
#![allow(unsafe_code)]

use rustix::fd::AsFd;
#[cfg(any(
    target_vendor = "apple",
    target_os = "dragonfly",
    target_os = "freebsd",
    target_os = "illumos",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "solaris"
))]
use rustix::fd::AsRawFd;
#[cfg(any(
    target_vendor = "apple",
    target_os = "dragonfly",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd"
))]
use rustix::fd::BorrowedFd;
use rustix::io;

use crate::sys::socket::PeerCred;

/// `true` if [`peer_credentials`] reports the process.
pub(crate) const TELLS_PROCESSES: bool = cfg!(target_vendor = "apple");

/// Returns who the peer is (`getpeereid(3)`).
#[cfg(any(
    target_vendor = "apple",
    target_os = "dragonfly",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd"
))]
pub(crate) fn peer_credentials(fd: impl AsFd) -> io::Result<PeerCred> {
    let (mut user, mut group) = (0, 0);
    let number = fd.as_fd().as_raw_fd();
    // SAFETY: both pointers are to local variables of the types that the call writes.
    match unsafe { libc::getpeereid(number, &raw mut user, &raw mut group) } {
        0 => Ok(PeerCred {
            user,
            process: process_of(fd.as_fd()),
        }),
        _ => Err(crate::sys::last_errno()),
    }
}

/// Returns the process id of the peer (`LOCAL_PEERPID`).
#[cfg(target_vendor = "apple")]
fn process_of(fd: BorrowedFd<'_>) -> Option<u32> {
    let mut process: libc::pid_t = 0;
    let mut len = libc::socklen_t::try_from(size_of::<libc::pid_t>()).unwrap_or(0);
    // SAFETY: the pointers are to local variables, and `len` is the size of the first one.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_LOCAL,
            libc::LOCAL_PEERPID,
            (&raw mut process).cast(),
            &raw mut len,
        )
    };
    u32::try_from(process)
        .ok()
        .filter(|&process| result == 0 && process != 0)
}

/// Returns `None`: the system does not report the process.
#[cfg(any(
    target_os = "dragonfly",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd"
))]
fn process_of(_fd: BorrowedFd<'_>) -> Option<u32> {
    None
}

/// Returns who the peer is (`getpeerucred(3C)`).
#[cfg(any(target_os = "illumos", target_os = "solaris"))]
pub(crate) fn peer_credentials(fd: impl AsFd) -> io::Result<PeerCred> {
    let mut found = core::ptr::null_mut();
    let number = fd.as_fd().as_raw_fd();
    // SAFETY: the pointer is to a local variable. It contains null, so the call allocates the
    // structure and stores its address there.
    if unsafe { libc::getpeerucred(number, &raw mut found) } != 0 {
        return Err(crate::sys::last_errno());
    }
    // SAFETY: the call above succeeded, so `found` points to a filled structure.
    let user = unsafe { libc::ucred_geteuid(found) };
    // SAFETY: the call above allocated the structure for this function, and it is not used
    // afterwards.
    unsafe { libc::ucred_free(found) };
    match user {
        libc::uid_t::MAX => Err(io::Errno::NOTSUP),
        user => Ok(PeerCred {
            user,
            process: None,
        }),
    }
}

/// Returns an error: it is not known how to ask this system, so no peer is trusted.
#[cfg(not(any(
    target_vendor = "apple",
    target_os = "dragonfly",
    target_os = "freebsd",
    target_os = "illumos",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "solaris"
)))]
pub(crate) fn peer_credentials(_fd: impl AsFd) -> io::Result<PeerCred> {
    Err(io::Errno::NOTSUP)
}

/// Returns `false`: the system cannot prevent a peer from sending descriptors.
pub(crate) fn let_pass_descriptors(_fd: impl AsFd, _may: bool) -> bool {
    false
}
