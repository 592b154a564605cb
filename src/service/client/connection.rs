//! A client's connection: one question at a time, each with its answer.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use std::time::Instant;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::{self, Errno};
use rustix::process::geteuid;

use crate::error::{Error, Subject};
use crate::process::fork_fd::ForkFd;
use crate::service::address::Location;
use crate::service::protocol::{Command, Opcode, Reply, Request, Status, Token};
use crate::service::reaper;
use crate::service::wire::{self, FrameReader, Received};
use crate::sys::socket::Passed;
use crate::sys::{self, socket};

/// How long the service may take to answer. A new one may wait half a second for what it is asked for.
pub(super) const ANSWER: Duration = Duration::from_secs(2);

/// How long a service may take to answer the first frame, which needs nothing but that it runs.
pub(super) const GREETING: Duration = Duration::from_millis(500);

/// A socket on whose other side there is a service of this user.
#[derive(Debug)]
pub(super) struct Connection {
    fd: ForkFd,
    /// How long sending and receiving wait, in milliseconds, as the socket was told last.
    patience: AtomicU64,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // A forked child may have a copy of the socket.
        if let Some(fd) = self.fd.as_fd_of_owner() {
            socket::shut_down(fd);
            // What was sent and not read is closed with the socket, which can take long.
            if !socket::is_drained(fd) {
                reaper::close_from_service(self.fd.take().into_iter().collect());
            }
        }
    }
}

/// Why a request was not answered.
pub(super) enum Broken {
    /// The service is gone, or has thrown us out.
    Lost,
    /// It does not answer in time.
    Silent,
    /// What it answers is nonsense.
    Nonsense,
    /// The system has refused this call, because of a limit of this process or user.
    Refused(&'static str, Errno),
}

/// Why there is no connection.
pub(super) enum Absent {
    /// Nobody serves there.
    Nobody,
    /// Too many want to connect at once.
    Crowded,
    /// Somebody listens there and does not answer.
    Silent,
    /// There is no use in trying again.
    Error(Error),
}

impl Connection {
    /// Connects to the service at the path, and says hello. Whether it knew the token.
    pub(super) fn open(
        location: &Location,
        token: Option<Token>,
        deadline: Instant,
    ) -> Result<(Self, bool), Absent> {
        let os = |call, errno| Absent::Error(sys::failed(call, errno, Subject::Nothing));
        if reaper::is_overloaded_by_services() {
            return Err(Absent::Error(
                location.problem("sent descriptors that do not get closed"),
            ));
        }
        let greeting = Instant::now() + GREETING;
        let deadline = deadline.min(greeting);
        let fd = match socket::connect(&location.path, GREETING) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::CONNREFUSED) => return Err(Absent::Nobody),
            Err(Errno::AGAIN) => return Err(Absent::Crowded),
            Err(errno @ (Errno::MFILE | Errno::NFILE)) => return Err(os("socket", errno)),
            Err(errno) => return Err(Absent::Error(location.refused("connect", errno))),
        };
        let other = socket::other(&fd).map_err(|errno| os("getsockopt(SO_PEERCRED)", errno))?;
        let user = other.user;
        if user != geteuid().as_raw() {
            return Err(Absent::Error(location.other_user(user)));
        }
        let connection = Self {
            fd: ForkFd::new(fd),
            patience: AtomicU64::new(millis(GREETING)),
        };
        let command = Command::Hello(token);
        let reply = match connection.ask(Request { number: 0, command }, None, deadline) {
            Ok((reply, _)) => reply,
            Err(Broken::Lost) => return Err(Absent::Crowded),
            Err(Broken::Silent) => return Err(Absent::Silent),
            Err(Broken::Nonsense) => {
                return Err(Absent::Error(location.problem("sent an invalid reply")));
            }
            Err(Broken::Refused(call, errno)) => return Err(os(call, errno)),
        };
        match reply.status {
            Status::Busy => Err(Absent::Crowded),
            Status::Full => Err(Absent::Error(location.problem(
                "has as many clients as it may: raise RLIMIT_NOFILE (`ulimit -n`) of the program \
                 that hosts it",
            ))),
            status => Ok((connection, token.is_some() && status == Status::Done)),
        }
    }

    /// Sends a request by this time, or not at all.
    pub(super) fn send(
        &self,
        request: Request,
        passed: Option<BorrowedFd<'_>>,
        deadline: Instant,
    ) -> Result<(), Broken> {
        let fd = self.fd.as_fd().ok_or(Broken::Lost)?;
        self.be_patient(fd, deadline)?;
        let frame = request.encode();
        retry_on_signals(|| wire::send(fd, &frame, passed)).map_err(unsent)
    }

    /// Sends a request if that can be done at once.
    pub(super) fn send_now(&self, request: Request) -> Result<(), Broken> {
        let fd = self.fd.as_fd().ok_or(Broken::Lost)?;
        let frame = request.encode();
        retry_on_signals(|| socket::send_now(fd, &frame)).map_err(unsent)
    }

    /// Has sending and receiving wait until this time, but not longer than the service may take.
    fn be_patient(&self, fd: BorrowedFd<'_>, deadline: Instant) -> Result<(), Broken> {
        let left = deadline.saturating_duration_since(Instant::now());
        let patience = millis(left.min(ANSWER));
        if patience == 0 {
            // The socket would take it for no limit at all.
            return Err(Broken::Silent);
        }
        if self.patience.swap(patience, Relaxed) != patience {
            socket::set_patience(fd, Duration::from_millis(patience))
                .map_err(|errno| Broken::Refused("setsockopt(SO_RCVTIMEO)", errno))?;
        }
        Ok(())
    }

    /// What to watch for the end of the service, unless this is a forked child.
    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_fd()
    }

    /// Leaves the connection to the parent, in a forked child.
    pub(super) fn close_in_child(&self) {
        self.fd.close_in_child();
    }

    /// Sends a request and waits for its answer.
    pub(super) fn ask(
        &self,
        request: Request,
        passed: Option<BorrowedFd<'_>>,
        deadline: Instant,
    ) -> Result<(Reply, Option<OwnedFd>), Broken> {
        self.send(request, passed, deadline)?;
        self.answer(request, deadline)
    }

    /// Waits for the answer to a request that was sent.
    pub(super) fn answer(
        &self,
        request: Request,
        deadline: Instant,
    ) -> Result<(Reply, Option<OwnedFd>), Broken> {
        let fd = self.fd.as_fd().ok_or(Broken::Lost)?;
        let mut reader = FrameReader::new();
        loop {
            self.be_patient(fd, deadline).map_err(|silent| {
                if reader.is_empty() {
                    silent
                } else {
                    // The rest of it would be taken for the next answer.
                    Broken::Lost
                }
            })?;
            match reader.peek(fd) {
                Received::Frame(frame, has_descriptors) => {
                    let reply = Reply::decode(&frame).ok().filter(|reply| {
                        reply.number == request.number && reply.opcode == request.command.opcode()
                    });
                    let reply = reply.ok_or(Broken::Nonsense)?;
                    let is_due = reply.opcode == Opcode::Open && reply.status == Status::Done;
                    if has_descriptors && !is_due {
                        return Err(Broken::Nonsense);
                    }
                    let taken = reader.take(fd, has_descriptors);
                    return match taken.map_err(|_| Broken::Lost)? {
                        Passed::Nothing if !is_due => Ok((reply, None)),
                        Passed::One(fd) if is_due => Ok((reply, Some(fd))),
                        Passed::NoRoom => Err(Broken::Refused("recvmsg", Errno::MFILE)),
                        Passed::Nothing => Err(Broken::Nonsense),
                        Passed::One(fd) => {
                            reaper::close_from_service([fd].into());
                            Err(Broken::Nonsense)
                        }
                        Passed::Several(descriptors) => {
                            reaper::close_from_service(descriptors);
                            Err(Broken::Nonsense)
                        }
                    };
                }
                Received::Interrupted | Received::Partial => {}
                Received::Empty if reader.is_empty() => return Err(Broken::Silent),
                Received::Empty | Received::Closed | Received::Failed => return Err(Broken::Lost),
                Received::Malformed => return Err(Broken::Nonsense),
            }
        }
    }
}

/// Why a request was not sent.
fn unsent(errno: Errno) -> Broken {
    match errno {
        Errno::AGAIN => Broken::Silent,
        socket::CROWDED => Broken::Refused("sendmsg", errno),
        _ => Broken::Lost,
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
