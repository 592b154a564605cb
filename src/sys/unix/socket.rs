//! Unix sockets that pass descriptors.

use alloc::vec::Vec;
use core::mem::MaybeUninit;
use core::time::Duration;
use std::io::{IoSlice, IoSliceMut};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{self, Errno};
use rustix::net::{
    self, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, sockopt,
};

use super::{above_stdio_quietly, poller, socket_flags};
use crate::sys::passed_fds::MOST_DESCRIPTORS;
pub(crate) use crate::sys::passed_fds::{PEEK_SHOWS_DESCRIPTORS, take_with_descriptors};
pub(crate) use crate::sys::peer::{TELLS_PROCESSES, let_pass_descriptors, peer_credentials};
use crate::sys::process_runs;

/// Whether a frame can arrive in parts.
pub(crate) const IS_STREAM: bool = socket_flags::IS_STREAM;

/// The size of the send buffer of a socket whose peer may not read, in bytes. Linux raises it to a
/// minimum that has space for a few frames. On other systems it must have space for one.
const LITTLE: usize = if cfg!(target_os = "linux") { 1 } else { 4096 };

/// Too many descriptors of this user are in flight: sent and not received yet.
#[cfg(not(target_os = "haiku"))]
pub(crate) const TOO_MANY_IN_FLIGHT: Errno = Errno::TOOMANYREFS;
/// Haiku has no error number of its own for this.
#[cfg(target_os = "haiku")]
pub(crate) const TOO_MANY_IN_FLIGHT: Errno = Errno::NOBUFS;

/// What is at the front of a socket's receive queue.
pub(crate) struct Peeked {
    /// The number of bytes, at most the size of the buffer.
    pub(crate) bytes: usize,
    /// The packet has more bytes than the buffer.
    pub(crate) overlong: bool,
    /// The message carries descriptors. Always `false` without [`PEEK_SHOWS_DESCRIPTORS`].
    pub(crate) has_descriptors: bool,
}

/// The descriptors that came with a message.
pub(crate) enum Passed {
    /// None. The message has been received.
    Nothing,
    /// One. The message has been received.
    One(OwnedFd),
    /// Several. The message may still be in the socket, with all of its descriptors.
    Several(Vec<OwnedFd>),
    /// At least one more than this process may have (`RLIMIT_NOFILE`). The message may still be in
    /// the socket.
    NoRoom,
}

/// Creates a non-blocking socket at the path, which must not exist.
pub(crate) fn bind(path: &Path) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let fd = socket_flags::socket()?;
    // The connections inherit this. So until a client has introduced itself, its connection
    // contains nothing that could block when it is closed.
    let_pass_descriptors(&fd, false);
    net::bind(&fd, &address)?;
    Ok(fd)
}

/// Listens on a bound socket.
pub(crate) fn listen(fd: impl AsFd) -> io::Result<()> {
    /// On Linux, connecting blocks while the queue is full. A short queue keeps clients from
    /// waiting behind thousands of others.
    const BACKLOG: i32 = if cfg!(target_os = "linux") { 64 } else { 4096 };
    net::listen(fd, BACKLOG)
}

/// The state of the socket at a path.
#[derive(Debug)]
pub(crate) enum Listener {
    /// The file does not exist.
    Absent,
    /// No process listens.
    Dead,
    /// A process listens. `process` tells whether the one that called `listen` still runs, if
    /// known.
    Present { process: Option<bool> },
    /// A process listens on a socket of another type.
    OtherKind,
    /// Connecting failed for another reason.
    Unknown(Errno),
}

/// Connects to the socket at the path to find out whether a process listens.
pub(crate) fn listener_at(path: &Path) -> Listener {
    let connected = SocketAddrUnix::new(path).and_then(|address| {
        let fd = socket_flags::socket()?;
        net::connect(&fd, &address)?;
        Ok(fd)
    });
    match connected {
        Ok(fd) => {
            let process = peer_credentials(&fd).ok().and_then(|other| other.process);
            Listener::Present {
                process: process.and_then(process_runs),
            }
        }
        Err(Errno::NOENT) => Listener::Absent,
        Err(Errno::CONNREFUSED) => Listener::Dead,
        // The backlog is full.
        Err(Errno::AGAIN | Errno::INPROGRESS) => Listener::Present { process: None },
        Err(Errno::PROTOTYPE) => Listener::OtherKind,
        Err(errno) => Listener::Unknown(errno),
    }
}

/// Accepts a connection. Does not block: fails with `EAGAIN` if there is none.
pub(crate) fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    socket_flags::accept(listener)
}

/// Connects to the socket at the path. Connecting, sending and receiving block for `timeout` and
/// then fail with `EAGAIN`.
pub(crate) fn connect(path: &Path, timeout: Duration) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let fd = socket_flags::socket()?;
    io::ioctl_fionbio(&fd, false)?;
    set_timeout(&fd, timeout)?;
    io::retry_on_intr(|| net::connect(&fd, &address))?;
    Ok(fd)
}

/// Returns why no socket can be created, if that is so.
pub(crate) fn creation_error() -> Option<Errno> {
    socket_flags::socket().err()
}

/// Sets how long sending and receiving block before they fail with `EAGAIN`.
pub(crate) fn set_timeout(fd: impl AsFd, timeout: Duration) -> io::Result<()> {
    sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(timeout))?;
    sockopt::set_socket_timeout(&fd, sockopt::Timeout::Send, Some(timeout))
}

/// Makes the send buffer so small that the kernel stores only a few messages that the peer has not
/// read.
pub(crate) fn shrink_send_buffer(fd: impl AsFd) {
    // If this fails, the buffer keeps its size.
    let _ = sockopt::set_socket_send_buffer_size(fd, LITTLE);
}

/// Sends all bytes in one message, with the descriptor.
pub(crate) fn send(fd: impl AsFd, bytes: &[u8], passed: Option<BorrowedFd<'_>>) -> io::Result<()> {
    send_with(fd, bytes, passed, socket_flags::NO_SIGNAL)
}

/// Does the same without a descriptor, and without blocking, whatever the timeout of the socket.
pub(crate) fn send_now(fd: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    send_with(
        fd,
        bytes,
        None,
        socket_flags::NO_SIGNAL | SendFlags::DONTWAIT,
    )
}

fn send_with(
    fd: impl AsFd,
    bytes: &[u8],
    passed: Option<BorrowedFd<'_>>,
    flags: SendFlags,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let passed = passed.as_slice();
    if !passed.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(passed));
    }
    match net::sendmsg(fd, &[IoSlice::new(bytes)], &mut control, flags) {
        Ok(sent) if sent == bytes.len() => Ok(()),
        // A stream whose peer does not read: the frame is incomplete, so no other can follow.
        Ok(_) => Err(Errno::IO),
        Err(errno) => Err(errno),
    }
}

/// Reads the bytes at the front of the queue and leaves them there. Receives no descriptors.
/// Returns no bytes if the peer has closed the connection, or has sent an empty packet.
pub(crate) fn peek(fd: impl AsFd, bytes: &mut [u8]) -> io::Result<Peeked> {
    let mut none = RecvAncillaryBuffer::new(&mut []);
    let message = net::recvmsg(
        fd,
        &mut [IoSliceMut::new(bytes)],
        &mut none,
        RecvFlags::PEEK,
    )?;
    Ok(Peeked {
        bytes: message.bytes,
        overlong: message.flags.contains(ReturnFlags::TRUNC),
        has_descriptors: PEEK_SHOWS_DESCRIPTORS && message.flags.contains(ReturnFlags::CTRUNC),
    })
}

/// Receives bytes that [`peek`] has shown, if they carry no descriptors.
pub(crate) fn take(fd: impl AsFd, bytes: &mut [u8]) -> io::Result<usize> {
    let mut none = RecvAncillaryBuffer::new(&mut []);
    let message = net::recvmsg(
        fd,
        &mut [IoSliceMut::new(bytes)],
        &mut none,
        RecvFlags::empty(),
    )?;
    Ok(message.bytes)
}

/// Receives bytes and their descriptors. The second value is `true` if some descriptors are
/// missing.
pub(in crate::sys) fn receive(
    fd: impl AsFd,
    bytes: &mut [u8],
    flags: RecvFlags,
) -> io::Result<(Vec<OwnedFd>, bool)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = net::recvmsg(fd, &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
    let mut descriptors = Vec::new();
    let mut lost_descriptors = message.flags.contains(ReturnFlags::CTRUNC);
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            for fd in received {
                match above_stdio_quietly(fd) {
                    Ok(fd) => descriptors.push(fd),
                    Err(_) => lost_descriptors = true,
                }
            }
        }
    }
    if socket_flags::CLOSE_ON_EXEC.is_empty() {
        for fd in &descriptors {
            io::fcntl_setfd(fd, io::FdFlags::CLOEXEC)?;
        }
    }
    Ok((descriptors, lost_descriptors))
}

/// Returns `true` if a socket that was shut down has nothing left to receive.
pub(crate) fn is_drained(fd: impl AsFd) -> bool {
    let peeked = peek(fd, &mut [0]);
    peeked.is_ok_and(|seen| seen.bytes == 0 && !seen.has_descriptors)
}

/// Returns `true` if there is nothing to read at the moment.
pub(crate) fn is_silent(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready == 0)
}

/// Ends the connection for the peer. The descriptor may stay open here.
pub(crate) fn shut_down(fd: impl AsFd) {
    // This fails if the peer has done so already.
    let _ = net::shutdown(fd, net::Shutdown::Both);
}

/// Who the peer is, at the time when it connected or began to listen.
pub(crate) struct PeerCred {
    /// Its effective user id.
    pub(crate) user: u32,
    /// Its process id. `None` if the system does not report it, or if the process has no id here
    /// because it is in another pid namespace.
    pub(crate) process: Option<u32>,
}

/// Returns `true` if the peer has hung up.
pub(crate) fn is_hung_up(connection: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&connection, PollFlags::HUP)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Why [`wait_hangup`] has returned. Neither is set after a timeout.
pub(crate) struct Wakeup {
    /// The peer has hung up.
    pub(crate) hung_up: bool,
    /// `wake` is readable.
    pub(crate) woken: bool,
}

/// Waits until the peer of `connection` has hung up or `wake` is readable. Data on the connection
/// do not count.
pub(crate) fn wait_hangup(
    connection: Option<BorrowedFd<'_>>,
    wake: BorrowedFd<'_>,
    timeout: Option<Duration>,
) -> io::Result<Wakeup> {
    let wake = PollFd::from_borrowed_fd(wake, PollFlags::IN);
    let timeout = poller::timespec(timeout);
    let Some(connection) = connection else {
        let mut fds = [wake];
        poll(&mut fds, timeout.as_ref())?;
        let [wake] = fds;
        return Ok(Wakeup {
            hung_up: false,
            woken: !wake.revents().is_empty(),
        });
    };
    let connection = PollFd::from_borrowed_fd(connection, PollFlags::HUP);
    let mut fds = [wake, connection];
    poll(&mut fds, timeout.as_ref())?;
    let [wake, connection] = fds;
    Ok(Wakeup {
        hung_up: !connection.revents().is_empty(),
        woken: !wake.revents().is_empty(),
    })
}
