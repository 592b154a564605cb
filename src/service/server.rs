//! The loop that serves: joins sockets and bookkeeping.
//!
//! Nothing in here waits for a client. A socket is read when it has something, at most one frame a
//! turn; a reply that does not fit into the socket at once ends the connection; what strangers have
//! sent is closed elsewhere.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;
use std::path::Path;
use std::time::Instant;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{Uid, geteuid};

use super::address::Lookup;
use super::closer::Closer;
use super::protocol::{Ask, Opcode, Reply, Request, Verdict};
use super::registry::{Client, Limits, Process, Refused, Registry};
use super::wire::{self, Arrival, Assembly, Parcel};
use crate::ShMemId;
use crate::sys::site::{self, Denied, File, Place, Site};
use crate::sys::watch::Watch;
use crate::sys::{self, Memory, socket};

/// How long a client may take to introduce itself, and for the rest of a frame.
const INTRODUCTION: Duration = Duration::from_secs(2);

/// How long a fork is awaited.
const FORK: Duration = Duration::from_secs(10);

/// How long a new service waits for the segments of one before it, which has died or was stopped.
const GRACE: Duration = Duration::from_millis(500);

/// How often the service checks that its files are in place. Half of [`GRACE`], so that another service
/// that has started meanwhile waits for what the clients of this one hand in.
const LOOK: Duration = Duration::from_millis(250);

/// More than the address space of any process.
const MOST_BYTES: u64 = 1 << 47;

const MOST_FORKS: usize = 256;

/// Connections that are accepted in one turn.
const ACCEPTED_AT_ONCE: usize = 16;

/// What is still heard of each client when the service is stopped.
const FRAMES_AT_THE_END: usize = 1000;

const LISTENER: u64 = 0;
const STOP: u64 = 1;
const FIRST_CLIENT: Client = 2;

/// All of the service.
pub(super) struct Server {
    /// `None` while it ends, or while what is at the path is not its own.
    site: Option<Site>,
    /// Earlier places that still lead here: for programs that were given that address, and for those
    /// outside a root directory that this process has changed to.
    older: Vec<(Site, OwnedFd)>,
    /// The user whose clients it serves.
    user: Uid,
    /// How its address is found.
    lookup: Lookup,
    /// When to check next that its files are in place.
    next_look: Moment,
    /// It has to end: another service has taken its place, or the process acts for another user by now.
    is_replaced: bool,
    listener: OwnedFd,
    stop: OwnedFd,
    /// Given up when there are no descriptors left, to accept a connection and close it.
    spare: Option<OwnedFd>,
    watch: Watch,
    registry: Registry<Kept>,
    connections: BTreeMap<Client, Connection>,
    most_connections: usize,
    /// Who has to say something until when.
    expected: BTreeMap<Client, Moment>,
    /// Who waits for a segment that somebody may still hand in.
    waiting: BTreeMap<Client, Waiting>,
    /// When the first of all these times is due. May be too early.
    due: Option<Moment>,
    next: Client,
    turn: u64,
    start: Instant,
    grace: Moment,
    closer: Closer,
}

/// Milliseconds since the service was started.
type Moment = u64;

/// A segment.
struct Kept {
    fd: OwnedFd,
    memory: Memory,
}

/// Two descriptors of the same object.
impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.memory == other.memory
    }
}

struct Connection {
    socket: OwnedFd,
    assembly: Assembly,
    introduced: bool,
    /// The last turn in which it said something.
    heard: u64,
}

struct Waiting {
    id: ShMemId,
    number: u32,
    until: Moment,
}

impl Server {
    /// Claims the address and listens there.
    pub(super) fn new(path: &Path, lookup: Lookup, stop: OwnedFd) -> Result<Self, Denied> {
        let os = |call| move |errno| Denied::Os(call, File::Socket, errno);
        let mut site = Site::claim(Place::open(path)?)?;
        let mut watch = Watch::new().map_err(os("epoll_create1"))?;
        let spare = sys::duplicate_quietly(&stop).map_err(os("fcntl(F_DUPFD_CLOEXEC)"))?;
        let listener = site.listen()?;
        watch.add(&listener, LISTENER).map_err(os("epoll_ctl"))?;
        watch.add(&stop, STOP).map_err(os("epoll_ctl"))?;
        let room = Room::of_this_process();
        Ok(Self {
            site: Some(site),
            older: Vec::new(),
            user: geteuid(),
            lookup,
            next_look: millis(LOOK),
            is_replaced: false,
            listener,
            stop,
            spare: Some(spare),
            watch,
            registry: Registry::new(Limits {
                segments: room.segments,
                bytes: MOST_BYTES,
                forks: MOST_FORKS,
            }),
            connections: BTreeMap::new(),
            most_connections: room.connections,
            expected: BTreeMap::new(),
            waiting: BTreeMap::new(),
            due: Some(millis(LOOK)),
            next: FIRST_CLIENT,
            turn: 0,
            start: Instant::now(),
            grace: millis(GRACE),
            closer: Closer::default(),
        })
    }

    /// Serves until it is told to stop.
    pub(super) fn serve(mut self) {
        let mut ready = Vec::new();
        loop {
            ready.clear();
            let timeout = self.due.map(|due| {
                let left = due.saturating_sub(self.now());
                Duration::from_millis(left)
            });
            match self.watch.wait(timeout, &mut ready) {
                Ok(()) | Err(Errno::INTR) => {}
                // The watch itself has failed: better no service than one that spins.
                Err(_) => break,
            }
            self.turn += 1;
            for &key in &ready {
                match key {
                    LISTENER => self.accept(),
                    STOP => return self.end(),
                    client => {
                        self.hear(client);
                    }
                }
            }
            if self.due.is_some_and(|due| due <= self.now()) {
                self.expire();
            }
            if self.is_replaced {
                break;
            }
        }
        self.end();
    }

    /// Removes the socket. What is held is handed to the next service.
    fn end(mut self) {
        // What was said before is heard: most of all, what was asked for.
        let clients: Vec<Client> = self.connections.keys().copied().collect();
        for client in clients {
            let mut frames = 0..FRAMES_AT_THE_END;
            while frames.next().is_some() && self.hear(client) {}
        }
        // Removes the files.
        self.site = None;
        self.older.clear();
        // What is still unread on the connections is strangers'.
        let connections = core::mem::take(&mut self.connections);
        let sockets = connections.into_values().map(|connection| {
            socket::shut_down(&connection.socket);
            connection.socket
        });
        self.closer.close(sockets.collect());
    }

    /// Checks that clients find this service, and creates its files again if they do not: the directory of a
    /// session may have been emptied, old files cleaned up, or a preferred directory become usable.
    fn look_after_site(&mut self) {
        if geteuid() != self.user {
            // It would turn away its own clients. They find, or become, another service.
            self.is_replaced = true;
            return;
        }
        let Ok((location, is_directory_made)) = self.lookup.restore() else {
            return;
        };
        let path = &location.path;
        let older = core::mem::take(&mut self.older);
        for (mut site, listener) in older {
            if site.is_intact() {
                site.keep_lock();
                self.older.push((site, listener));
            } else {
                self.watch.remove(&listener);
            }
        }
        if let Some(site) = &mut self.site {
            if site.is_found_at(path) {
                return site.keep_lock();
            }
        }
        let found = self.older.iter();
        if let Some(index) = found
            .map(|(site, _)| site)
            .position(|site| site.is_found_at(path))
        {
            let (site, listener) = self.older.swap_remove(index);
            let before = self.site.take();
            return self.move_to(before, site, listener);
        }
        // Unless it is intact, the rest of it is removed before a new one is claimed.
        let before = self.site.take().filter(Site::is_intact);
        let claimed = Place::open(path)
            .and_then(Site::claim)
            .and_then(|mut site| {
                if is_directory_made {
                    site.own_directory();
                }
                let listener = site.listen()?;
                Ok((site, listener))
            });
        match claimed {
            Ok((site, listener)) => {
                if self.watch.add(&listener, LISTENER).is_ok() {
                    return self.move_to(before, site, listener);
                }
            }
            // The clients of this one hand in there what they hold.
            Err(Denied::Occupied | Denied::Served) if site::is_served(path) => {
                self.is_replaced = true;
            }
            // It is tried again the next time.
            Err(_) => {}
        }
        self.site = before;
    }

    /// Makes this the current place. Its listener is watched already.
    fn move_to(&mut self, before: Option<Site>, site: Site, listener: OwnedFd) {
        const MOST_OLDER: usize = 4;
        let listener_before = core::mem::replace(&mut self.listener, listener);
        self.site = Some(site);
        match before {
            Some(before) if before.is_intact() && self.older.len() < MOST_OLDER => {
                self.older.push((before, listener_before));
            }
            _ => self.watch.remove(&listener_before),
        }
    }

    fn now(&self) -> Moment {
        millis(self.start.elapsed())
    }

    /// From now on, so long: as a moment at which something is due.
    fn after(&mut self, span: Duration) -> Moment {
        let moment = self.now() + millis(span);
        self.due = Some(self.due.map_or(moment, |due| due.min(moment)));
        moment
    }

    fn accept_one(&self) -> Result<OwnedFd, Errno> {
        let older = self.older.iter().map(|(_, listener)| listener);
        let mut accepted = Err(Errno::AGAIN);
        for listener in core::iter::once(&self.listener).chain(older) {
            accepted = socket::accept(listener);
            if !matches!(accepted, Err(Errno::AGAIN)) {
                break;
            }
        }
        accepted
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTED_AT_ONCE {
            match self.accept_one() {
                Ok(socket) => self.admit(socket),
                Err(Errno::AGAIN) => return,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                    return self.turn_away();
                }
                // That connection has ended before it was accepted.
                Err(_) => {}
            }
        }
    }

    /// Takes in a connection, if it is one of this user.
    fn admit(&mut self, socket: OwnedFd) {
        let other = socket::other(&socket).ok();
        let ours = other.filter(|other| other.user == geteuid().as_raw());
        let Some(other) = ours else {
            return;
        };
        let client = self.next;
        let process = other
            .process
            .map_or(Process::Unknown(client), Process::Known);
        let is_full = self.connections.len() >= self.most_connections;
        if self.has_enough(process) || is_full && !self.let_an_idle_one_go() {
            let full = Reply {
                number: 0,
                to: Opcode::Hello,
                verdict: Verdict::Full,
                size: 0,
            };
            // It may not be there any more.
            let _ = wire::send(&socket, &full.encode(), None);
            return;
        }
        socket::keep_little_unread(&socket);
        if self.watch.add(&socket, client).is_err() {
            return;
        }
        self.next += 1;
        self.registry.connect(client, process);
        let until = self.after(INTRODUCTION);
        self.expected.insert(client, until);
        self.connections.insert(
            client,
            Connection {
                socket,
                assembly: Assembly::new(),
                introduced: false,
                heard: self.turn,
            },
        );
    }

    /// Whether a process has so many connections that another one would be at the expense of others:
    /// half of all that there may be.
    fn has_enough(&self, process: Process) -> bool {
        let half = self.most_connections.div_ceil(2);
        self.connections.len() >= half && self.registry.clients_of(process) >= half
    }

    /// Accepts a connection by the spare descriptor, and closes it: otherwise the listener would be
    /// ready for ever.
    fn turn_away(&mut self) {
        self.spare = None;
        let turned_away = self.accept_one().is_ok();
        self.spare = sys::duplicate_quietly(&self.stop).ok();
        if !turned_away {
            // There is nothing to be had in the whole system.
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Closes the connection that holds nothing and has been silent longest. Whether there was one.
    fn let_an_idle_one_go(&mut self) -> bool {
        let idle = self.connections.iter().filter(|(client, _)| {
            self.registry.holds_nothing(**client) && !self.waiting.contains_key(client)
        });
        let idle = idle.min_by_key(|(_, connection)| (connection.introduced, connection.heard));
        let Some((&client, _)) = idle else {
            return false;
        };
        self.expel(client, Parcel::default());
        true
    }

    /// Reads what a client says, one frame at most. Whether there may be more.
    fn hear(&mut self, client: Client) -> bool {
        // It may have been let go earlier in this turn.
        let Some(connection) = self.connections.get_mut(&client) else {
            return false;
        };
        connection.heard = self.turn;
        match connection.assembly.receive(&connection.socket) {
            Arrival::Frame(frame, parcel) => match Request::decode(&frame) {
                Some(request) => self.answer(client, request, parcel),
                None => self.expel(client, parcel),
            },
            Arrival::Part => {
                if !self.expected.contains_key(&client) {
                    let until = self.after(INTRODUCTION);
                    self.expected.insert(client, until);
                }
            }
            Arrival::Nothing | Arrival::Interrupted => return false,
            Arrival::End => drop(self.forget(client)),
            Arrival::Broken => self.expel(client, Parcel::default()),
            Arrival::Rubbish(parcel) => self.expel(client, parcel),
        }
        true
    }

    fn answer(&mut self, client: Client, request: Request, parcel: Parcel) {
        let Some(connection) = self.connections.get_mut(&client) else {
            return;
        };
        let is_hello = matches!(request.ask, Ask::Hello(_));
        let takes_parcel = matches!(request.ask, Ask::Register { .. });
        let impatient = self.waiting.contains_key(&client);
        let unasked = !takes_parcel && (parcel.lost || !parcel.descriptors.is_empty());
        if is_hello == connection.introduced || impatient || unasked {
            return self.expel(client, parcel);
        }
        connection.introduced = true;
        self.expected.remove(&client);
        let verdict = match request.ask {
            Ask::Hello(None) => Verdict::Done,
            Ask::Hello(Some(token)) => known(self.registry.adopt(client, token)),
            Ask::Register { id, size } => self.register(client, id, size.get(), parcel),
            Ask::Open(id) => return self.open(client, id, request.number),
            Ask::Release(id) => {
                self.registry.release(client, id);
                return;
            }
            Ask::Fork(token) => {
                let until = self.after(FORK);
                if self.registry.announce(client, token, until) {
                    Verdict::Done
                } else {
                    Verdict::Full
                }
            }
        };
        self.reply(client, request.number, request.ask.opcode(), verdict);
        if let Ask::Register { id, .. } = request.ask {
            self.serve_those_who_wait_for(id);
        }
    }

    fn register(&mut self, client: Client, id: ShMemId, size: u64, parcel: Parcel) -> Verdict {
        let Parcel { descriptors, lost } = parcel;
        if lost {
            self.closer.close(descriptors);
            return Verdict::Full;
        }
        let fd = match <[OwnedFd; 1]>::try_from(descriptors) {
            Ok([fd]) => fd,
            Err(descriptors) => {
                self.closer.close(descriptors);
                return Verdict::BadDescriptor;
            }
        };
        let Some(memory) = Memory::behind(&fd).filter(|memory| memory.may_have(size)) else {
            self.closer.close([fd].into());
            return Verdict::BadDescriptor;
        };
        match self
            .registry
            .register(client, id, size, Kept { fd, memory })
        {
            Ok(()) => Verdict::Done,
            Err(Refused::Taken) => Verdict::Taken,
            Err(Refused::Full) => Verdict::Full,
        }
    }

    fn open(&mut self, client: Client, id: ShMemId, number: u32) {
        let Some((kept, size)) = self.registry.open(client, id) else {
            let now = self.now();
            if now < self.grace {
                let until = self.after(Duration::from_millis(self.grace - now));
                self.waiting.insert(client, Waiting { id, number, until });
                return;
            }
            return self.reply(client, number, Opcode::Open, Verdict::Unknown);
        };
        let reply = Reply {
            number,
            to: Opcode::Open,
            verdict: Verdict::Done,
            size,
        };
        let Some(connection) = self.connections.get(&client) else {
            return;
        };
        match send(connection, reply, Some(kept.fd.as_fd())) {
            Ok(()) => {}
            Err(socket::CROWDED) => {
                self.registry.release(client, id);
                self.reply(client, number, Opcode::Open, Verdict::Busy);
            }
            Err(_) => self.expel(client, Parcel::default()),
        }
    }

    fn reply(&mut self, client: Client, number: u32, to: Opcode, verdict: Verdict) {
        let reply = Reply {
            number,
            to,
            verdict,
            size: 0,
        };
        let sent = self
            .connections
            .get(&client)
            .map(|connection| send(connection, reply, None));
        if let Some(Err(_)) = sent {
            self.expel(client, Parcel::default());
        }
    }

    fn serve_those_who_wait_for(&mut self, id: ShMemId) {
        let waiting = self.waiting.iter().filter(|(_, waiting)| waiting.id == id);
        let waiting: Vec<_> = waiting
            .map(|(&client, found)| (client, found.number))
            .collect();
        for (client, number) in waiting {
            self.waiting.remove(&client);
            self.open(client, id, number);
        }
    }

    /// Does what is due by now.
    fn expire(&mut self) {
        let now = self.now();
        let late = self.expected.iter().filter(|&(_, &until)| until <= now);
        let late: Vec<Client> = late.map(|(&client, _)| client).collect();
        for client in late {
            self.expel(client, Parcel::default());
        }
        let in_vain = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.until <= now);
        let in_vain: Vec<_> = in_vain
            .map(|(&client, found)| (client, found.number))
            .collect();
        for (client, number) in in_vain {
            self.waiting.remove(&client);
            self.reply(client, number, Opcode::Open, Verdict::Unknown);
        }
        self.registry.expire(now);
        if self.next_look <= now {
            self.look_after_site();
            self.next_look = self.now() + millis(LOOK);
        }
        let expected = self.expected.values().copied();
        let waiting = self.waiting.values().map(|waiting| waiting.until);
        let forks = self.registry.next_expiry();
        let look = Some(self.next_look);
        self.due = expected.chain(waiting).chain(forks).chain(look).min();
    }

    /// Lets a client go that has done what it must not. There may be more from it in the socket.
    fn expel(&mut self, client: Client, parcel: Parcel) {
        let mut descriptors = parcel.descriptors;
        if let Some(socket) = self.forget(client) {
            socket::shut_down(&socket);
            descriptors.push(socket);
        }
        self.closer.close(descriptors);
    }

    /// Forgets a client and lets go of what only it held. Returns its socket.
    fn forget(&mut self, client: Client) -> Option<OwnedFd> {
        let connection = self.connections.remove(&client)?;
        self.watch.remove(&connection.socket);
        self.registry.disconnect(client);
        self.expected.remove(&client);
        self.waiting.remove(&client);
        Some(connection.socket)
    }
}

fn send(
    connection: &Connection,
    reply: Reply,
    passed: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    wire::send(&connection.socket, &reply.encode(), passed)
}

fn known(is_known: bool) -> Verdict {
    if is_known {
        Verdict::Done
    } else {
        Verdict::Unknown
    }
}

fn millis(span: Duration) -> Moment {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// For how much there are descriptors.
struct Room {
    connections: usize,
    segments: usize,
}

impl Room {
    /// A part is kept free: for the service itself, and for the 253 that one message may carry.
    fn of_this_process() -> Self {
        const OWN: u64 = 27;
        const ONE_MESSAGE: u64 = 253;
        const MOST: u64 = 1 << 20;
        let limit = sys::limits::open_files().unwrap_or(MOST).min(MOST);
        let free = (limit / 8).min(OWN + ONE_MESSAGE);
        let room = usize::try_from(limit.saturating_sub(free)).unwrap_or(0);
        Self {
            connections: (room / 2).max(1),
            segments: (room / 2).max(1),
        }
    }
}
