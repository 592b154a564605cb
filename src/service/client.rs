//! The other side: what a provider and its clones hold, over one connection that is made when it is
//! needed, made anew when the service has died, and again in a forked child.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::num::NonZeroU64;
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

use super::address::Address;
use super::connection::{Absent, Broken, Connection};
use super::host::ShMemService;
use super::keeper::{Keeper, Watch};
use super::protocol::{Ask, Reply, Request, Token, Verdict};
use crate::ShMemId;
use crate::error::{Error, Result};
use crate::fork_lock::{ForkLock, Guard};
use crate::id::base64;
use crate::process::Owner;
use crate::sys::site::{Place, Site};
use crate::sys::{self, socket};
use crate::text::Text;

/// How long is tried to reach a service, or to start one.
const DEADLINE: Duration = Duration::from_secs(3);

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
    held: BTreeMap<ShMemId, Segment>,
    keeper: Option<Keeper>,
    /// If nobody else served.
    service: Option<ShMemService>,
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
        let mut state = self.shared.state()?;
        self.shared
            .ensure_connected(&mut state, Instant::now() + DEADLINE)
    }

    /// Has the service keep a segment, under a new id.
    pub(crate) fn register(self: &Arc<Self>, size: usize, fd: OwnedFd) -> Result<Held> {
        let size = u64::try_from(size).ok().and_then(NonZeroU64::new);
        let size = size.ok_or(Error::InvalidSize { size: 0 })?;
        let mut state = self.shared.state()?;
        let mut tries = 4;
        loop {
            let id = random_text(b's')?;
            let ask = Ask::Register { id, size };
            let (reply, _) = self.shared.request(&mut state, ask, Some(fd.as_fd()))?;
            tries -= 1;
            match reply.verdict {
                Verdict::Done => return Ok(self.hold(&mut state, id, size, fd)),
                Verdict::Taken if tries > 0 => {}
                verdict => return Err(self.shared.refused(id, verdict)),
            }
        }
    }

    /// Has the service hand out a segment.
    pub(crate) fn open(self: &Arc<Self>, id: ShMemId) -> Result<Held> {
        let mut state = self.shared.state()?;
        let (reply, fd) = self.shared.request(&mut state, Ask::Open(id), None)?;
        match (reply.verdict, NonZeroU64::new(reply.size), fd) {
            (Verdict::Done, Some(size), Some(fd)) => Ok(self.hold(&mut state, id, size, fd)),
            (verdict, ..) => Err(self.shared.refused(id, verdict)),
        }
    }

    /// Tells the service that a child will be forked, and keeps the state together until
    /// [`post_fork`](Self::post_fork).
    pub(crate) fn pre_fork(&self) -> Result<()> {
        self.shared.address.look_up();
        let mut state = self.shared.state()?;
        if state.connection.is_some() || !state.held.is_empty() {
            let token = random_text(b't')?;
            let (reply, _) = self.shared.request(&mut state, Ask::Fork(token), None)?;
            // Otherwise the child hands in by itself what it holds.
            state.token = (reply.verdict == Verdict::Done).then_some(token);
        }
        // What the child will find is what the service was told of.
        state.hold();
        Ok(())
    }

    /// In the child, makes a connection of its own.
    pub(crate) fn post_fork(&self, is_child: bool) -> Result<()> {
        let mut state = self.shared.state.lock()?;
        if !is_child {
            state.token = None;
            return Ok(());
        }
        let announced = state.token.is_some();
        let current = state.current();
        state.leave_to_parent(current);
        if announced || !state.held.is_empty() {
            self.shared
                .ensure_connected(&mut state, Instant::now() + DEADLINE)?;
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

    /// One hold less; after the last, the service is told.
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
        let number = state.next_number();
        if let Some(connection) = &state.connection {
            let ask = Ask::Release(id);
            if connection.send(Request { number, ask }, None).is_err() {
                // The service is gone, or will notice that we are.
                state.lose_connection();
            }
        }
    }

    /// Asks, and asks again if the service died over it. Not for requests without a reply.
    fn request(
        self: &Arc<Self>,
        state: &mut State,
        ask: Ask,
        passed: Option<BorrowedFd<'_>>,
    ) -> Result<(Reply, Option<OwnedFd>)> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            self.ensure_connected(state, deadline)?;
            let Some(connection) = state.connection.clone() else {
                return Err(self.problem("has ended"));
            };
            let number = state.next_number();
            let broken = match connection.ask(Request { number, ask }, passed) {
                Ok((reply, fd)) if reply.verdict != Verdict::Busy => return Ok((reply, fd)),
                Ok(_) if Instant::now() < deadline => {
                    thread::sleep(PAUSE);
                    continue;
                }
                Ok(_) => return Err(self.problem("is too busy")),
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
                Broken::Nonsense => return Err(self.problem("answers what is no answer")),
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
    fn ensure_connected(self: &Arc<Self>, state: &mut State, deadline: Instant) -> Result<()> {
        if state.connection.is_some() {
            return Ok(());
        }
        state.owner = Some(Owner::current());
        loop {
            let location = self.address.locate()?;
            let token = state.token.take();
            let absent = match Connection::open(&location, token) {
                Ok((connection, adopted)) => {
                    if adopted || state.hand_in(&connection).is_ok() {
                        state.connection = Some(Arc::new(connection));
                        state.is_deserted = false;
                        match &state.keeper {
                            Some(keeper) => keeper.wake(),
                            // A child has none for what it inherited.
                            None => self.watch_over(state),
                        }
                        return Ok(());
                    }
                    // It has died meanwhile.
                    Absent::Crowded
                }
                Err(absent) => absent,
            };
            state.token = token;
            match absent {
                Absent::Nobody | Absent::Silent => {
                    // If it is ours that does not answer, it has ended.
                    state.service = None;
                    state.service = ShMemService::claim(&self.address.lookup())?;
                    if state.service.is_some() {
                        continue;
                    }
                }
                Absent::Crowded => {}
                Absent::Error(error) => return Err(error),
            }
            if Instant::now() > deadline {
                return Err(location.problem("does not answer"));
            }
            thread::sleep(PAUSE);
        }
    }

    /// What the keeper does when the connection has hung up. Returns what it has to watch from now
    /// on, and how long, if it has to look again.
    fn restore(self: &Arc<Self>, lost: Option<&Arc<Connection>>) -> Watch {
        let again = Duration::from_millis(100);
        let Ok(mut state) = self.state() else {
            return (lost.cloned(), Some(again));
        };
        let is_lost = |now: &Arc<Connection>| lost.is_some_and(|lost| Arc::ptr_eq(now, lost));
        if state.connection.as_ref().is_some_and(is_lost) {
            state.lose_connection();
        }
        let failed = !state.held.is_empty()
            && self
                .ensure_connected(&mut state, Instant::now() + again)
                .is_err();
        (state.connection.clone(), failed.then_some(again))
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

    fn refused(&self, id: ShMemId, verdict: Verdict) -> Error {
        match verdict {
            Verdict::Unknown => match self.address.locate() {
                Ok(location) => Error::NotServed {
                    id,
                    address: location.path.to_string_lossy().into_owned(),
                },
                Err(error) => error,
            },
            Verdict::Full => self.problem(
                "has as many segments as it may keep: raise RLIMIT_NOFILE (`ulimit -n`) of the \
                 program that hosts it",
            ),
            Verdict::BadDescriptor => {
                self.problem("does not take the memory for what it is said to be")
            }
            Verdict::Done | Verdict::Taken | Verdict::Busy => {
                self.problem("answers what is no answer")
            }
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
        self.service = None;
        self.is_deserted = false;
        self.owner = None;
    }

    fn lose_connection(&mut self) {
        self.connection = None;
        self.is_deserted = true;
    }

    fn next_number(&mut self) -> u32 {
        self.number = self.number.wrapping_add(1);
        self.number
    }

    /// Hands in everything that this process holds.
    fn hand_in(&mut self, connection: &Connection) -> Result<(), Broken> {
        for (&id, segment) in &self.held {
            self.number = self.number.wrapping_add(1);
            let request = Request {
                number: self.number,
                ask: Ask::Register {
                    id,
                    size: segment.size,
                },
            };
            // If it is refused, the segment stays with those who have it.
            connection.ask(request, Some(segment.fd.as_fd()))?;
        }
        Ok(())
    }
}

/// 18 random characters behind this letter.
fn random_text(kind: u8) -> Result<ShMemId> {
    let (high, low) = (sys::nonce()?, sys::nonce()?);
    let digits: ([u8; 7], [u8; 11]) = (base64::digits(high), base64::digits(low));
    let text = Text::<20>::joined(&[&[kind], &digits.0, &digits.1]);
    Ok(ShMemId::holding(text.as_bytes()))
}
