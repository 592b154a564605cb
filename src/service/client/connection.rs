//! [`Connection`]: a client's connection to the service. Each request is answered before the next one is
//! sent.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use std::time::Instant;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::{self, Errno};
use rustix::process::geteuid;

use crate::error::{Error, ServiceError, Subject};
use crate::process::fork_fd::ForkFd;
use crate::service::address::Location;
use crate::service::protocol::{
    Command, DecodeError, Frame, Opcode, Reply, Request, Status, Token,
};
use crate::service::reaper;
use crate::service::wire::{self, FrameReader, Received};
use crate::sys::socket::Passed;
use crate::sys::{self, socket};

/// How long the service may take to reply. A new one may wait half a second for a segment to be registered.
pub(super) const REPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the service may take to reply to the first frame, which it does without waiting.
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_millis(500);

/// A connection to a service of this user.
#[derive(Debug)]
pub(super) struct Connection {
    fd: ForkFd,
    /// The timeout of the socket for sending and receiving, in milliseconds.
    timeout: AtomicU64,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // A forked child may have a copy of the socket, so closing this one may not end the connection.
        if let Some(fd) = self.fd.as_fd_of_owner() {
            socket::shut_down(fd);
            // Unread descriptors are closed with the socket, which may block.
            if !socket::is_drained(fd) {
                reaper::close_from_service(self.fd.take().into_iter().collect());
            }
        }
    }
}

/// Why a request was not answered.
pub(super) enum RequestError {
    /// The service has disconnected.
    Disconnected,
    /// The service did not answer in time.
    TimedOut,
    /// The service sent something that is not a reply to the request.
    InvalidReply(ServiceError),
    /// The system refused this call because of a limit of this process or user.
    Os(&'static str, Errno),
}

/// Why there is no connection.
pub(super) enum ConnectError {
    /// No process listens at the address.
    NotServed,
    /// Too many clients connect at the same time.
    Busy,
    /// A process listens there and does not answer.
    TimedOut,
    /// Trying again is useless.
    Fatal(Error),
}

impl Connection {
    /// Connects to the service at this address and introduces this client.
    ///
    /// Also returns `true` if the service knew the token, so that the client already holds what its parent
    /// held.
    pub(super) fn open(
        location: &Location,
        token: Option<Token>,
        deadline: Instant,
    ) -> Result<(Self, bool), ConnectError> {
        let fatal = |reason: ServiceError| ConnectError::Fatal(location.error(reason));
        let os = |call, errno| {
            let limit_for = sys::for_unprivileged;
            ConnectError::Fatal(sys::failed_for(call, errno, Subject::Nothing, limit_for))
        };
        if reaper::is_overloaded_by_services() {
            return Err(fatal(ServiceError::UnclosedDescriptors));
        }
        let deadline = deadline.min(Instant::now() + HELLO_TIMEOUT);
        let fd = match socket::connect(&location.path, HELLO_TIMEOUT) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::CONNREFUSED) => return Err(ConnectError::NotServed),
            Err(Errno::AGAIN) => return Err(ConnectError::Busy),
            Err(errno @ (Errno::MFILE | Errno::NFILE)) => return Err(os("socket", errno)),
            // `connect` cannot have failed where no socket can be created.
            Err(errno) => match socket::creation_error() {
                Some(errno) => return Err(os("socket", errno)),
                None => return Err(ConnectError::Fatal(location.os_error("connect", errno))),
            },
        };
        let peer =
            socket::peer_credentials(&fd).map_err(|errno| os("getsockopt(SO_PEERCRED)", errno))?;
        let uid = peer.user;
        if uid != geteuid().as_raw() {
            return Err(fatal(ServiceError::OtherUsersService { uid }));
        }
        let connection = Self {
            fd: ForkFd::new(fd),
            timeout: AtomicU64::new(millis(HELLO_TIMEOUT)),
        };
        let request = Request {
            number: 0,
            command: Command::Hello(token),
        };
        let reply = match connection.call(request, None, deadline) {
            Ok((reply, _)) => reply,
            Err(RequestError::Disconnected) => return Err(ConnectError::Busy),
            Err(RequestError::TimedOut) => return Err(ConnectError::TimedOut),
            Err(RequestError::InvalidReply(reason)) => return Err(fatal(reason)),
            Err(RequestError::Os(call, errno)) => return Err(os(call, errno)),
        };
        match reply.status {
            Status::Busy => Err(ConnectError::Busy),
            Status::Full => Err(fatal(ServiceError::TooManyClients)),
            status => Ok((connection, token.is_some() && status == Status::Done)),
        }
    }

    /// Sends a request before the deadline, or not at all.
    pub(super) fn send(
        &self,
        request: Request,
        passed: Option<BorrowedFd<'_>>,
        deadline: Instant,
    ) -> Result<(), RequestError> {
        let fd = self.fd.as_fd().ok_or(RequestError::Disconnected)?;
        self.set_timeout(fd, deadline)?;
        let frame = request.encode();
        retry_on_signals(|| wire::send(fd, &frame, passed)).map_err(send_error)
    }

    /// Sends a request if that does not block.
    pub(super) fn send_now(&self, request: Request) -> Result<(), RequestError> {
        let fd = self.fd.as_fd().ok_or(RequestError::Disconnected)?;
        let frame = request.encode();
        retry_on_signals(|| socket::send_now(fd, &frame)).map_err(send_error)
    }

    /// Makes sending and receiving block until the deadline, but at most for [`REPLY_TIMEOUT`].
    fn set_timeout(&self, fd: BorrowedFd<'_>, deadline: Instant) -> Result<(), RequestError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = millis(left.min(REPLY_TIMEOUT));
        if timeout == 0 {
            // For the socket, 0 means no timeout.
            return Err(RequestError::TimedOut);
        }
        if self.timeout.swap(timeout, Relaxed) != timeout {
            socket::set_timeout(fd, Duration::from_millis(timeout))
                .map_err(|errno| RequestError::Os("setsockopt(SO_RCVTIMEO)", errno))?;
        }
        Ok(())
    }

    /// Returns the socket, to wait for the end of the connection. `None` after
    /// [`close_in_child`](Self::close_in_child).
    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_fd()
    }

    /// Closes the socket in a forked child. The connection belongs to the parent.
    pub(super) fn close_in_child(&self) {
        self.fd.close_in_child();
    }

    /// Sends a request and waits for its reply.
    pub(super) fn call(
        &self,
        request: Request,
        passed: Option<BorrowedFd<'_>>,
        deadline: Instant,
    ) -> Result<(Reply, Option<OwnedFd>), RequestError> {
        self.send(request, passed, deadline)?;
        self.receive(request, deadline)
    }

    /// Waits for the reply to a request that was sent.
    pub(super) fn receive(
        &self,
        request: Request,
        deadline: Instant,
    ) -> Result<(Reply, Option<OwnedFd>), RequestError> {
        let fd = self.fd.as_fd().ok_or(RequestError::Disconnected)?;
        let mut reader = FrameReader::new();
        loop {
            self.set_timeout(fd, deadline).map_err(|error| {
                if reader.is_empty() {
                    error
                } else {
                    // The rest of the frame would be read as the next reply.
                    RequestError::Disconnected
                }
            })?;
            match reader.peek(fd) {
                Received::Frame(frame, has_descriptors) => {
                    let reply = check_reply(&frame, request)?;
                    let is_due = matches!(reply.opcode, Opcode::Open | Opcode::Life)
                        && reply.status == Status::Done;
                    if has_descriptors && !is_due {
                        return Err(invalid());
                    }
                    let taken = reader.take(fd, has_descriptors);
                    return match taken.map_err(|_| RequestError::Disconnected)? {
                        Passed::Nothing if !is_due => Ok((reply, None)),
                        Passed::One(fd) if is_due => Ok((reply, Some(fd))),
                        Passed::NoRoom => Err(RequestError::Os("recvmsg", Errno::MFILE)),
                        Passed::Nothing => Err(invalid()),
                        Passed::One(fd) => {
                            reaper::close_from_service([fd].into());
                            Err(invalid())
                        }
                        Passed::Several(descriptors) => {
                            reaper::close_from_service(descriptors);
                            Err(invalid())
                        }
                    };
                }
                Received::Interrupted | Received::Partial => {}
                Received::Empty if reader.is_empty() => return Err(RequestError::TimedOut),
                Received::Empty | Received::Closed | Received::Failed => {
                    return Err(RequestError::Disconnected);
                }
                Received::Malformed => return Err(invalid()),
            }
        }
    }
}

/// Decodes a frame that has to be the reply to this request.
fn check_reply(frame: &Frame, request: Request) -> Result<Reply, RequestError> {
    let reply = Reply::decode(frame).map_err(|error| match error {
        DecodeError::Version(version) => {
            RequestError::InvalidReply(ServiceError::OtherVersion { version })
        }
        _ => invalid(),
    })?;
    if reply.number != request.number || reply.opcode != request.command.opcode() {
        return Err(invalid());
    }
    Ok(reply)
}

fn invalid() -> RequestError {
    RequestError::InvalidReply(ServiceError::InvalidReply)
}

/// Returns why a request was not sent.
fn send_error(errno: Errno) -> RequestError {
    match errno {
        Errno::AGAIN => RequestError::TimedOut,
        socket::TOO_MANY_IN_FLIGHT => RequestError::Os("sendmsg", errno),
        _ => RequestError::Disconnected,
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn retry_on_signals(mut call: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}
