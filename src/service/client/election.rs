//! Connects a client to the host, and makes it the host if there is none.

use alloc::sync::Arc;
use core::time::Duration;
use std::thread;
use std::time::Instant;

use super::connection::{ConnectError, Connection, HELLO_TIMEOUT, RequestError};
use super::monitor::{HostMonitor, MonitorTarget};
use super::state::State;
use super::{RETRY_INTERVAL, Shared};
use crate::error::{Result, ServiceError, Subject};
use crate::process::Owner;
use crate::service::host::ShMemService;
use crate::sys;
use crate::sys::path_lock::{LockDir, ServiceLock};

/// How long the monitor tries to reconnect before it leaves the lock to other threads, and for how long it
/// does so.
const RECONNECT_TIMEOUT: Duration = HELLO_TIMEOUT;
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

impl Shared {
    /// Starts the monitor, unless it runs already or nothing is held.
    pub(super) fn start_monitor(self: &Arc<Self>, state: &mut State) {
        if state.monitor.is_none() && !state.held.is_empty() {
            // If this fails, the next request notices that the host has died.
            let shared = Arc::clone(self);
            let first = state.first_target();
            state.monitor = HostMonitor::start(first, move |lost| shared.reconnect(lost)).ok();
        }
    }

    /// Connects if there is no connection, becomes the host if there is none, and registers what this process
    /// holds.
    ///
    /// If the deadline passes before everything is registered, the rest is registered by later calls.
    pub(super) fn ensure_connected(
        self: &Arc<Self>,
        state: &mut State,
        deadline: Instant,
    ) -> Result<()> {
        loop {
            if Instant::now() >= deadline {
                return Err(self.error(ServiceError::TimedOut));
            }
            if state.connection.is_some() {
                match state.register_held(deadline) {
                    Ok(()) => return Ok(()),
                    // The service may still answer.
                    Err(RequestError::TimedOut) if state.awaits_registration() => {
                        return Err(self.error(ServiceError::SlowRegistration));
                    }
                    Err(RequestError::Os(call, errno)) => {
                        return Err(sys::failed(call, errno, Subject::Nothing));
                    }
                    // Trying again would lead to the same reply.
                    Err(RequestError::InvalidReply(reason)) => {
                        state.lose_connection();
                        return Err(self.error(reason));
                    }
                    Err(RequestError::Disconnected | RequestError::TimedOut) => {
                        state.lose_connection();
                        // A service that disconnects all clients at once must not cause a busy loop.
                        thread::sleep(RETRY_INTERVAL);
                    }
                }
            }
            let location = self.address.locate()?;
            state.owner = Some(Owner::current());
            let token = state.token.take();
            let error = match Connection::open(&location, token, deadline) {
                Ok((connection, is_bound)) => {
                    state.connection = Some(Arc::new(connection));
                    state.lost_host = false;
                    state.has_new_host = true;
                    state.doubt_locks();
                    if !is_bound {
                        state.unregistered = state.held.keys().copied().collect();
                    }
                    match &state.monitor {
                        // The monitor itself has connected, and will wait for the new connection.
                        Some(_) if state.is_reconnecting => {}
                        Some(monitor) => monitor.wake(),
                        // A forked child has no monitor for the segments that it inherited.
                        None => self.start_monitor(state),
                    }
                    continue;
                }
                Err(error) => error,
            };
            state.token = token;
            match error {
                ConnectError::NotServed | ConnectError::TimedOut => {
                    // If the service that does not answer is the one of this client, it has ended.
                    state.service = None;
                    state.service = ShMemService::claim(&self.address.lookup(), deadline)?;
                    if state.service.is_some() {
                        continue;
                    }
                }
                ConnectError::Busy => {}
                ConnectError::Fatal(error) => return Err(error),
            }
            thread::sleep(RETRY_INTERVAL);
        }
    }

    /// Does the work of the monitor after the connection `lost` has ended, or after it was woken. Returns
    /// what it has to wait for next.
    fn reconnect(self: &Arc<Self>, lost: Option<&Arc<Connection>>) -> MonitorTarget {
        let Ok(mut state) = self.state() else {
            return MonitorTarget {
                connection: lost.cloned(),
                retry_after: Some(RECONNECT_PAUSE),
            };
        };
        let is_lost =
            |current: &Arc<Connection>| lost.is_some_and(|lost| Arc::ptr_eq(current, lost));
        if state.connection.as_ref().is_some_and(is_lost) {
            state.lose_connection();
        }
        state.is_reconnecting = true;
        let deadline = Instant::now() + RECONNECT_TIMEOUT;
        let has_failed =
            !state.held.is_empty() && self.ensure_connected(&mut state, deadline).is_err();
        state.is_reconnecting = false;
        let have_moved = state.held.is_empty() || has_failed || {
            let deadline = Instant::now() + RECONNECT_TIMEOUT;
            self.move_members(&mut state, deadline) & state.settle_held(deadline)
        };
        state.send_releases(None);
        let is_unfinished = has_failed || !have_moved || !state.unsent_releases.is_empty();
        MonitorTarget {
            connection: state.connection.clone(),
            retry_after: is_unfinished.then_some(RECONNECT_PAUSE),
        }
    }

    /// Removes the files of a service that has died, unless there is another service by now.
    pub(super) fn remove_stale_files(&self) {
        let Ok(location) = self.address.locate() else {
            return;
        };
        // If the claim is denied, there is a service, or nothing that this process may remove. Otherwise
        // dropping it removes the files.
        drop(LockDir::open(&location.path).and_then(ServiceLock::claim));
    }
}

impl State {
    /// Returns what a new monitor waits for. It takes the lock only if there is work for it: a fork that is not
    /// announced has to find the lock free, or the child forgets what it holds.
    fn first_target(&mut self) -> MonitorTarget {
        let has_locks = self.witness.is_some() || !sys::SERVICE_KEEPS_LOCKS;
        let is_idle = self.connection.is_some()
            && self.unregistered.is_empty()
            && self.unsent_releases.is_empty()
            && self.members.is_empty()
            && has_locks;
        // There is nobody to move.
        self.has_new_host &= !is_idle;
        MonitorTarget {
            connection: self.connection.clone(),
            retry_after: (!is_idle).then_some(Duration::ZERO),
        }
    }
}
