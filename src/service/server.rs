//! The loop that serves: joins sockets and bookkeeping.
//!
//! Nothing in here waits for a client. A socket is read when it has something, at most one frame a
//! turn; a reply that does not fit into the socket at once ends the connection; memory, and whatever
//! clients have sent, is closed elsewhere. A frame is looked at before it is taken: a descriptor is
//! accepted with a valid `Register` of a client that has introduced itself, one at a time, and from no
//! process of which too many are still being closed.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;
use std::path::Path;
use std::time::Instant;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{Uid, geteuid};

use super::address::Lookup;
use super::closer::{Closer, Kind};
use super::protocol::{Ask, Opcode, Reply, Request, Verdict};
use super::registry::{Client, Closing, Limits, Process, Refused, Registry, is_fair};
use super::wire::{self, Arrival, Assembly};
use crate::ShMemId;
use crate::sys::site::{self, Denied, File, Place, Site};
use crate::sys::socket::Passed;
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

/// How long clients are still heard when the service is stopped.
const LAST_FRAMES: Duration = Duration::from_millis(100);

/// How long a service that is stopped waits until everything is closed.
const LAST_CLOSING: Duration = Duration::from_millis(100);

/// How long to wait before trying again what there was no room for.
const RETRY: Duration = Duration::from_millis(5);

/// How many idle clients are looked at to find one that has nothing to say.
const CANDIDATES: usize = 8;

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
    /// Whether no descriptor can be in a connection before it was introduced.
    is_guarded: bool,
    /// Until when no connection is accepted, if so.
    not_accepting: Option<Moment>,
    /// Who is not read because too much of its process is still being closed.
    paused: BTreeSet<Client>,
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
    process: Process,
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
        let is_guarded = socket::let_pass_descriptors(&listener, false);
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
            is_guarded,
            not_accepting: None,
            paused: BTreeSet::new(),
            expected: BTreeMap::new(),
            waiting: BTreeMap::new(),
            due: Some(millis(LOOK)),
            next: FIRST_CLIENT,
            turn: 0,
            start: Instant::now(),
            grace: millis(GRACE),
            closer: Closer::new(room.foreign),
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
            self.close_freed();
            if self.is_replaced {
                break;
            }
        }
        self.end();
    }

    /// Removes the socket. What is held is handed to the next service.
    pub(super) fn end(mut self) {
        // What was said before is heard: most of all, what was asked for.
        let mut clients: Vec<Client> = self.connections.keys().copied().collect();
        let end = Instant::now() + LAST_FRAMES;
        while !clients.is_empty() {
            clients.retain(|&client| Instant::now() < end && self.hear(client));
        }
        // Removes the files.
        self.site = None;
        self.older.clear();
        // What is still unread on the connections is strangers'.
        for connection in core::mem::take(&mut self.connections).into_values() {
            socket::shut_down(&connection.socket);
            self.dispose(connection.process, connection.introduced, connection.socket);
        }
        self.registry.clear();
        self.close_freed();
        self.closer.finish(LAST_CLOSING);
    }

    /// Has the memory closed that nobody holds any more.
    fn close_freed(&mut self) {
        for freed in self.registry.freed() {
            let kind = if freed.was_kept {
                Kind::Memory
            } else {
                Kind::Refused
            };
            self.closer.close(freed.process, kind, freed.segment.fd);
        }
    }

    /// Closes a connection.
    fn dispose(&mut self, process: Process, introduced: bool, socket: OwnedFd) {
        if self.is_guarded && !introduced {
            // Nobody could put a descriptor in, so that this does not take long.
            drop(socket);
        } else {
            self.closer.close(process, Kind::Connection, socket);
        }
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
        let mut accepted = Err(Errno::AGAIN);
        for listener in listeners(&self.listener, &self.older) {
            accepted = socket::accept(listener);
            if !matches!(accepted, Err(Errno::AGAIN)) {
                break;
            }
        }
        accepted
    }

    fn accept(&mut self) {
        self.restore_spare();
        for _ in 0..ACCEPTED_AT_ONCE {
            // What waits to be closed takes up descriptors as well.
            if self.closer.waiting(Kind::Connection) >= self.most_connections {
                return self.stop_accepting();
            }
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

    /// Opens the spare descriptor again if it was given up, unless there is none left.
    fn restore_spare(&mut self) {
        if self.spare.is_none() {
            self.spare = sys::duplicate_quietly(&self.stop).ok();
        }
    }

    /// Watches all listeners, whether they are watched already or not. Returns whether that worked.
    fn watch_listeners(&mut self) -> bool {
        let mut are_watched = true;
        for listener in listeners(&self.listener, &self.older) {
            self.watch.remove(listener);
            are_watched &= self.watch.add(listener, LISTENER).is_ok();
        }
        are_watched
    }

    /// Does not accept connections for a moment.
    fn stop_accepting(&mut self) {
        for listener in listeners(&self.listener, &self.older) {
            self.watch.remove(listener);
        }
        self.not_accepting = Some(self.after(RETRY));
    }

    /// Takes in a connection, if it is one of this user.
    fn admit(&mut self, socket: OwnedFd) {
        let Ok(other) = socket::other(&socket) else {
            return self.dispose(Process::Unknown, false, socket);
        };
        let process = self.process_of(&other);
        if other.user != geteuid().as_raw() {
            return self.dispose(process, false, socket);
        }
        let refused = if self.closer.is_behind(process) {
            Some(Verdict::Busy)
        } else if self.has_room_for(process) {
            None
        } else {
            Some(Verdict::Full)
        };
        if let Some(verdict) = refused {
            let refusal = Reply {
                number: 0,
                to: Opcode::Hello,
                verdict,
                size: 0,
            };
            // It may not be there any more.
            let _ = wire::send(&socket, &refusal.encode(), None);
            return self.dispose(process, false, socket);
        }
        socket::keep_little_unread(&socket);
        let client = self.next;
        if self.watch.add(&socket, client).is_err() {
            return self.dispose(process, false, socket);
        }
        self.next += 1;
        self.registry.connect(client, process);
        let until = self.after(INTRODUCTION);
        self.expected.insert(client, until);
        self.connections.insert(
            client,
            Connection {
                socket,
                process,
                assembly: Assembly::new(),
                introduced: false,
                heard: self.turn,
            },
        );
    }

    /// The process of a new connection. On systems that do not tell, each connection counts as a process
    /// of its own; elsewhere only processes of other pid namespaces are not known, and count as one.
    fn process_of(&self, other: &socket::Other) -> Process {
        match other.process {
            Some(process) => Process::Known(process),
            None if socket::TELLS_PROCESSES => Process::Unknown,
            None => Process::Known(u32::try_from(self.next % (1 << 31)).unwrap_or(0)),
        }
    }

    /// Whether a process may have one more connection: as many as are left for all others, and of the last
    /// ones only if it has few. If none is left, an idle one is closed.
    fn has_room_for(&mut self, process: Process) -> bool {
        let taken = self.connections.len() + self.closer.waiting(Kind::Connection);
        match self.most_connections.saturating_sub(taken) {
            0 => self.let_an_idle_one_go(),
            room => {
                let own = self.registry.clients_of(process);
                own < room && is_fair(own as u64, room as u64, self.most_connections as u64)
            }
        }
    }

    /// Accepts a connection by the spare descriptor, and closes it: otherwise the listener would be
    /// ready for ever.
    fn turn_away(&mut self) {
        self.spare = None;
        match self.accept_one() {
            Ok(socket) => {
                let other = socket::other(&socket);
                let process = other.map_or(Process::Unknown, |other| self.process_of(&other));
                self.dispose(process, false, socket);
            }
            Err(Errno::AGAIN) => {}
            // There are none left in the whole system, or too many wait to be closed.
            Err(_) => self.stop_accepting(),
        }
        self.spare = sys::duplicate_quietly(&self.stop).ok();
    }

    /// Closes the connection that holds nothing and has been silent longest. Whether there was one.
    fn let_an_idle_one_go(&mut self) -> bool {
        let idle = self.connections.iter().filter(|(client, _)| {
            self.registry.holds_nothing(**client) && !self.waiting.contains_key(client)
        });
        let mut idle: Vec<_> = idle
            .map(|(&client, connection)| (connection.introduced, connection.heard, client))
            .collect();
        idle.sort_unstable();
        // A client with an unread request is not idle.
        let silent = idle.iter().take(CANDIDATES).find(|(_, _, client)| {
            let connection = self.connections.get(client);
            connection.is_some_and(|connection| socket::is_silent(&connection.socket))
        });
        let Some(&(_, _, client)) = silent else {
            return false;
        };
        self.expel(client);
        true
    }

    /// Reads what a client says, one frame at most. Whether there may be more.
    fn hear(&mut self, client: Client) -> bool {
        // It may have been let go earlier in this turn.
        let Some(connection) = self.connections.get_mut(&client) else {
            return false;
        };
        if self.paused.contains(&client) {
            // It is not read, so that this is the end.
            if socket::is_hung_up(&connection.socket) {
                self.expel(client);
            }
            return false;
        }
        connection.heard = self.turn;
        match connection.assembly.look(&connection.socket) {
            Arrival::Frame(frame, has_descriptors) => match Request::decode(&frame) {
                Some(request) => return self.consider(client, request, has_descriptors),
                None => self.expel(client),
            },
            Arrival::Part => {
                if !self.expected.contains_key(&client) {
                    let until = self.after(INTRODUCTION);
                    self.expected.insert(client, until);
                }
            }
            Arrival::Nothing | Arrival::Interrupted => return false,
            Arrival::End | Arrival::Broken | Arrival::Invalid => self.expel(client),
        }
        true
    }

    /// Takes a request from the socket and answers it, if the client may ask for this now. Whether there
    /// may be more.
    fn consider(&mut self, client: Client, request: Request, has_descriptors: bool) -> bool {
        let Some(connection) = self.connections.get_mut(&client) else {
            return false;
        };
        let is_hello = matches!(request.ask, Ask::Hello(_));
        let is_register = matches!(request.ask, Ask::Register { .. });
        let impatient = self.waiting.contains_key(&client);
        if is_hello == connection.introduced || impatient || has_descriptors && !is_register {
            self.expel(client);
            return true;
        }
        if is_register && self.closer.is_behind(connection.process) {
            self.pause(client);
            return false;
        }
        let taken = connection
            .assembly
            .take(&connection.socket, has_descriptors);
        let passed = match taken {
            Ok(Passed::NoRoom) if socket::PEEK_SHOWS_DESCRIPTORS => self.take_with_spare(client),
            Ok(passed) => passed,
            Err(_) => Passed::NoRoom,
        };
        match passed {
            Passed::Nothing if !is_register => self.answer(client, request, None),
            Passed::Nothing => self.answer(client, request, Some(Err(Verdict::BadDescriptor))),
            Passed::One(fd) if is_register => self.answer(client, request, Some(Ok(fd))),
            Passed::One(fd) => self.close_foreign(client, [fd].into()),
            Passed::Several(descriptors) => self.close_foreign(client, descriptors),
            // It was taken, and its descriptors are lost.
            Passed::NoRoom if is_register && !socket::PEEK_SHOWS_DESCRIPTORS => {
                self.answer(client, request, Some(Err(Verdict::Full)));
            }
            Passed::NoRoom => self.expel(client),
        }
        true
    }

    /// Takes a request for whose descriptor there is no room, by giving up the spare one. The request is
    /// then refused, and the descriptor closed.
    fn take_with_spare(&mut self, client: Client) -> Passed {
        self.spare = None;
        let Some(connection) = self.connections.get_mut(&client) else {
            return Passed::NoRoom;
        };
        let taken = connection.assembly.take(&connection.socket, true);
        taken.unwrap_or(Passed::NoRoom)
    }

    /// Has descriptors closed that a client should not have sent, and lets it go.
    fn close_foreign(&mut self, client: Client, descriptors: Vec<OwnedFd>) {
        let connection = self.connections.get(&client);
        let process = connection.map_or(Process::Unknown, |connection| connection.process);
        for fd in descriptors {
            self.closer.close(process, Kind::Foreign, fd);
        }
        self.expel(client);
    }

    /// Does not read what a client says until less of its process waits to be closed.
    fn pause(&mut self, client: Client) {
        let Some(connection) = self.connections.get(&client) else {
            return;
        };
        if self.watch.read(&connection.socket, client, false).is_err() {
            return self.expel(client);
        }
        self.paused.insert(client);
        self.after(RETRY);
    }

    /// Reads a paused client again, if it may be.
    fn resume(&mut self, client: Client) {
        let Some(connection) = self.connections.get(&client) else {
            self.paused.remove(&client);
            return;
        };
        if self.closer.is_behind(connection.process) {
            return;
        }
        self.paused.remove(&client);
        if self.watch.read(&connection.socket, client, true).is_err() {
            self.expel(client);
        }
    }

    fn answer(
        &mut self,
        client: Client,
        request: Request,
        passed: Option<Result<OwnedFd, Verdict>>,
    ) {
        let Some(connection) = self.connections.get_mut(&client) else {
            return;
        };
        connection.introduced = true;
        self.expected.remove(&client);
        let verdict = match request.ask {
            Ask::Hello(token) => {
                if self.is_guarded && !socket::let_pass_descriptors(&connection.socket, true) {
                    return self.expel(client);
                }
                token.map_or(Verdict::Done, |token| {
                    known(self.registry.adopt(client, token))
                })
            }
            Ask::Register { id, size } => self.register(client, id, size.get(), passed),
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

    fn register(
        &mut self,
        client: Client,
        id: ShMemId,
        size: u64,
        passed: Option<Result<OwnedFd, Verdict>>,
    ) -> Verdict {
        let connection = self.connections.get(&client);
        let process = connection.map_or(Process::Unknown, |connection| connection.process);
        let fd = match passed {
            Some(Ok(fd)) => fd,
            Some(Err(verdict)) => return verdict,
            None => return Verdict::BadDescriptor,
        };
        let Some(memory) = Memory::behind(&fd) else {
            self.closer.close(process, Kind::Foreign, fd);
            return Verdict::BadDescriptor;
        };
        // Given up for an earlier request, it is missed only as long as descriptors are.
        self.restore_spare();
        if self.spare.is_none() || !memory.may_have(size) {
            self.closer.close(process, Kind::Refused, fd);
            return match self.spare {
                Some(_) => Verdict::BadDescriptor,
                None => Verdict::Full,
            };
        }
        let closing = Closing {
            own: self.closer.memory_of(process),
            all: self.closer.waiting(Kind::Memory),
        };
        let kept = Kept { fd, memory };
        match self.registry.register(client, id, size, kept, closing) {
            Ok(()) => Verdict::Done,
            Err(Refused::Taken) => Verdict::Taken,
            Err(Refused::Full | Refused::Unknown) => Verdict::Full,
        }
    }

    fn open(&mut self, client: Client, id: ShMemId, number: u32) {
        let now = self.now();
        let (kept, size) = match self.registry.open(client, id) {
            Ok(found) => found,
            Err(Refused::Unknown) if now < self.grace => {
                let until = self.after(Duration::from_millis(self.grace - now));
                self.waiting.insert(client, Waiting { id, number, until });
                return;
            }
            Err(Refused::Unknown) => {
                return self.reply(client, number, Opcode::Open, Verdict::Unknown);
            }
            Err(_) => return self.reply(client, number, Opcode::Open, Verdict::Full),
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
            Err(_) => self.expel(client),
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
            self.expel(client);
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
            self.expel(client);
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
        self.closer.try_again();
        if self.not_accepting.is_some_and(|until| until <= now) {
            self.not_accepting = None;
            if !self.watch_listeners() {
                self.not_accepting = Some(now + millis(RETRY));
            }
        }
        for client in self.paused.clone() {
            self.resume(client);
        }
        if self.next_look <= now {
            self.look_after_site();
            self.next_look = self.now() + millis(LOOK);
        }
        let retry = self.not_accepting.into_iter().chain([self.next_look]);
        let retry = retry.chain((!self.paused.is_empty()).then(|| now + millis(RETRY)));
        let expected = self.expected.values().copied();
        let waiting = self.waiting.values().map(|waiting| waiting.until);
        let forks = self.registry.next_expiry();
        self.due = expected.chain(waiting).chain(forks).chain(retry).min();
    }

    /// Forgets a client, lets go of what only it held, and closes its connection, in which there may be
    /// more from it.
    fn expel(&mut self, client: Client) {
        let Some(connection) = self.connections.remove(&client) else {
            return;
        };
        self.watch.remove(&connection.socket);
        self.registry.disconnect(client);
        self.expected.remove(&client);
        self.waiting.remove(&client);
        self.paused.remove(&client);
        socket::shut_down(&connection.socket);
        self.dispose(connection.process, connection.introduced, connection.socket);
    }
}

fn send(
    connection: &Connection,
    reply: Reply,
    passed: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    wire::send(&connection.socket, &reply.encode(), passed)
}

/// The current listener and those of earlier places.
fn listeners<'a>(
    current: &'a OwnedFd,
    older: &'a [(Site, OwnedFd)],
) -> impl Iterator<Item = &'a OwnedFd> {
    core::iter::once(current).chain(older.iter().map(|(_, listener)| listener))
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
    /// Descriptors that clients should not have sent and that are still being closed.
    foreign: usize,
}

impl Room {
    /// A part is kept free: for the service itself, and for what is being closed.
    fn of_this_process() -> Self {
        const OWN: u64 = 24;
        const FOREIGN: u64 = 256;
        const MOST: u64 = 1 << 20;
        let limit = sys::limits::open_files().unwrap_or(MOST).min(MOST);
        let free = (limit / 8).min(OWN + FOREIGN);
        let count = |number| usize::try_from(number).unwrap_or(0);
        let room = count(limit.saturating_sub(free));
        Self {
            connections: (room / 2).max(1),
            segments: (room / 2).max(1),
            foreign: count(free.saturating_sub(OWN) / 2).max(1),
        }
    }
}
