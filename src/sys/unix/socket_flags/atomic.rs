//! Calls that take flags: a new descriptor is close-on-exec from the start.

use rustix::fd::{AsFd, OwnedFd};
use rustix::io;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::sys::above_stdio_quietly;

/// Preserves the boundaries of frames.
pub(crate) const KIND: SocketType = SocketType::SEQPACKET;

/// Whether a frame can arrive in parts.
pub(crate) const IS_STREAM: bool = false;

/// Prevents SIGPIPE when the peer has closed the connection.
pub(crate) const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;

/// Makes received descriptors close-on-exec.
pub(crate) const CLOSE_ON_EXEC: RecvFlags = RecvFlags::CMSG_CLOEXEC;

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Creates a pipe. Returns its read end and its write end.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((above_stdio_quietly(read)?, above_stdio_quietly(write)?))
}

/// Creates a non-blocking socket.
pub(crate) fn socket() -> io::Result<OwnedFd> {
    above_stdio_quietly(net::socket_with(AddressFamily::UNIX, KIND, FLAGS, None)?)
}

/// Accepts a connection as a non-blocking socket.
pub(crate) fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    above_stdio_quietly(net::accept_with(listener, FLAGS)?)
}
