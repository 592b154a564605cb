//! The other side: what a provider and its clones hold, over one connection that is made when it is
//! needed, made anew when the service has died, and again in a forked child.

mod connection;
mod monitor;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::num::NonZeroU64;
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

use self::connection::{ANSWER, Absent, Broken, Connection, GREETING};
use self::monitor::{Keeper, Watch};
use crate::error::{Error, Result, Subject};
use crate::id::ShMemId;
use crate::process::Owner;
use crate::process::fork_lock::{ForkLock, Guard};
use crate::service::address::Address;
use crate::service::host::ShMemService;
use crate::service::protocol::{Command, Reply, Request, Status, Token};
use crate::sys::path_lock::{Place, Site};
use crate::sys::{self, socket};
use crate::util::base64;
use crate::util::fixed_str::Text;

/// How long an operation may take: waiting for other threads' operations, reaching a service or starting
/// one, handing in what is held, and the request.
const DEADLINE: Duration = Duration::from_secs(3);

/// How much of that is left for an operation that had to wait for others, if those have succeeded.
const LEAST: Duration = Duration::from_secs(1);

/// How long the keeper tries at once, and how long it leaves the lock to others then.
const KEEPER_TRIES: Duration = GREETING;
const KEEPER_RESTS: Duration = Duration::from_millis(100);

/// How long to wait before looking again whether somebody who starts a service is done.
const PAUSE: Duration = Duration::from_millis(1);

/// What a provider, its clones and its segments share. The last of them ends the connection and the
/// threads, and has seen them end when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Client {
    shared: Arc<Shared>,
}

/// What they share with the keeper as well.
#[derive(Debug, Default)]
struct Shared {
    address: Address,
    state: ForkLock<State>,
}

/// A hold of this process on a segment: let go of when it is dropped.
#[derive(Debug)]
pub struct Held {
    id: ShMemId,
    size: NonZeroU64,
    fd: Arc<OwnedFd>,
    client: Arc<Client>,
}

/// A segment, for as long as this process has a hold on it.
struct Segment {
    size: NonZeroU64,
    fd: Arc<OwnedFd>,
    /// How many.
    holds: usize,
}

#[derive(Default)]
struct State {
    /// The process that all this belongs to, once there is something.
    owner: Option<Owner>,
    connection: Option<Arc<Connection>>,
    /// Whether the service of the last connection has ended, and no other was found since.
    is_deserted: bool,
    /// Of the last request.
    number: u32,
    /// What the service has to be handed yet, and what it was handed and has not answered, since when.
    rest: Vec<ShMemId>,
    handed: Option<(Request, Instant)>,
    /// What the service has to be told was let go, when it reads again.
    released: Vec<ShMemId>,
    held: BTreeMap<ShMemId, Segment>,
    keeper: Option<Keeper>,
    /// Whether the keeper is at work.
    is_restored: bool,
    /// If nobody else served.
    service: Option<ShMemService>,
    /// When an operation failed last because the service did not answer.
    failed: Option<Instant>,
    /// Of the fork that is about to happen, or has just happened.
    token: Option<Token>,
}

impl Client {
    pub(crate) fn at(path: &Path) -> Self {
        Self {
            shared: Arc::new(Shared {
                address: Address::chosen(path),
                state: ForkLock::default(),
            }),
        }
    }

    pub(crate) fn address(&self) -> Result<PathBuf> {
        Ok(self.shared.address.locate()?.path)
    }

    /// Connects, if that was not done before.
    pub(crate) fn connect(&self) -> Result<()> {
        let start = Instant::now();
        let mut state = self.shared.state()?;
        let deadline = self.shared.deadline(&state, start)?;
        self.shared.ensure_connected(&mut state, deadline)
    }

    /// Has the service keep a segment, under a new id.
    pub(crate) fn register(self: &Arc<Self>, size: usize, fd: OwnedFd) -> Result<Held> {
        let size = u64::try_from(size).ok().and_then(NonZeroU64::new);
        let size = size.ok_or(Error::InvalidSize { size: 0 })?;
        let start = Instant::now();
        let mut state = self.shared.state()?;
        let deadline = self.shared.deadline(&state, start)?;
        let mut tries = 4;
        loop {
            let id = random_text(b's')?;
            let command = Command::Register { id, size };
            let (reply, _) = self
                .shared
                .request(&mut state, command, Some(fd.as_fd()), deadline)?;
            tries -= 1;
            match reply.status {
                Status::Done => return Ok(self.hold(&mut state, id, size, fd)),
                Status::Taken if tries > 0 => {}
                status => return Err(self.shared.refused(id, status)),
            }
        }
    }

    /// Has the service hand out a segment.
    pub(crate) fn open(self: &Arc<Self>, id: ShMemId) -> Result<Held> {
        let start = Instant::now();
        let mut state = self.shared.state()?;
        let deadline = self.shared.deadline(&state, start)?;
        let (reply, fd) = self
            .shared
            .request(&mut state, Command::Open(id), None, deadline)?;
        match (reply.status, NonZeroU64::new(reply.size), fd) {
            (Status::Done, Some(size), Some(fd)) => Ok(self.hold(&mut state, id, size, fd)),
            (status, ..) => Err(self.shared.refused(id, status)),
        }
    }

    /// Tells the service that a child will be forked, and keeps the state together until
    /// [`post_fork`](Self::post_fork).
    pub(crate) fn pre_fork(&self) -> Result<()> {
        self.shared.address.look_up();
        let start = Instant::now();
        let mut state = self.shared.state()?;
        let deadline = self.shared.deadline(&state, start)?;
        if state.connection.is_some() || !state.held.is_empty() {
            let token = random_text(b't')?;
            let command = Command::Fork(token);
            let (reply, _) = self.shared.request(&mut state, command, None, deadline)?;
            // Otherwise the child hands in by itself what it holds.
            state.token = (reply.status == Status::Done).then_some(token);
        }
        // What the child will find is what the service was told of.
        state.hold();
        Ok(())
    }

    /// In the child, makes a connection of its own.
    pub(crate) fn post_fork(&self, is_child: bool) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        let mut state = self.shared.state.lock()?;
        if !is_child {
            state.token = None;
            return Ok(());
        }
        let announced = state.token.is_some();
        let current = state.current();
        state.leave_to_parent(current);
        if announced || !state.held.is_empty() {
            self.shared.ensure_connected(&mut state, deadline)?;
        }
        Ok(())
    }

    /// One more hold on the same segment.
    pub(crate) fn hold_again(self: &Arc<Self>, held: &Held) -> Result<Held> {
        if let Some(segment) = self.shared.state()?.held.get_mut(&held.id) {
            segment.holds += 1;
        }
        Ok(Held {
            id: held.id,
            size: held.size,
            fd: Arc::clone(&held.fd),
            client: Arc::clone(self),
        })
    }

    /// Takes down a hold, and has it watched over.
    fn hold(
        self: &Arc<Self>,
        state: &mut State,
        id: ShMemId,
        size: NonZeroU64,
        fd: OwnedFd,
    ) -> Held {
        let fd = Arc::new(fd);
        let segment = state.held.entry(id).or_insert_with(|| Segment {
            size,
            fd: Arc::clone(&fd),
            holds: 0,
        });
        segment.holds += 1;
        self.shared.watch_over(state);
        Held {
            id,
            size,
            fd,
            client: Arc::clone(self),
        }
    }
}

impl Shared {
    /// The state of this process.
    fn state(&self) -> Result<Guard<'_, State>> {
        let mut state = self.state.lock()?;
        let current = state.current();
        state.leave_to_parent(current);
        Ok(state)
    }

    /// The same when no client is left, so that nobody needs it after a fork.
    fn last_state(&self) -> Guard<'_, State> {
        let mut state = self.state.lock_now();
        let current = state.current();
        state.leave_to_parent(current);
        state
    }

    /// One hold less; after the last, the service is told, if it reads.
    fn release(&self, id: ShMemId) {
        // Otherwise it stays with the client.
        let Ok(mut state) = self.state() else {
            return;
        };
        let Some(segment) = state.held.get_mut(&id) else {
            return;
        };
        segment.holds = segment.holds.saturating_sub(1);
        if segment.holds > 0 {
            return;
        }
        state.held.remove(&id);
        if state.connection.is_some() {
            state.released.push(id);
            state.tell_released(None);
            if let (false, Some(keeper)) = (state.released.is_empty(), &state.keeper) {
                keeper.wake();
            }
        }
    }

    /// When an operation has to end that was begun at `start`, before it waited for those of other threads.
    ///
    /// If one of them has found out meanwhile that nobody answers, that is the outcome of all.
    fn deadline(&self, state: &State, start: Instant) -> Result<Instant> {
        if state.failed.is_some_and(|failed| failed >= start) {
            return Err(self.problem("does not answer"));
        }
        Ok((start + DEADLINE).max(Instant::now() + LEAST))
    }

    /// Asks, and asks again if the service died over it. Not for requests without a reply.
    fn request(
        self: &Arc<Self>,
        state: &mut State,
        command: Command,
        passed: Option<BorrowedFd<'_>>,
        deadline: Instant,
    ) -> Result<(Reply, Option<OwnedFd>)> {
        let answer = self.try_request(state, command, passed, deadline);
        if matches!(answer, Err(Error::Service { .. })) {
            state.failed = Some(Instant::now());
        }
        answer
    }

    fn try_request(
        self: &Arc<Self>,
        state: &mut State,
        command: Command,
        passed: Option<BorrowedFd<'_>>,
        deadline: Instant,
    ) -> Result<(Reply, Option<OwnedFd>)> {
        loop {
            self.ensure_connected(state, deadline)?;
            state.tell_released(Some(deadline));
            let Some(connection) = state.connection.clone() else {
                if Instant::now() < deadline {
                    continue;
                }
                return Err(self.problem("does not answer"));
            };
            let number = state.next_number();
            let broken = match connection.ask(Request { number, command }, passed, deadline) {
                Ok((reply, fd)) if reply.status != Status::Busy => return Ok((reply, fd)),
                Ok(_) if Instant::now() < deadline => {
                    thread::sleep(PAUSE);
                    continue;
                }
                Ok(_) => {
                    return Err(self.problem(
                        "is too busy: perhaps too many descriptors of this user are on their way, \
                         sent and not received; RLIMIT_NOFILE (`ulimit -n`) of the program that \
                         hosts it limits these as well",
                    ));
                }
                Err(Broken::Refused("sendmsg", errno)) => {
                    // Nothing was sent.
                    if Instant::now() < deadline {
                        thread::sleep(PAUSE);
                        continue;
                    }
                    return Err(sys::failed("sendmsg", errno, Subject::Nothing));
                }
                Err(broken) => broken,
            };
            // A late answer must not be taken for the next one.
            state.lose_connection();
            match broken {
                // Silence may be that of a service that has died, while a child of its process has its
                // sockets open.
                Broken::Lost | Broken::Silent if Instant::now() < deadline => {}
                Broken::Lost => return Err(self.problem("ends again and again")),
                Broken::Silent => return Err(self.problem("does not answer")),
                Broken::Nonsense => return Err(self.problem("sent an invalid reply")),
                Broken::Refused(call, errno) => {
                    return Err(sys::failed(call, errno, Subject::Nothing));
                }
            }
        }
    }

    /// Has somebody notice the death of the service, for as long as something is held.
    fn watch_over(self: &Arc<Self>, state: &mut State) {
        if state.keeper.is_none() && !state.held.is_empty() {
            // Without one, the next request notices what has happened.
            let shared = Arc::clone(self);
            state.keeper = Keeper::start(move |lost| shared.restore(lost)).ok();
        }
    }

    /// Connects if there is no connection, becomes the host if nobody serves, and hands in what
    /// this process holds.
    ///
    /// If time is over before everything is handed in, the rest is handed in later.
    fn ensure_connected(self: &Arc<Self>, state: &mut State, deadline: Instant) -> Result<()> {
        let is_over = || Instant::now() >= deadline;
        loop {
            if is_over() {
                return Err(self.problem("does not answer"));
            }
            if state.connection.is_some() {
                match state.hand_in(deadline) {
                    Ok(()) => return Ok(()),
                    // It may still answer.
                    Err(Broken::Silent) if state.is_handing_in() => {
                        return Err(self.problem("is slow to take what is held"));
                    }
                    Err(Broken::Refused(call, errno)) => {
                        return Err(sys::failed(call, errno, Subject::Nothing));
                    }
                    // To try again would have it send the same again.
                    Err(Broken::Nonsense) => {
                        state.lose_connection();
                        return Err(self.problem("sent an invalid reply"));
                    }
                    Err(_) => {
                        state.lose_connection();
                        // It may refuse everybody who connects, as fast as that goes.
                        thread::sleep(PAUSE);
                    }
                }
            }
            let location = self.address.locate()?;
            state.owner = Some(Owner::current());
            let token = state.token.take();
            let absent = match Connection::open(&location, token, deadline) {
                Ok((connection, adopted)) => {
                    state.connection = Some(Arc::new(connection));
                    state.is_deserted = false;
                    if !adopted {
                        state.rest = state.held.keys().copied().collect();
                    }
                    match &state.keeper {
                        // It looks at what it has done by itself.
                        Some(_) if state.is_restored => {}
                        Some(keeper) => keeper.wake(),
                        // A child has none for what it inherited.
                        None => self.watch_over(state),
                    }
                    continue;
                }
                Err(absent) => absent,
            };
            state.token = token;
            match absent {
                Absent::Nobody | Absent::Silent => {
                    // If it is ours that does not answer, it has ended.
                    state.service = None;
                    state.service = ShMemService::claim(&self.address.lookup(), deadline)?;
                    if state.service.is_some() {
                        continue;
                    }
                }
                Absent::Crowded => {}
                Absent::Error(error) => return Err(error),
            }
            thread::sleep(PAUSE);
        }
    }

    /// What the keeper does when the connection has hung up, or when it is woken. Returns what it has to
    /// watch from now on, and how long, if it has to look again.
    fn restore(self: &Arc<Self>, lost: Option<&Arc<Connection>>) -> Watch {
        let again = Duration::from_millis(100);
        let Ok(mut state) = self.state() else {
            return (lost.cloned(), Some(again));
        };
        let is_lost = |now: &Arc<Connection>| lost.is_some_and(|lost| Arc::ptr_eq(now, lost));
        if state.connection.as_ref().is_some_and(is_lost) {
            state.lose_connection();
        }
        state.is_restored = true;
        let failed = !state.held.is_empty()
            && self
                .ensure_connected(&mut state, Instant::now() + KEEPER_TRIES)
                .is_err();
        state.is_restored = false;
        state.tell_released(None);
        let again = failed || !state.released.is_empty();
        (state.connection.clone(), again.then_some(KEEPER_RESTS))
    }

    /// Removes what a service that has died has left, if there is none by now: the last one out can do
    /// what it could not.
    fn tidy(&self) {
        let Ok(location) = self.address.locate() else {
            return;
        };
        // Otherwise there is a service, or nothing that is ours to remove.
        if let Ok(site) = Place::open(&location.path).and_then(Site::claim) {
            // Dropping it removes the files.
            drop(site);
        }
    }

    fn refused(&self, id: ShMemId, status: Status) -> Error {
        match status {
            Status::Unknown => match self.address.locate() {
                Ok(location) => Error::NotServed {
                    id,
                    address: location.path.to_string_lossy().into_owned(),
                },
                Err(error) => error,
            },
            Status::Full => self.problem(
                "has as many segments as it may keep: raise RLIMIT_NOFILE (`ulimit -n`) of the \
                 program that hosts it",
            ),
            Status::BadDescriptor => {
                self.problem("does not take the memory for what it is said to be")
            }
            Status::Done | Status::Taken | Status::Busy => self.problem("sent an invalid reply"),
        }
    }

    fn problem(&self, what: &'static str) -> Error {
        self.address
            .locate()
            .map_or_else(|error| error, |location| location.problem(what))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let keeper = self.shared.last_state().keeper.take();
        // Not under the lock, which it may be waiting for.
        if let Some(keeper) = keeper {
            keeper.end();
        }
        let mut state = self.shared.last_state();
        if let Some(connection) = state.connection.take() {
            state.is_deserted |= connection.as_fd().is_some_and(socket::is_hung_up);
        }
        // It removes its own files.
        drop(state.service.take());
        if state.is_deserted {
            self.shared.tidy();
        }
    }
}

impl Held {
    pub(crate) fn id(&self) -> ShMemId {
        self.id
    }

    /// In bytes, as who made the segment has said. The memory may have been made larger.
    pub(crate) fn size(&self) -> u64 {
        self.size.get()
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.client.shared.release(self.id);
    }
}

impl State {
    /// In a forked child: the connection, the threads and the service are its parent's; the segments
    /// it has as well.
    fn leave_to_parent(&mut self, current: Owner) {
        if self.owner.is_none_or(|owner| owner == current) {
            return;
        }
        if let Some(connection) = self.connection.take() {
            connection.close_in_child();
        }
        if let Some(keeper) = self.keeper.take() {
            keeper.leave_to_parent();
        }
        self.forget_unfinished();
        self.service = None;
        self.is_deserted = false;
        self.owner = None;
    }

    fn lose_connection(&mut self) {
        self.connection = None;
        self.is_deserted = true;
        self.forget_unfinished();
    }

    /// What was begun with the last service.
    fn forget_unfinished(&mut self) {
        self.rest.clear();
        self.handed = None;
        self.released.clear();
    }

    fn next_number(&mut self) -> u32 {
        self.number = self.number.wrapping_add(1);
        self.number
    }

    /// Hands in what was not handed in yet. If the time is over before, the next call goes on with it.
    fn hand_in(&mut self, deadline: Instant) -> Result<(), Broken> {
        let Some(connection) = self.connection.clone() else {
            return Err(Broken::Lost);
        };
        loop {
            if let Some((request, _)) = self.handed {
                // If it is refused, the segment stays with those who have it.
                connection.answer(request, deadline)?;
                self.handed = None;
            }
            let Some(&id) = self.rest.last() else {
                return Ok(());
            };
            // It may have been let go meanwhile.
            if let Some(segment) = self.held.get(&id) {
                let size = segment.size;
                let fd = Arc::clone(&segment.fd);
                let number = self.next_number();
                let command = Command::Register { id, size };
                let request = Request { number, command };
                match connection.send(request, Some(fd.as_fd()), deadline) {
                    Ok(()) => self.handed = Some((request, Instant::now())),
                    Err(Broken::Refused("sendmsg", _)) if Instant::now() < deadline => {
                        thread::sleep(PAUSE);
                        continue;
                    }
                    Err(broken) => return Err(broken),
                }
            }
            self.rest.pop();
        }
    }

    /// Whether the service has something that it may still answer.
    fn is_handing_in(&self) -> bool {
        self.handed
            .is_some_and(|(_, since)| since.elapsed() < ANSWER)
    }

    /// Tells the service what was let go: by this time, or what can be told at once.
    fn tell_released(&mut self, deadline: Option<Instant>) {
        while let (Some(&id), Some(connection)) = (self.released.last(), self.connection.clone()) {
            let number = self.next_number();
            let command = Command::Release(id);
            let request = Request { number, command };
            let told = match deadline {
                Some(deadline) => connection.send(request, None, deadline),
                None => connection.send_now(request),
            };
            match told {
                Ok(()) => drop(self.released.pop()),
                Err(Broken::Silent) if deadline.is_none() => return,
                // The service is gone, or will notice that we are.
                Err(_) => self.lose_connection(),
            }
        }
    }
}

/// 18 random characters behind this letter.
fn random_text(kind: u8) -> Result<ShMemId> {
    let (high, low) = (sys::nonce()?, sys::nonce()?);
    let digits: ([u8; 7], [u8; 11]) = (base64::digits(high), base64::digits(low));
    let text = Text::<20>::joined(&[&[kind], &digits.0, &digits.1]);
    Ok(ShMemId::holding(text.as_bytes()))
}
