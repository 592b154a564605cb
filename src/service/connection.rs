//! A client's connection: one question at a time, each with its answer.

use core::time::Duration;
use std::time::Instant;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::{self, Errno};
use rustix::process::geteuid;

use super::address::Location;
use super::closer::Closer;
use super::protocol::{Ask, Opcode, Reply, Request, Token, Verdict};
use super::wire::{self, Arrival, Assembly, Parcel};
use crate::error::{Error, Subject};
use crate::sys::fork_fd::ForkFd;
use crate::sys::{self, socket};

/// How long the service may take to answer. A new one may wait half a second for what it is asked for.
const ANSWER: Duration = Duration::from_secs(2);

/// How long a service may take to answer the first frame, which needs nothing but that it runs.
const GREETING: Duration = Duration::from_millis(500);

/// A socket on whose other side there is a service of this user.
#[derive(Debug)]
pub(super) struct Connection {
    fd: ForkFd,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // A forked child may have a copy of the socket.
        if let Some(fd) = self.fd.as_fd_of_owner() {
            socket::shut_down(fd);
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
    pub(super) fn open(location: &Location, token: Option<Token>) -> Result<(Self, bool), Absent> {
        let os = |call, errno| Absent::Error(sys::failed(call, errno, Subject::Nothing));
        let fd = match socket::connect(&location.path, GREETING) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::CONNREFUSED) => return Err(Absent::Nobody),
            Err(Errno::AGAIN) => return Err(Absent::Crowded),
            Err(errno) => return Err(Absent::Error(location.refused("connect", errno))),
        };
        let other = socket::other(&fd).map_err(|errno| os("getsockopt(SO_PEERCRED)", errno))?;
        let user = other.user;
        if user != geteuid().as_raw() {
            return Err(Absent::Error(location.other_user(user)));
        }
        let connection = Self {
            fd: ForkFd::new(fd),
        };
        let ask = Ask::Hello(token);
        let reply = match connection.ask(Request { number: 0, ask }, None) {
            Ok((reply, _)) => reply,
            Err(Broken::Lost) => return Err(Absent::Crowded),
            Err(Broken::Silent) => return Err(Absent::Silent),
            Err(Broken::Nonsense) => {
                return Err(Absent::Error(location.problem("answers what is no answer")));
            }
        };
        if reply.verdict == Verdict::Full {
            return Err(Absent::Error(location.problem(
                "has as many clients as it may: raise RLIMIT_NOFILE (`ulimit -n`) of the program \
                 that hosts it",
            )));
        }
        if let Some(fd) = connection.fd.as_fd() {
            socket::set_patience(fd, ANSWER)
                .map_err(|errno| os("setsockopt(SO_RCVTIMEO)", errno))?;
        }
        Ok((
            connection,
            token.is_some() && reply.verdict == Verdict::Done,
        ))
    }

    pub(super) fn send(
        &self,
        request: Request,
        passed: Option<BorrowedFd<'_>>,
    ) -> Result<(), Broken> {
        let fd = self.fd.as_fd().ok_or(Broken::Lost)?;
        let frame = request.encode();
        retry_on_signals(|| wire::send(fd, &frame, passed)).map_err(|errno| match errno {
            Errno::AGAIN => Broken::Silent,
            _ => Broken::Lost,
        })
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
    ) -> Result<(Reply, Option<OwnedFd>), Broken> {
        self.send(request, passed)?;
        let fd = self.fd.as_fd().ok_or(Broken::Lost)?;
        let deadline = Instant::now() + ANSWER;
        let mut assembly = Assembly::new();
        loop {
            match assembly.receive(fd) {
                Arrival::Frame(frame, parcel) => {
                    let reply = Reply::decode(&frame);
                    let reply = reply.filter(|reply| {
                        reply.number == request.number && reply.to == request.ask.opcode()
                    });
                    return understood(reply, parcel);
                }
                Arrival::End | Arrival::Broken => return Err(Broken::Lost),
                Arrival::Interrupted | Arrival::Part if Instant::now() < deadline => {}
                Arrival::Interrupted | Arrival::Part | Arrival::Nothing => {
                    return Err(Broken::Silent);
                }
                Arrival::Rubbish(parcel) => return understood(None, parcel),
            }
        }
    }
}

/// The reply with its descriptor, if it has one just where one is due.
fn understood(reply: Option<Reply>, parcel: Parcel) -> Result<(Reply, Option<OwnedFd>), Broken> {
    let mut descriptors = parcel.descriptors;
    let due = reply.is_some_and(|reply| reply.to == Opcode::Open && reply.verdict == Verdict::Done);
    match reply {
        Some(reply) if descriptors.len() == usize::from(due) => Ok((reply, descriptors.pop())),
        _ => {
            Closer::default().close(descriptors);
            Err(Broken::Nonsense)
        }
    }
}

fn retry_on_signals(mut call: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}
