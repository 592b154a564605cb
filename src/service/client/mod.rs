//! [`Client`]: what a provider and its clones share to use the service.
//!
//! A client has one connection, which is created when it is needed, replaced when the host dies, and created
//! again in a forked child. `state` is what it knows, `election` connects or becomes the host, `forks`
//! carries it into a child, `monitor` notices when the host dies. `locks` are participants with a lock, each with
//! a connection of its own.

mod connection;
mod election;
mod forks;
mod locks;
mod monitor;
mod state;

use alloc::sync::Arc;
use core::num::NonZeroU64;
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

use self::connection::RequestError;
use self::state::{HeldSegment, KnownLocks, State};
use crate::error::{Error, Result, ServiceError, Subject};
use crate::id::ShMemId;
use crate::process::fork_lock::{ForkLock, Guard};
use crate::service::address::Address;
use crate::service::protocol::{Command, Reply, Request, Status};
use crate::sys::{self, socket};
use crate::util::base64;
use crate::util::fixed_str::FixedStr;

/// How long an operation may take: waiting for operations of other threads, connecting to a service or
/// starting one, registering what this process holds, and the request itself.
const TIMEOUT: Duration = Duration::from_secs(3);

/// How much of that is left for an operation that had to wait for others, if those succeeded.
const MIN_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to wait before trying again.
const RETRY_INTERVAL: Duration = Duration::from_millis(1);

/// The connection of a provider, its clones and its segments. When the last of them is dropped, the
/// connection is closed, and the threads have ended.
#[derive(Debug, Default)]
pub(crate) struct Client {
    shared: Arc<Shared>,
}

/// The part of a client that its monitor uses as well.
#[derive(Debug, Default)]
struct Shared {
    address: Address,
    state: ForkLock<State>,
}

/// A descriptor of a served segment. Dropping the last handle of a segment in this process releases it.
#[derive(Debug)]
pub struct ServedHandle {
    id: ShMemId,
    size: NonZeroU64,
    fd: Arc<OwnedFd>,
    client: Arc<Client>,
}

impl Client {
    /// Creates a client of the service at this path. It is not connected yet.
    pub(crate) fn at(path: &Path) -> Self {
        Self {
            shared: Arc::new(Shared {
                address: Address::chosen(path),
                state: ForkLock::default(),
            }),
        }
    }

    /// Returns the path of the service's socket.
    pub(crate) fn address(&self) -> Result<PathBuf> {
        Ok(self.shared.address.locate()?.path)
    }

    /// Connects, unless it is connected already.
    pub(crate) fn connect(&self) -> Result<()> {
        let start = Instant::now();
        let mut state = self.shared.state()?;
        let deadline = self.shared.deadline(&state, start)?;
        self.shared.ensure_connected(&mut state, deadline)
    }

    /// Registers a segment that this process has just created under a new id.
    pub(crate) fn create(self: &Arc<Self>, size: usize, fd: OwnedFd) -> Result<ServedHandle> {
        self.register_as(size, fd, true)
    }

    /// Registers a segment under a new id. Its memory may have other ids as well, so its bytes cannot be locked.
    pub(crate) fn register(self: &Arc<Self>, size: usize, fd: OwnedFd) -> Result<ServedHandle> {
        self.register_as(size, fd, false)
    }

    fn register_as(
        self: &Arc<Self>,
        size: usize,
        fd: OwnedFd,
        is_new: bool,
    ) -> Result<ServedHandle> {
        let size = u64::try_from(size).ok().and_then(NonZeroU64::new);
        let size = size.ok_or(Error::InvalidSize { size: 0 })?;
        let start = Instant::now();
        let mut state = self.shared.state()?;
        let deadline = self.shared.deadline(&state, start)?;
        let mut tries = 4;
        loop {
            let id = random_text(b's')?;
            let passed = Some(fd.as_fd());
            let command = if is_new {
                Command::Create { id, size }
            } else {
                Command::Register { id, size }
            };
            let (reply, _) = self.shared.request(&mut state, command, passed, deadline)?;
            tries -= 1;
            match reply.status {
                Status::Done => {
                    let handle = self.hold(&mut state, id, size, fd);
                    if let (true, Some(segment)) = (is_new, state.held.get_mut(&id)) {
                        segment.locks = KnownLocks::All;
                    }
                    if is_new && state.witness.is_none() {
                        state.settle_held(deadline);
                    }
                    // It needs the lock as soon as it runs.
                    self.shared.start_monitor(&mut state);
                    return Ok(handle);
                }
                Status::Taken if tries > 0 => {}
                status => return Err(self.shared.status_error(id, status)),
            }
        }
    }

    /// Opens a segment.
    pub(crate) fn open(self: &Arc<Self>, id: ShMemId) -> Result<ServedHandle> {
        let start = Instant::now();
        let mut state = self.shared.state()?;
        let deadline = self.shared.deadline(&state, start)?;
        let command = Command::Open(id);
        let (reply, fd) = self.shared.request(&mut state, command, None, deadline)?;
        match (reply.status, NonZeroU64::new(reply.size), fd) {
            (Status::Done, Some(size), Some(fd)) => Ok(self.retain(&mut state, id, size, fd)),
            (status, ..) => Err(self.shared.status_error(id, status)),
        }
    }

    /// Takes over the descriptor of a segment that another process has registered. Registers this
    /// process as a holder if the service can be reached; the segment can be used in any case.
    pub(crate) fn adopt(
        self: &Arc<Self>,
        id: ShMemId,
        size: usize,
        fd: OwnedFd,
    ) -> Result<ServedHandle> {
        let size = u64::try_from(size).ok().and_then(NonZeroU64::new);
        let size = size.ok_or(Error::InvalidSize { size: 0 })?;
        let start = Instant::now();
        let mut state = self.shared.state()?;
        let deadline = self.shared.deadline(&state, start)?;
        // Connected first: the monitor would try again and again where there can be no service.
        let is_connected = self.shared.ensure_connected(&mut state, deadline).is_ok();
        if !is_connected {
            return Ok(self.hold(&mut state, id, size, fd));
        }
        let handle = self.retain(&mut state, id, size, fd);
        state.unregistered.push(id);
        let _ = self.shared.ensure_connected(&mut state, deadline);
        Ok(handle)
    }

    /// Creates another handle of the same segment.
    pub(crate) fn duplicate(self: &Arc<Self>, handle: &ServedHandle) -> Result<ServedHandle> {
        if let Some(segment) = self.shared.state()?.held.get_mut(&handle.id) {
            segment.handles += 1;
        }
        Ok(ServedHandle {
            id: handle.id,
            size: handle.size,
            fd: Arc::clone(&handle.fd),
            client: Arc::clone(self),
        })
    }

    /// Creates a handle of a segment that this process holds now, and starts the monitor.
    fn retain(
        self: &Arc<Self>,
        state: &mut State,
        id: ShMemId,
        size: NonZeroU64,
        fd: OwnedFd,
    ) -> ServedHandle {
        let handle = self.hold(state, id, size, fd);
        self.shared.start_monitor(state);
        handle
    }

    /// Creates a handle of a segment that this process holds now.
    fn hold(
        self: &Arc<Self>,
        state: &mut State,
        id: ShMemId,
        size: NonZeroU64,
        fd: OwnedFd,
    ) -> ServedHandle {
        let fd = Arc::new(fd);
        let segment = state.held.entry(id).or_insert_with(|| HeldSegment {
            size,
            fd: Arc::clone(&fd),
            handles: 0,
            locks: KnownLocks::Nothing,
        });
        segment.handles += 1;
        ServedHandle {
            id,
            size,
            fd,
            client: Arc::clone(self),
        }
    }
}

impl Shared {
    /// Locks the state, after dropping what belongs to the parent of a forked child.
    fn state(&self) -> Result<Guard<'_, State>> {
        let mut state = self.state.lock()?;
        let current = state.current();
        state.forget_in_child(current);
        Ok(state)
    }

    /// The same when the last client is dropped, so that no fork needs the state.
    fn last_state(&self) -> Guard<'_, State> {
        let mut state = self.state.lock_now();
        let current = state.current();
        state.forget_in_child(current);
        state
    }

    /// Removes one handle. With the last one, the segment is released, now if that does not block.
    fn release(&self, id: ShMemId) {
        // Without the state, the segment remains held by this client.
        let Ok(mut state) = self.state() else {
            return;
        };
        let Some(segment) = state.held.get_mut(&id) else {
            return;
        };
        segment.handles = segment.handles.saturating_sub(1);
        if segment.handles > 0 {
            return;
        }
        state.held.remove(&id);
        if state.connection.is_some() {
            state.unsent_releases.push(id);
            state.send_releases(None);
            if let (false, Some(monitor)) = (state.unsent_releases.is_empty(), &state.monitor) {
                monitor.wake();
            }
        }
    }

    /// Returns the deadline of an operation that was started at `start`, before it waited for operations of
    /// other threads.
    ///
    /// If one of those has failed in the meantime because the service does not answer, this fails as well.
    fn deadline(&self, state: &State, start: Instant) -> Result<Instant> {
        if state.last_failure.is_some_and(|failure| failure >= start) {
            return Err(self.error(ServiceError::TimedOut));
        }
        Ok((start + TIMEOUT).max(Instant::now() + MIN_TIMEOUT))
    }

    /// Sends a request and returns the reply. Sends it again if the host dies in between. Not for requests
    /// without a reply.
    fn request(
        self: &Arc<Self>,
        state: &mut State,
        command: Command,
        passed: Option<BorrowedFd<'_>>,
        deadline: Instant,
    ) -> Result<(Reply, Option<OwnedFd>)> {
        let outcome = self.try_request(state, command, passed, deadline);
        if matches!(outcome, Err(Error::Service { .. })) {
            state.last_failure = Some(Instant::now());
        }
        outcome
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
            state.send_releases(Some(deadline));
            let Some(connection) = state.connection.clone() else {
                if Instant::now() < deadline {
                    continue;
                }
                return Err(self.error(ServiceError::TimedOut));
            };
            let number = state.next_number();
            let error = match connection.call(Request { number, command }, passed, deadline) {
                Ok((reply, fd)) if reply.status != Status::Busy => return Ok((reply, fd)),
                Ok(_) if Instant::now() < deadline => {
                    thread::sleep(RETRY_INTERVAL);
                    continue;
                }
                Ok(_) => return Err(self.error(ServiceError::Busy)),
                Err(RequestError::Os("sendmsg", errno)) => {
                    // Nothing was sent.
                    if Instant::now() < deadline {
                        thread::sleep(RETRY_INTERVAL);
                        continue;
                    }
                    return Err(sys::failed("sendmsg", errno, Subject::Nothing));
                }
                Err(error) => error,
            };
            // A late reply must not be read as the reply to the next request.
            state.lose_connection();
            match error {
                // A host that has died does not answer either, if a child of its process has its sockets
                // open.
                RequestError::Disconnected | RequestError::TimedOut
                    if Instant::now() < deadline => {}
                RequestError::Disconnected => {
                    return Err(self.error(ServiceError::KeepsDisconnecting));
                }
                RequestError::TimedOut => return Err(self.error(ServiceError::TimedOut)),
                RequestError::InvalidReply(reason) => return Err(self.error(reason)),
                RequestError::Os(call, errno) => {
                    return Err(sys::failed(call, errno, Subject::Nothing));
                }
            }
        }
    }

    /// Returns the error for the outcome of a request about a segment.
    fn status_error(&self, id: ShMemId, status: Status) -> Error {
        match status {
            Status::Unknown => match self.address.locate() {
                Ok(location) => Error::NotServed {
                    id,
                    address: location.path.to_string_lossy().into_owned(),
                },
                Err(error) => error,
            },
            Status::Full => self.error(ServiceError::TooManySegments),
            Status::BadDescriptor => self.error(ServiceError::RejectedDescriptor),
            Status::Unsettled => self.error(ServiceError::UnknownLocks),
            Status::Done | Status::Taken | Status::Busy => self.error(ServiceError::InvalidReply),
        }
    }

    /// Returns the error about the service, or the reason why it has no address.
    fn error(&self, reason: ServiceError) -> Error {
        match self.address.locate() {
            Ok(location) => location.error(reason),
            Err(error) => error,
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let monitor = self.shared.last_state().monitor.take();
        // Without the lock, because the thread may be waiting for it.
        if let Some(monitor) = monitor {
            monitor.stop();
        }
        let mut state = self.shared.last_state();
        if let Some(connection) = state.connection.take() {
            state.lost_host |= connection.as_fd().is_some_and(socket::is_hung_up);
        }
        // A service of this client removes its own files.
        drop(state.service.take());
        if state.lost_host {
            self.shared.remove_stale_files();
        }
    }
}

impl ServedHandle {
    /// Returns the id of the segment.
    pub(crate) fn id(&self) -> ShMemId {
        self.id
    }

    /// Returns the size in bytes that the creator of the segment registered. The memory may be larger.
    pub(crate) fn size(&self) -> u64 {
        self.size.get()
    }

    /// Returns the descriptor.
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }
}

impl AsFd for ServedHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for ServedHandle {
    fn drop(&mut self) {
        self.client.shared.release(self.id);
    }
}

/// Returns an id that consists of this letter and 18 random characters.
fn random_text(kind: u8) -> Result<ShMemId> {
    let (high, low) = (sys::nonce()?, sys::nonce()?);
    let digits: ([u8; 7], [u8; 11]) = (base64::digits(high), base64::digits(low));
    let text = FixedStr::<20>::joined(&[&[kind], &digits.0, &digits.1]);
    Ok(ShMemId::holding(text.as_bytes()))
}
