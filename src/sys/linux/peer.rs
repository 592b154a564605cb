//! The peer of a Unix socket: who it is, and what it may send.
#![allow(unsafe_code)]

use core::mem::MaybeUninit;

use rustix::fd::{AsFd, AsRawFd};
use rustix::io;

use crate::sys::last_errno;
use crate::sys::socket::PeerCred;

/// `true` if [`peer_credentials`] reports the process.
pub(crate) const TELLS_PROCESSES: bool = true;

/// Returns who the peer is (`SO_PEERCRED`, `unix(7)`).
///
/// rustix has this call too, but its type for process ids excludes 0, which the kernel reports for
/// a process of a pid namespace that is not visible here.
pub(crate) fn peer_credentials(fd: impl AsFd) -> io::Result<PeerCred> {
    let mut found = MaybeUninit::<libc::ucred>::zeroed();
    let mut len = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or(0);
    let number = fd.as_fd().as_raw_fd();
    // SAFETY: the pointers are to local variables, and `len` is the size of the first one.
    let result = unsafe {
        libc::getsockopt(
            number,
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            found.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(last_errno());
    }
    // SAFETY: the structure was zeroed, and consists of integers, for which any bytes are valid.
    let found = unsafe { found.assume_init() };
    Ok(PeerCred {
        user: found.uid,
        process: u32::try_from(found.pid).ok().filter(|&pid| pid != 0),
    })
}

/// Sets whether the peer may send descriptors (`SO_PASSRIGHTS`, since Linux 6.16). A listener
/// passes the setting on to the connections that it accepts. Returns `true` if the system supports
/// it.
pub(crate) fn let_pass_descriptors(fd: impl AsFd, may: bool) -> bool {
    const SO_PASSRIGHTS: libc::c_int = if cfg!(any(target_arch = "sparc", target_arch = "sparc64"))
    {
        0x5c
    } else {
        83
    };
    let may = libc::c_int::from(may);
    let len = libc::socklen_t::try_from(size_of_val(&may)).unwrap_or(0);
    let number = fd.as_fd().as_raw_fd();
    // SAFETY: the pointer is to a local variable of `len` bytes, which the call only reads.
    unsafe {
        libc::setsockopt(
            number,
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const may).cast(),
            len,
        ) == 0
    }
}
