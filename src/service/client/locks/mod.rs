//! Participants in a served segment: each has a connection of its own, with one lock.
//!
//! The service holds the lock until the connection ends. So a participant never closes its connection while it
//! has a lock, however long the service takes to answer, and its forked children have no copy of the socket.
//!
//! When the host dies, the participants lock their bytes again at the next one ([`Member::rejoin`]). That does not
//! know which bytes those will lock that have not returned yet. Therefore each participant also has the ends of
//! a pipe, which its host has created. It closes the end for writing when the next host knows its lock. Once the pipe
//! has reached its end, all participants of the dead host have either returned or died, and one of them, or the
//! creator of the segment, settles it ([`Member::settle`], [`State::settle_held`]). Until then, questions about other
//! bytes are errors.

mod link;
mod participant;

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::time::Duration;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use self::link::{Link, Refusal};
use super::connection::RequestError;
use super::state::{HeldSegment, KnownLocks, State};
use super::{RETRY_INTERVAL, Shared, TIMEOUT};
use crate::error::{Error, Result, ServiceError, Subject};
use crate::id::ShMemId;
use crate::service::protocol::{Command, PipeEnd, Request, Status};
use crate::service::reaper;
use crate::sys::fork_closed::{ForkClosed, Forks};
use crate::sys::{self, socket};

/// How long a question waits until the service knows all locks.
const SETTLE_TIMEOUT: Duration = Duration::from_millis(500);

/// A participant, as the client that carries it to the next host knows it.
pub(super) struct Member {
    id: ShMemId,
    inner: Mutex<Inner>,
}

struct Inner {
    link: Link,
    /// Those to hosts that were replaced and have not hung up yet.
    retired: Vec<Link>,
    /// The byte that is locked.
    byte: Option<u64>,
    /// The ends for reading of the pipes of earlier hosts, until nobody can write to them.
    witnesses: Vec<ForkClosed>,
    /// `false` until the host has accepted that all locks are known.
    is_settled: bool,
    /// `true` if the host says that the byte belongs to another participant.
    is_lost: bool,
}

impl Shared {
    /// Creates a participant without a lock.
    fn join(self: &Arc<Self>, id: ShMemId) -> Result<Arc<Member>> {
        let deadline = Instant::now() + TIMEOUT;
        let link = loop {
            match Link::open(self, id, None, deadline) {
                Ok(link) => break link,
                Err(Refusal::NotServed) if Instant::now() < deadline => {
                    self.find_host(id)?;
                    thread::sleep(RETRY_INTERVAL);
                }
                Err(Refusal::NotServed) => return Err(self.error(ServiceError::TimedOut)),
                Err(Refusal::Unsettled) => return Err(self.error(ServiceError::UnknownLocks)),
                Err(Refusal::Taken) => return Err(self.error(ServiceError::InvalidReply)),
                Err(Refusal::Failed(error)) => return Err(error),
            }
        };
        let member = Arc::new(Member {
            id,
            inner: Mutex::new(Inner {
                link,
                retired: Vec::new(),
                byte: None,
                witnesses: Vec::new(),
                is_settled: true,
                is_lost: false,
            }),
        });
        let mut state = self.state()?;
        state.members.retain(|member| member.strong_count() > 0);
        state.members.push(Arc::downgrade(&member));
        Ok(member)
    }

    /// Makes a request, so that this client notices if the host has died. If so, finds or becomes the next one,
    /// and moves the participants there.
    fn find_host(self: &Arc<Self>, id: ShMemId) -> Result<()> {
        let start = Instant::now();
        let mut state = self.state()?;
        let deadline = self.deadline(&state, start)?;
        let (_, fd) = self.request(&mut state, Command::Open(id), None, deadline)?;
        reaper::close_from_service(fd.into_iter().collect());
        self.move_members(&mut state, deadline);
        Ok(())
    }

    /// Lets the participants lock their bytes again if the host has changed, and settle their segments. Returns
    /// `false` if that has to be repeated.
    pub(super) fn move_members(&self, state: &mut State, deadline: Instant) -> bool {
        let members: Vec<_> = state.members.iter().filter_map(Weak::upgrade).collect();
        let mut has_moved = true;
        let mut is_settled = true;
        for member in members {
            let inner = &mut *member.lock();
            if state.has_new_host || inner.link.is_hung_up() {
                has_moved &= member.rejoin(inner, self, deadline);
            }
            is_settled &= member.settle(inner, deadline);
        }
        state.has_new_host &= !has_moved;
        has_moved && is_settled
    }

    fn request_error(&self, error: RequestError) -> Error {
        match error {
            RequestError::Disconnected => self.error(ServiceError::KeepsDisconnecting),
            RequestError::TimedOut => self.error(ServiceError::TimedOut),
            RequestError::InvalidReply(reason) => self.error(reason),
            RequestError::Os(call, errno) => sys::failed(call, errno, Subject::Nothing),
        }
    }

    /// Returns the error for the outcome of a request about a lock.
    fn lock_error(&self, id: ShMemId, status: Status) -> Error {
        match status {
            // The segment is held, so it is the byte.
            Status::Unknown | Status::Full => self.error(ServiceError::InvalidReply),
            status => self.status_error(id, status),
        }
    }
}

impl State {
    /// Settles the segments that this client has created and holds, as participants do. There may be none.
    /// Returns `false` if that has to be repeated.
    pub(super) fn settle_held(&mut self, deadline: Instant) -> bool {
        if !sys::SERVICE_KEEPS_LOCKS {
            return true;
        }
        let has_settled = self.try_settle_held(deadline);
        if has_settled.is_err() {
            // A late reply must not be read as the reply to the next request.
            self.lose_connection();
        }
        has_settled.unwrap_or(false)
    }

    fn try_settle_held(&mut self, deadline: Instant) -> Result<bool, RequestError> {
        let Some(connection) = self.connection.clone() else {
            return Ok(false);
        };
        let is_known = |it: &HeldSegment| !matches!(it.locks, KnownLocks::Nothing);
        let known = self.held.iter().filter(|(_, segment)| is_known(segment));
        let ids: Vec<ShMemId> = known.map(|(&id, _)| id).collect();
        let mut is_done = true;
        if let (None, Some(&id), Ok(forks)) = (&self.witness, ids.first(), Forks::until_now()) {
            let end = PipeEnd::Read;
            let command = Command::Life { id, end };
            let number = self.next_number();
            let (_, fd) = connection.call(Request { number, command }, None, deadline)?;
            self.witness = fd.and_then(|fd| ForkClosed::owned(fd, forks)).map(Arc::new);
            is_done = self.witness.is_some();
        }
        for id in ids {
            let number = self.next_number();
            let segment = self.held.get_mut(&id);
            let Some(KnownLocks::After(pipes)) = segment.map(|segment| &mut segment.locks) else {
                continue;
            };
            pipes.retain(|pipe| !has_ended(pipe));
            let is_settled = pipes.is_empty() && {
                let command = Command::Settle(id);
                let (reply, _) = connection.call(Request { number, command }, None, deadline)?;
                reply.status == Status::Done
            };
            match self.held.get_mut(&id) {
                Some(segment) if is_settled => segment.locks = KnownLocks::All,
                _ => is_done = false,
            }
        }
        Ok(is_done)
    }
}

/// Returns `true` if no process has the other end of the pipe.
fn has_ended(pipe: &ForkClosed) -> bool {
    pipe.as_fd().is_some_and(socket::is_hung_up)
}

impl Member {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the byte at the present host. Returns `false` if that has to be repeated.
    fn rejoin(&self, inner: &mut Inner, shared: &Shared, deadline: Instant) -> bool {
        if inner.byte.is_none() && !inner.link.is_hung_up() {
            return true;
        }
        match Link::open(shared, self.id, inner.byte, deadline) {
            Ok(mut link) => {
                core::mem::swap(&mut inner.link, &mut link);
                inner.retired.push(link);
                inner.is_settled = false;
                inner.is_lost = false;
                true
            }
            // It is the same host, in which this participant has the byte.
            Err(Refusal::Taken) if !inner.link.is_hung_up() => true,
            Err(refusal) => {
                inner.is_lost = matches!(refusal, Refusal::Taken);
                false
            }
        }
    }

    /// Settles the segment if all participants of earlier hosts have returned or died. Returns `false` if that has
    /// to be repeated.
    fn settle(&self, inner: &mut Inner, deadline: Instant) -> bool {
        // A host that has not hung up still has the lock, and others may ask it.
        for link in core::mem::take(&mut inner.retired) {
            match link {
                link if !link.is_hung_up() => inner.retired.push(link),
                Link { life, .. } => inner.witnesses.extend(life.map(|(reader, _)| reader)),
            }
        }
        if inner.is_settled || inner.byte.is_none() {
            return inner.retired.is_empty();
        }
        inner.witnesses.retain(|pipe| !has_ended(pipe));
        if inner.witnesses.is_empty() && inner.retired.is_empty() {
            let settled = inner.link.ask(Command::Settle(self.id), deadline);
            inner.is_settled = matches!(settled, Ok((Status::Done, _)));
        }
        inner.is_settled
    }
}
