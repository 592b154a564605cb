//! Calls that take flags: what they make is close-on-exec from its first moment on.

use rustix::fd::{AsFd, OwnedFd};
use rustix::io;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::sys::above_stdio_quietly;

/// It keeps frames apart.
pub(crate) const KIND: SocketType = SocketType::SEQPACKET;

/// Whether frames have to be put together from their parts.
pub(crate) const IS_STREAM: bool = false;

/// No SIGPIPE for who sends to nobody.
pub(crate) const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;

/// What is received with a message is close-on-exec.
pub(crate) const CLOSE_ON_EXEC: RecvFlags = RecvFlags::CMSG_CLOEXEC;

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// A pipe.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((above_stdio_quietly(read)?, above_stdio_quietly(write)?))
}

/// A socket that does not wait.
pub(crate) fn socket() -> io::Result<OwnedFd> {
    above_stdio_quietly(net::socket_with(AddressFamily::UNIX, KIND, FLAGS, None)?)
}

/// Accepts a connection that does not wait.
pub(crate) fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    above_stdio_quietly(net::accept_with(listener, FLAGS)?)
}
