//! The loop of the service, which connects the sockets with the registry.
//!
//! The loop never blocks on a client. It reads at most one frame of each client per turn. If a reply does not
//! fit into the socket at once, the client is disconnected. Memory, and whatever clients have sent, is closed
//! by the [`Reaper`]. A frame is inspected before it is taken from the socket: a descriptor is accepted only
//! with a valid `Register` request of a client that has introduced itself, one at a time, and not while too
//! many descriptors of its process wait to be closed.
//!
//! `listeners` owns the sockets that clients connect to and their files, `clients` admits and disconnects
//! clients, `requests` answers them.

mod clients;
mod listeners;
mod requests;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;
use std::time::Instant;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::Errno;

use self::clients::Connection;
use self::listeners::Listeners;
use self::requests::StoredSegment;
use crate::error::Subject;
use crate::service::address::{Location, Lookup};
use crate::service::admission::Capacity;
use crate::service::deadlines::{Deadlines, Millis};
use crate::service::host::StartError;
use crate::service::protocol::{Opcode, Status};
use crate::service::reaper::{Kind, Reaper};
use crate::service::registry::{Client, Limits, Registry};
use crate::sys::fork_closed::{ForkClosed, Forks};
use crate::sys::path_lock::{LockDir, LockError, ServiceLock};
use crate::sys::poller::Poller;
use crate::sys::{self, limits, socket};

/// The maximum size of all segments together: more than the address space of any process.
const MAX_BYTES: u64 = 1 << 47;

const MAX_FORKS: usize = 256;

/// How long requests are still answered after the service was stopped.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(100);

/// How long a service that was stopped waits until everything is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(100);

/// The keys of the descriptors that the loop waits for.
const LISTENER: u64 = 0;
const STOP: u64 = 1;
const FIRST_CLIENT: Client = 2;

/// The state of the service.
pub(super) struct Server {
    listeners: Listeners,
    /// Becomes readable when the service has to stop.
    stop: OwnedFd,
    /// Closed when no descriptors are left, to make room for one that is closed immediately.
    spare: Option<OwnedFd>,
    poller: Poller,
    registry: Registry<StoredSegment>,
    connections: BTreeMap<Client, Connection>,
    capacity: Capacity,
    /// `true` if the kernel keeps clients from sending descriptors before they have introduced themselves.
    blocks_descriptors: bool,
    deadlines: Deadlines,
    next_client: Client,
    /// The number of times that the loop has woken up.
    turn: u64,
    start: Instant,
    reaper: Reaper,
    /// The pipe of [`Command::Life`](crate::service::protocol::Command::Life), which is created when it is needed.
    life: Option<LifePipe>,
    /// `true` if the thread shares the descriptors of its program, so that a forked child has them.
    shares_descriptors: bool,
}

/// The ends of a pipe.
struct LifePipe {
    /// Dropped first: see [`ForkClosed::lent`].
    _in_children: Vec<ForkClosed>,
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Server {
    /// Claims the address and listens there.
    pub(super) fn new(
        location: &Location,
        lookup: Lookup,
        stop: OwnedFd,
        shares_descriptors: bool,
    ) -> Result<Self, StartError> {
        let denied = |error: LockError| StartError::Denied(location.clone(), error);
        let failed = |call| {
            move |errno| {
                let error = sys::failed_for(call, errno, Subject::Nothing, limits::for_watches);
                StartError::Failed(error)
            }
        };
        let directory = LockDir::open(&location.path).map_err(denied)?;
        let site = ServiceLock::claim(directory).map_err(denied)?;
        let mut poller = Poller::new().map_err(failed("epoll_create1"))?;
        let spare = sys::duplicate_quietly(&stop).map_err(failed("fcntl(F_DUPFD_CLOEXEC)"))?;
        let listeners = Listeners::new(site, lookup).map_err(denied)?;
        let blocks_descriptors = socket::let_pass_descriptors(listeners.current(), false);
        let current = listeners.current();
        poller.add(current, LISTENER).map_err(failed("epoll_ctl"))?;
        poller.add(&stop, STOP).map_err(failed("epoll_ctl"))?;
        let capacity = Capacity::of(limits::open_files());
        let mut server = Self {
            listeners,
            stop,
            spare: Some(spare),
            poller,
            registry: Registry::new(Limits {
                segments: capacity.segments,
                bytes: MAX_BYTES,
                forks: MAX_FORKS,
            }),
            connections: BTreeMap::new(),
            capacity,
            blocks_descriptors,
            deadlines: Deadlines::new(),
            next_client: FIRST_CLIENT,
            turn: 0,
            start: Instant::now(),
            reaper: Reaper::new(capacity.foreign),
            life: None,
            shares_descriptors,
        };
        if sys::SERVICE_KEEPS_LOCKS {
            server.create_life();
        }
        Ok(server)
    }

    /// Serves until the service is stopped or has to end.
    pub(super) fn serve(mut self) {
        let mut ready = Vec::new();
        loop {
            ready.clear();
            let left = self.deadlines.next().saturating_sub(self.now());
            let timeout = Some(Duration::from_millis(left));
            match self.poller.wait(timeout, &mut ready) {
                Ok(()) | Err(Errno::INTR) => {}
                // Polling itself has failed. Ending the service is better than a busy loop.
                Err(_) => break,
            }
            self.turn += 1;
            for &key in &ready {
                match key {
                    LISTENER => self.accept(),
                    STOP => return self.end(),
                    client => {
                        self.read_frame(client);
                    }
                }
            }
            if self.deadlines.next() <= self.now() && !self.expire() {
                break;
            }
            self.close_freed();
        }
        self.end();
    }

    /// Ends the service and removes its files. Clients register their segments with the next service.
    pub(super) fn end(mut self) {
        // Drain pending requests before shutting down, so that clients learn their outcome.
        let mut clients: Vec<Client> = self.connections.keys().copied().collect();
        let end = Instant::now() + DRAIN_TIMEOUT;
        while !clients.is_empty() {
            clients.retain(|&client| Instant::now() < end && self.read_frame(client));
        }
        self.listeners.remove_files();
        // Unread descriptors may block on close, so the connections are closed in the background.
        for connection in core::mem::take(&mut self.connections).into_values() {
            socket::shut_down(&connection.socket);
            self.close(connection.process, connection.introduced, connection.socket);
        }
        self.registry.clear();
        self.close_freed();
        self.reaper.finish(CLOSE_TIMEOUT);
    }

    /// Creates descriptors, of which forked children have no copies.
    fn without_children<T>(
        &self,
        create: impl FnOnce() -> Result<T, Errno>,
        descriptors: impl FnOnce(&T) -> Vec<BorrowedFd<'_>>,
    ) -> Result<(T, Vec<ForkClosed>), Errno> {
        if !self.shares_descriptors {
            return Ok((create()?, Vec::new()));
        }
        let before = Forks::until_now().map_err(|_| Errno::NOMEM)?;
        let created = create()?;
        let lent = descriptors(&created)
            .into_iter()
            .map(|fd| ForkClosed::lent(fd, before).ok_or(Errno::AGAIN))
            .collect::<Result<_, _>>()?;
        Ok((created, lent))
    }

    /// Closes the segments that no client holds any more.
    fn close_freed(&mut self) {
        for freed in self.registry.take_freed() {
            let kind = if freed.was_stored {
                Kind::Memory
            } else {
                Kind::Refused
            };
            self.reaper.close(freed.process, kind, freed.segment.fd);
        }
    }

    /// Returns the time since the start.
    fn now(&self) -> Millis {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Does what is due. Returns `false` if the service has to end.
    fn expire(&mut self) -> bool {
        let now = self.now();
        let due = self.deadlines.expire(now);
        for client in due.late {
            self.disconnect(client);
        }
        for (client, number) in due.unanswered {
            self.reply(client, number, Opcode::Open, Status::Unknown);
        }
        self.registry.expire_forks(now);
        self.reaper.retry();
        if due.accept && !self.listeners.watch(&mut self.poller) {
            self.deadlines.stop_accepting(now);
        }
        for client in due.paused {
            self.resume(client);
        }
        if due.check {
            if !self.listeners.check(&mut self.poller) {
                return false;
            }
            self.deadlines.checked(self.now());
        }
        let forks = self.registry.next_fork_expiry();
        self.deadlines.schedule(now, forks);
        true
    }
}
