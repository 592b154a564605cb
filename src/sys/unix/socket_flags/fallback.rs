//! Apple's rules, which Haiku, illumos and Solaris share in part: few calls take flags, so what they
//! make becomes close-on-exec a moment later, and sockets are streams.
//!
//! The other rules of Apple's, and where they are kept to:
//!
//! * the size of a POSIX object can be set once, before its name is removed, becomes whole pages of
//!   16 KiB, and is told so by `fstat`: `posix_shm`, and `Memory::may_have` in `fd`; an id or a
//!   description is what tells the exact size (`providers/served.rs`);
//! * names have 31 bytes at most (`PSHMNAMLEN`): ids have 19;
//! * `fstat` tells no device and no inode of a POSIX object, so that all look the same;
//! * `poll` reports a hang-up only to who asks for `POLLHUP`: `socket::hung_up`.
//!
//! On Linux all of it can be forced by `--cfg shmem_apple_rules`, to be run there
//! (`make apple-rules`).

use rustix::fd::{AsFd, OwnedFd};
use rustix::io;
#[cfg(target_vendor = "apple")]
use rustix::net::sockopt;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketType};

use crate::sys::above_stdio_quietly;

/// There is no `SOCK_SEQPACKET` for Unix sockets.
pub(crate) const KIND: SocketType = SocketType::STREAM;

/// Whether frames have to be put together from their parts.
pub(crate) const IS_STREAM: bool = true;

/// No SIGPIPE for who sends to nobody: Apple's option of the socket says so.
#[cfg(target_vendor = "apple")]
pub(crate) const NO_SIGNAL: SendFlags = SendFlags::empty();
#[cfg(not(target_vendor = "apple"))]
pub(crate) const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;

/// There is no `MSG_CMSG_CLOEXEC`.
pub(crate) const CLOSE_ON_EXEC: RecvFlags = RecvFlags::empty();

/// A pipe.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe()?;
    let ends = (above_stdio_quietly(read)?, above_stdio_quietly(write)?);
    io::fcntl_setfd(&ends.0, io::FdFlags::CLOEXEC)?;
    io::fcntl_setfd(&ends.1, io::FdFlags::CLOEXEC)?;
    Ok(ends)
}

/// A socket that does not wait.
pub(crate) fn socket() -> io::Result<OwnedFd> {
    prepared(net::socket(AddressFamily::UNIX, KIND, None)?)
}

/// Accepts a connection that does not wait.
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
