//! Admits, pauses, evicts and disconnects clients.

use alloc::vec::Vec;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::Server;
use crate::service::admission::{Admission, IdleClient, eviction_candidates};
use crate::service::protocol::{Opcode, Reply, Status};
use crate::service::reaper::Kind;
use crate::service::registry::{Client, Process};
use crate::service::wire::{self, FrameReader};
use crate::sys::fork_closed::ForkClosed;
use crate::sys::{self, socket};

/// How many connections are accepted in one turn.
const MAX_ACCEPTED: usize = 16;

/// The connection of a client.
pub(super) struct Connection {
    pub(super) socket: Socket,
    pub(super) process: Process,
    pub(super) reader: FrameReader,
    /// `true` after a valid `Hello`.
    pub(super) introduced: bool,
    /// The last turn in which it was read from.
    pub(super) last_read: u64,
}

/// The socket of a connection, of which forked children have no copy.
pub(super) struct Socket {
    in_children: Vec<ForkClosed>,
    fd: OwnedFd,
}

impl Socket {
    fn into_fd(self) -> OwnedFd {
        // Before the number is used again: see `ForkClosed::lent`.
        drop(self.in_children);
        self.fd
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Server {
    /// Accepts connections that are waiting.
    pub(super) fn accept(&mut self) {
        self.restore_spare();
        for _ in 0..MAX_ACCEPTED {
            // Connections that are not closed yet occupy descriptors as well.
            if self.reaper.pending(Kind::Connection) >= self.capacity.connections {
                return self.stop_accepting();
            }
            let accepted =
                self.without_children(|| self.listeners.accept(), |socket| [socket.as_fd()].into());
            match accepted {
                Ok((fd, in_children)) => self.admit(Socket { in_children, fd }),
                Err(Errno::AGAIN) => return,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                    return self.reject();
                }
                // The connection ended before it was accepted.
                Err(_) => {}
            }
        }
    }

    /// Opens the spare descriptor again, if it was closed and there is one left.
    pub(super) fn restore_spare(&mut self) {
        if self.spare.is_none() {
            self.spare = sys::duplicate_quietly(&self.stop).ok();
        }
    }

    /// Accepts no connections for a while.
    fn stop_accepting(&mut self) {
        self.listeners.unwatch(&mut self.poller);
        let now = self.now();
        self.deadlines.stop_accepting(now);
    }

    /// Admits a client of this user, or refuses it with the reason.
    fn admit(&mut self, socket: Socket) {
        let Ok(peer) = socket::peer_credentials(&socket) else {
            return self.close(Process::Unknown, false, socket);
        };
        let process = self.process_of(&peer);
        if peer.user != geteuid().as_raw() {
            return self.close(process, false, socket);
        }
        let refusal = if self.reaper.is_overloaded_by(process) {
            Some(Status::Busy)
        } else if self.has_room_for(process) {
            None
        } else {
            Some(Status::Full)
        };
        if let Some(status) = refusal {
            let reply = Reply {
                number: 0,
                opcode: Opcode::Hello,
                status,
                size: 0,
            };
            // This fails if the client has disconnected.
            let _ = wire::send(&socket, &reply.encode(), None);
            return self.close(process, false, socket);
        }
        socket::shrink_send_buffer(&socket);
        let client = self.next_client;
        if self.poller.add(&socket, client).is_err() {
            return self.close(process, false, socket);
        }
        self.next_client += 1;
        self.registry.connect(client, process);
        let now = self.now();
        self.deadlines.expect_frame(client, now);
        let connection = Connection {
            socket,
            process,
            reader: FrameReader::new(),
            introduced: false,
            last_read: self.turn,
        };
        self.connections.insert(client, connection);
    }

    /// Returns the process of a new connection.
    ///
    /// On systems that do not report it, each connection counts as a process of its own. On others, only
    /// processes in other pid namespaces are unknown, and count as one process.
    fn process_of(&self, peer: &socket::PeerCred) -> Process {
        match peer.process {
            Some(process) => Process::Known(process),
            None if socket::TELLS_PROCESSES => Process::Unknown,
            None => Process::Known(u32::try_from(self.next_client % (1 << 31)).unwrap_or(0)),
        }
    }

    /// Returns `true` if a process may have one more connection, if necessary after evicting an idle client.
    fn has_room_for(&mut self, process: Process) -> bool {
        let taken = self.connections.len() + self.reaper.pending(Kind::Connection);
        let own = self.registry.clients_of(process);
        match self.capacity.admit(own, taken) {
            Admission::Admit => true,
            Admission::Evict => self.evict_idle(),
            Admission::Refuse => false,
        }
    }

    /// Accepts a connection with the spare descriptor and closes it. Otherwise the listener would stay
    /// readable, and the loop would never sleep.
    fn reject(&mut self) {
        self.spare = None;
        match self.listeners.accept() {
            Ok(fd) => {
                let in_children = Vec::new();
                let socket = Socket { in_children, fd };
                let peer = socket::peer_credentials(&socket);
                let process = peer.map_or(Process::Unknown, |peer| self.process_of(&peer));
                self.close(process, false, socket);
            }
            Err(Errno::AGAIN) => {}
            // The whole system has no descriptors left, or too many wait to be closed.
            Err(_) => self.stop_accepting(),
        }
        self.spare = sys::duplicate_quietly(&self.stop).ok();
    }

    /// Evicts the client that holds nothing and has been silent longest. Returns `false` if there is none.
    fn evict_idle(&mut self) -> bool {
        let idle = self.connections.iter().filter(|&(&client, _)| {
            self.registry.holds_nothing(client) && !self.deadlines.is_waiting(client)
        });
        let idle = idle.map(|(&client, connection)| IdleClient {
            introduced: connection.introduced,
            last_read: connection.last_read,
            client,
        });
        // A client with an unread request is not idle.
        let silent = eviction_candidates(idle).find(|client| {
            let connection = self.connections.get(client);
            connection.is_some_and(|connection| socket::is_silent(&connection.socket))
        });
        let Some(client) = silent else {
            return false;
        };
        self.disconnect(client);
        true
    }

    /// Stops reading from a client until fewer descriptors of its process wait to be closed.
    pub(super) fn pause(&mut self, client: Client) {
        let Some(connection) = self.connections.get(&client) else {
            return;
        };
        if self.poller.read(&connection.socket, client, false).is_err() {
            return self.disconnect(client);
        }
        let now = self.now();
        self.deadlines.pause(client, now);
    }

    /// Reads from a paused client again, unless too many descriptors of its process still wait to be closed.
    pub(super) fn resume(&mut self, client: Client) {
        let Some(connection) = self.connections.get(&client) else {
            return self.deadlines.resume(client);
        };
        if self.reaper.is_overloaded_by(connection.process) {
            return;
        }
        self.deadlines.resume(client);
        if self.poller.read(&connection.socket, client, true).is_err() {
            self.disconnect(client);
        }
    }

    /// Removes a client, releases what it held, and closes its connection.
    pub(super) fn disconnect(&mut self, client: Client) {
        let Some(connection) = self.connections.remove(&client) else {
            return;
        };
        self.poller.remove(&connection.socket);
        self.registry.disconnect(client);
        self.deadlines.remove(client);
        socket::shut_down(&connection.socket);
        self.close(connection.process, connection.introduced, connection.socket);
    }

    /// Closes a connection, in the background if unread descriptors may be in it.
    pub(super) fn close(&mut self, process: Process, introduced: bool, socket: Socket) {
        let fd = socket.into_fd();
        if self.blocks_descriptors && !introduced {
            drop(fd);
        } else {
            self.reaper.close(process, Kind::Connection, fd);
        }
    }
}
