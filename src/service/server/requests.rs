//! Reads requests and answers them.

use alloc::vec::Vec;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;

use super::clients::Connection;
use super::{LifePipe, Server};
use crate::id::ShMemId;
use crate::service::protocol::{Command, Opcode, PipeEnd, Reply, Request, Status};
use crate::service::reaper::Kind;
use crate::service::registry::{Client, Closing, Process, Refusal, Registry};
use crate::service::wire::{self, Received};
use crate::sys::socket::{self, Passed};
use crate::sys::{self, SharedObject};

/// A segment, as the registry stores it.
pub(super) struct StoredSegment {
    pub(super) fd: OwnedFd,
    memory: SharedObject,
}

/// Segments are equal if their descriptors refer to the same object.
impl PartialEq for StoredSegment {
    fn eq(&self, other: &Self) -> bool {
        self.memory == other.memory
    }
}

impl Server {
    /// Reads at most one frame of a client. Returns `true` if there may be more.
    pub(super) fn read_frame(&mut self, client: Client) -> bool {
        // It may have been disconnected earlier in this turn.
        let Some(connection) = self.connections.get_mut(&client) else {
            return false;
        };
        if self.deadlines.is_paused(client) {
            // The only event that a paused client is polled for is that it hangs up.
            if socket::is_hung_up(&connection.socket) {
                self.disconnect(client);
            }
            return false;
        }
        connection.last_read = self.turn;
        match connection.reader.peek(&connection.socket) {
            Received::Frame(frame, has_descriptors) => match Request::decode(&frame) {
                Ok(request) => return self.handle(client, request, has_descriptors),
                // The reason is not logged: this thread may have a descriptor table of its own, in which the
                // descriptors of the program's logger are closed or refer to other files.
                Err(_) => self.disconnect(client),
            },
            Received::Partial => {
                let now = self.now();
                self.deadlines.expect_frame(client, now);
            }
            Received::Empty | Received::Interrupted => return false,
            Received::Closed | Received::Failed | Received::Malformed => self.disconnect(client),
        }
        true
    }

    /// Takes a request from the socket and answers it, if the client may send it now. Returns `true` if there
    /// may be more to read.
    fn handle(&mut self, client: Client, request: Request, has_descriptors: bool) -> bool {
        let Some(connection) = self.connections.get_mut(&client) else {
            return false;
        };
        let is_hello = matches!(request.command, Command::Hello(_));
        let is_register = matches!(
            request.command,
            Command::Register { .. } | Command::Create { .. }
        );
        let is_waiting = self.deadlines.is_waiting(client);
        if is_hello == connection.introduced || is_waiting || has_descriptors && !is_register {
            self.disconnect(client);
            return true;
        }
        if is_register && self.reaper.is_overloaded_by(connection.process) {
            self.pause(client);
            return false;
        }
        let taken = connection.reader.take(&connection.socket, has_descriptors);
        let passed = match taken {
            Ok(Passed::NoRoom) if socket::PEEK_SHOWS_DESCRIPTORS => self.take_with_spare(client),
            Ok(passed) => passed,
            Err(_) => Passed::NoRoom,
        };
        let descriptor = match passed {
            // Only `Register` needs one.
            Passed::Nothing => Err(Status::BadDescriptor),
            Passed::One(fd) if is_register => Ok(fd),
            Passed::One(fd) => {
                self.close_foreign(client, [fd].into());
                return true;
            }
            Passed::Several(descriptors) => {
                self.close_foreign(client, descriptors);
                return true;
            }
            // The message was taken, and its descriptors are lost.
            Passed::NoRoom if is_register && !socket::PEEK_SHOWS_DESCRIPTORS => Err(Status::Full),
            Passed::NoRoom => {
                self.disconnect(client);
                return true;
            }
        };
        self.answer(client, request, descriptor);
        true
    }

    /// Takes a request for whose descriptor there is no room, after closing the spare descriptor. The request
    /// is refused, and its descriptor closed.
    fn take_with_spare(&mut self, client: Client) -> Passed {
        self.spare = None;
        let Some(connection) = self.connections.get_mut(&client) else {
            return Passed::NoRoom;
        };
        let taken = connection.reader.take(&connection.socket, true);
        taken.unwrap_or(Passed::NoRoom)
    }

    /// Closes descriptors that a client should not have sent, and disconnects it.
    fn close_foreign(&mut self, client: Client, descriptors: Vec<OwnedFd>) {
        let connection = self.connections.get(&client);
        let process = connection.map_or(Process::Unknown, |connection| connection.process);
        for fd in descriptors {
            self.reaper.close(process, Kind::Foreign, fd);
        }
        self.disconnect(client);
    }

    /// Carries out a request and replies. `descriptor` is the one of a `Register` request.
    fn answer(&mut self, client: Client, request: Request, descriptor: Result<OwnedFd, Status>) {
        let Some(connection) = self.connections.get_mut(&client) else {
            return;
        };
        connection.introduced = true;
        self.deadlines.received_frame(client);
        let status = match request.command {
            Command::Hello(token) => {
                let socket = &connection.socket;
                if self.blocks_descriptors && !socket::let_pass_descriptors(socket, true) {
                    return self.disconnect(client);
                }
                match token {
                    Some(token) if !self.registry.bind_fork(client, token) => Status::Unknown,
                    _ => Status::Done,
                }
            }
            Command::Register { id, size } => {
                self.register(client, id, size.get(), descriptor, Registry::register)
            }
            Command::Create { id, size } => {
                self.register(client, id, size.get(), descriptor, Registry::create)
            }
            Command::Open(id) => return self.open(client, id, request.number),
            Command::Release(id) => {
                self.registry.release(client, id);
                return;
            }
            Command::Fork(token) => {
                let now = self.now();
                let expires = self.deadlines.announce_fork(now);
                if self.registry.announce_fork(client, token, expires) {
                    Status::Done
                } else {
                    Status::Full
                }
            }
            Command::Lock { id, byte } => status_of(self.registry.lock(client, id, byte, false)),
            Command::Relock { id, byte } => status_of(self.registry.lock(client, id, byte, true)),
            Command::Unlock(id) => {
                let has_lock = self.registry.lock_of(client) == Some(id);
                if has_lock && self.registry.unlock(client) {
                    Status::Done
                } else {
                    Status::Unknown
                }
            }
            Command::Query { id, byte } => match self.registry.is_locked(client, id, byte) {
                Ok(false) => Status::Done,
                Ok(true) => Status::Taken,
                Err(refusal) => status_of(Err(refusal)),
            },
            Command::Life { id, end } => return self.send_life(client, request.number, id, end),
            // Where no client finds this service, they may have locked their bytes again at another one.
            Command::Settle(id) => {
                if self.listeners.are_found() && self.registry.settle(client, id) {
                    Status::Done
                } else {
                    Status::Unknown
                }
            }
        };
        let opcode = request.command.opcode();
        self.reply(client, request.number, opcode, status);
        if let Command::Register { id, .. } | Command::Create { id, .. } = request.command {
            self.resume_waiters(id);
        }
    }

    /// Stores a segment.
    fn register(
        &mut self,
        client: Client,
        id: ShMemId,
        size: u64,
        descriptor: Result<OwnedFd, Status>,
        register: Register,
    ) -> Status {
        let connection = self.connections.get(&client);
        let process = connection.map_or(Process::Unknown, |connection| connection.process);
        let fd = match descriptor {
            Ok(fd) => fd,
            Err(status) => return status,
        };
        let Some(memory) = SharedObject::from_fd(&fd) else {
            self.reaper.close(process, Kind::Foreign, fd);
            return Status::BadDescriptor;
        };
        self.restore_spare();
        if self.spare.is_none() || !memory.fits(size) {
            self.reaper.close(process, Kind::Refused, fd);
            return match self.spare {
                Some(_) => Status::BadDescriptor,
                None => Status::Full,
            };
        }
        let closing = Closing {
            own: self.reaper.pending_memory_of(process),
            all: self.reaper.pending(Kind::Memory),
        };
        let segment = StoredSegment { fd, memory };
        match register(&mut self.registry, client, id, size, segment, closing) {
            Err(Refusal::Unknown) => Status::Full,
            outcome => status_of(outcome),
        }
    }

    /// Creates the pipe of this service, if it can.
    pub(super) fn create_life(&mut self) {
        let pipe = self.without_children(sys::pipe, |pipe| [pipe.0.as_fd(), pipe.1.as_fd()].into());
        self.life = pipe.ok().map(|((reader, writer), in_children)| LifePipe {
            _in_children: in_children,
            reader,
            writer,
        });
    }

    /// Sends an end of the pipe of this service to a holder of a segment: that for writing only if it has a lock
    /// or can get one.
    fn send_life(&mut self, client: Client, number: u32, id: ShMemId, end: PipeEnd) {
        const OPCODE: Opcode = Opcode::Life;
        if !self.registry.holds(client, id) {
            return self.reply(client, number, OPCODE, Status::Unknown);
        }
        if end == PipeEnd::Write && !self.registry.may_lock(client, id) {
            return self.reply(client, number, OPCODE, Status::Unsettled);
        }
        if self.life.is_none() {
            self.create_life();
        }
        let Some(life) = &self.life else {
            return self.reply(client, number, OPCODE, Status::Busy);
        };
        let passed = match end {
            PipeEnd::Read => &life.reader,
            PipeEnd::Write => &life.writer,
        };
        let reply = Reply {
            number,
            opcode: OPCODE,
            status: Status::Done,
            size: 0,
        };
        let Some(connection) = self.connections.get(&client) else {
            return;
        };
        match send(connection, reply, Some(passed.as_fd())) {
            Ok(()) => {}
            Err(socket::TOO_MANY_IN_FLIGHT) => self.reply(client, number, OPCODE, Status::Busy),
            Err(_) => self.disconnect(client),
        }
    }

    /// Sends a segment to a client, or makes the client wait for it.
    fn open(&mut self, client: Client, id: ShMemId, number: u32) {
        let now = self.now();
        let (segment, size) = match self.registry.open(client, id) {
            Ok(found) => found,
            Err(Refusal::Unknown) => {
                if !self.deadlines.wait_for(client, id, number, now) {
                    self.reply(client, number, Opcode::Open, Status::Unknown);
                }
                return;
            }
            Err(_) => return self.reply(client, number, Opcode::Open, Status::Full),
        };
        let reply = Reply {
            number,
            opcode: Opcode::Open,
            status: Status::Done,
            size,
        };
        let Some(connection) = self.connections.get(&client) else {
            return;
        };
        match send(connection, reply, Some(segment.fd.as_fd())) {
            Ok(()) => {}
            Err(socket::TOO_MANY_IN_FLIGHT) => {
                self.registry.release(client, id);
                self.reply(client, number, Opcode::Open, Status::Busy);
            }
            Err(_) => self.disconnect(client),
        }
    }

    /// Sends a reply without a descriptor. Disconnects the client if it cannot be sent at once.
    pub(super) fn reply(&mut self, client: Client, number: u32, opcode: Opcode, status: Status) {
        let reply = Reply {
            number,
            opcode,
            status,
            size: 0,
        };
        let connection = self.connections.get(&client);
        let sent = connection.map(|connection| send(connection, reply, None));
        if let Some(Err(_)) = sent {
            self.disconnect(client);
        }
    }

    /// Answers the clients that wait for this segment.
    fn resume_waiters(&mut self, id: ShMemId) {
        for (client, number) in self.deadlines.take_waiters(id) {
            self.open(client, id, number);
        }
    }
}

/// [`Registry::register`] or [`Registry::create`].
type Register = fn(
    &mut Registry<StoredSegment>,
    Client,
    ShMemId,
    u64,
    StoredSegment,
    Closing,
) -> Result<(), Refusal>;

fn status_of(outcome: Result<(), Refusal>) -> Status {
    match outcome {
        Ok(()) => Status::Done,
        Err(Refusal::Taken) => Status::Taken,
        Err(Refusal::Full) => Status::Full,
        Err(Refusal::Unknown) => Status::Unknown,
        Err(Refusal::Unsettled) => Status::Unsettled,
    }
}

fn send(
    connection: &Connection,
    reply: Reply,
    passed: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    wire::send(&connection.socket, &reply.encode(), passed)
}
