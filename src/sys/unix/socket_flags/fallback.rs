//! Apple's systems, of which Haiku, illumos and Solaris share some rules: few calls take flags, so
//! a new descriptor becomes close-on-exec a moment later, and sockets are streams.
//!
//! Other rules of Apple's systems, and where they matter:
//!
//! * The size of a POSIX object can be set only once, before its name is removed. It is rounded up
//!   to whole pages of 16 KiB, and `fstat` reports the rounded size: see `fallback::posix_shm` and
//!   `Memory::may_have`. The exact size comes from an id or a description (`backends/served.rs`).
//! * Names have at most 31 bytes (`PSHMNAMLEN`). Ids of this crate have 19.
//! * `fstat` reports neither device nor inode of a POSIX object, so all objects look the same.
//! * `poll` reports a hang-up only if `POLLHUP` was requested: see `socket::hung_up`.
//!
//! `--cfg shmem_apple_rules` selects all of this on Linux, so that tests can run it (`make
//! apple-rules`).

use rustix::fd::{AsFd, OwnedFd};
use rustix::io;
#[cfg(target_vendor = "apple")]
use rustix::net::sockopt;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketType};

use crate::sys::above_stdio_quietly;

/// Unix sockets have no `SOCK_SEQPACKET`.
pub(crate) const KIND: SocketType = SocketType::STREAM;

/// Whether a frame can arrive in parts.
pub(crate) const IS_STREAM: bool = true;

/// Prevents SIGPIPE when the peer has closed the connection. On Apple's systems the socket option
/// `SO_NOSIGPIPE` does so.
#[cfg(target_vendor = "apple")]
pub(crate) const NO_SIGNAL: SendFlags = SendFlags::empty();
#[cfg(not(target_vendor = "apple"))]
pub(crate) const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;

/// There is no `MSG_CMSG_CLOEXEC`.
pub(crate) const CLOSE_ON_EXEC: RecvFlags = RecvFlags::empty();

/// Creates a pipe. Returns its read end and its write end.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe()?;
    let ends = (above_stdio_quietly(read)?, above_stdio_quietly(write)?);
    io::fcntl_setfd(&ends.0, io::FdFlags::CLOEXEC)?;
    io::fcntl_setfd(&ends.1, io::FdFlags::CLOEXEC)?;
    Ok(ends)
}

/// Creates a non-blocking socket.
pub(crate) fn socket() -> io::Result<OwnedFd> {
    prepared(net::socket(AddressFamily::UNIX, KIND, None)?)
}

/// Accepts a connection as a non-blocking socket.
pub(crate) fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    prepared(net::accept(listener)?)
}

fn prepared(fd: OwnedFd) -> io::Result<OwnedFd> {
    let fd = above_stdio_quietly(fd)?;
    io::fcntl_setfd(&fd, io::FdFlags::CLOEXEC)?;
    io::ioctl_fionbio(&fd, true)?;
    #[cfg(target_vendor = "apple")]
    sockopt::set_socket_nosigpipe(&fd, true)?;
    Ok(fd)
}
