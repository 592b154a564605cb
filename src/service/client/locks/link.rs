//! [`Link`]: a connection of one participant.

use std::thread;
use std::time::Instant;

use rustix::fd::OwnedFd;

use super::super::connection::{ConnectError, Connection, RequestError};
use super::super::{RETRY_INTERVAL, Shared};
use super::SETTLE_TIMEOUT;
use crate::error::Error;
use crate::id::ShMemId;
use crate::service::protocol::{Command, PipeEnd, Request, Status};
use crate::service::reaper;
use crate::sys::fork_closed::{ForkClosed, Forks};
use crate::sys::socket;

/// A connection that holds a segment. All its descriptors are closed in forked children.
pub(super) struct Link {
    /// The socket of the connection.
    _socket: ForkClosed,
    connection: Connection,
    number: u32,
    /// A request that was sent and not answered yet.
    unanswered: Option<Request>,
    /// The ends of the pipe of the host, for reading and for writing.
    pub(super) life: Option<(ForkClosed, ForkClosed)>,
}

/// Why there is no link.
pub(super) enum Refusal {
    /// No host answers.
    NotServed,
    /// The host does not know all locks.
    Unsettled,
    /// The byte is locked.
    Taken,
    Failed(Error),
}

impl Link {
    /// Connects, becomes a holder of the segment, and locks a byte `again`.
    pub(super) fn open(
        shared: &Shared,
        id: ShMemId,
        again: Option<u64>,
        deadline: Instant,
    ) -> Result<Self, Refusal> {
        let mut link = Self::connect(shared, deadline)?;
        let (status, fd) = link.ask_until(shared, Command::Open(id), deadline)?;
        reaper::close_from_service(fd.into_iter().collect());
        if status != Status::Done {
            return Err(Refusal::Failed(shared.status_error(id, status)));
        }
        if let Some(byte) = again {
            match link
                .ask_until(shared, Command::Relock { id, byte }, deadline)?
                .0
            {
                Status::Done => {}
                Status::Taken => return Err(Refusal::Taken),
                status => return Err(Refusal::Failed(shared.status_error(id, status))),
            }
        }
        loop {
            let reader = link.receive_end(shared, id, PipeEnd::Read, deadline)?;
            let writer = link.receive_end(shared, id, PipeEnd::Write, deadline)?;
            if let (Some(reader), Some(writer)) = (reader, writer) {
                link.life = Some((reader, writer));
                return Ok(link);
            }
        }
    }

    fn connect(shared: &Shared, deadline: Instant) -> Result<Self, Refusal> {
        loop {
            let forks = Forks::until_now()?;
            let location = shared.address.locate()?;
            match Connection::open(&location, None, deadline) {
                Ok((connection, _)) => {
                    let socket = connection.as_fd().map(|fd| ForkClosed::lent(fd, forks));
                    if let Some(Some(socket)) = socket {
                        return Ok(Self {
                            _socket: socket,
                            connection,
                            number: 0,
                            unanswered: None,
                            life: None,
                        });
                    }
                }
                Err(ConnectError::Busy) if Instant::now() < deadline => {}
                Err(ConnectError::Fatal(error)) => return Err(Refusal::Failed(error)),
                Err(_) => return Err(Refusal::NotServed),
            }
            thread::sleep(RETRY_INTERVAL);
        }
    }

    pub(super) fn is_hung_up(&self) -> bool {
        self.connection.as_fd().is_none_or(socket::is_hung_up)
    }

    /// Receives an end of the pipe. Returns `None` if a child may have it, because the process forked.
    fn receive_end(
        &mut self,
        shared: &Shared,
        id: ShMemId,
        end: PipeEnd,
        deadline: Instant,
    ) -> Result<Option<ForkClosed>, Refusal> {
        let settled = Instant::now() + SETTLE_TIMEOUT;
        loop {
            let forks = Forks::until_now()?;
            match self.ask_until(shared, Command::Life { id, end }, deadline)? {
                (Status::Done, Some(fd)) => return Ok(ForkClosed::owned(fd, forks)),
                (Status::Unsettled, _) if Instant::now() < settled => thread::sleep(RETRY_INTERVAL),
                (Status::Unsettled, _) => return Err(Refusal::Unsettled),
                (status, _) => return Err(Refusal::Failed(shared.status_error(id, status))),
            }
        }
    }

    /// As [`ask`](Self::ask), and repeats the request while the service is busy.
    fn ask_until(
        &mut self,
        shared: &Shared,
        command: Command,
        deadline: Instant,
    ) -> Result<(Status, Option<OwnedFd>), Refusal> {
        loop {
            match self.ask(command, deadline) {
                Ok((Status::Busy, _)) if Instant::now() < deadline => thread::sleep(RETRY_INTERVAL),
                Ok(answer) => return Ok(answer),
                Err(RequestError::Disconnected | RequestError::TimedOut) => {
                    return Err(Refusal::NotServed);
                }
                Err(error) => return Err(Refusal::Failed(shared.request_error(error))),
            }
        }
    }

    /// Sends a request and returns the reply, after that to the last request, if it is missing. There is never
    /// more than one request that is not answered, so however slow the host is, replies do not pile up.
    pub(super) fn ask(
        &mut self,
        command: Command,
        deadline: Instant,
    ) -> Result<(Status, Option<OwnedFd>), RequestError> {
        if let Some(earlier) = self.unanswered {
            let (reply, fd) = self.connection.receive(earlier, deadline)?;
            self.unanswered = None;
            if earlier.command == command {
                return Ok((reply.status, fd));
            }
            reaper::close_from_service(fd.into_iter().collect());
        }
        self.number = self.number.wrapping_add(1);
        let request = Request {
            number: self.number,
            command,
        };
        self.connection.send(request, None, deadline)?;
        self.unanswered = Some(request);
        let (reply, fd) = self.connection.receive(request, deadline)?;
        self.unanswered = None;
        Ok((reply.status, fd))
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}
