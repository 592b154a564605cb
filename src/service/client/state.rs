//! [`State`]: what a client knows, under its lock.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::num::NonZeroU64;
use std::thread;
use std::time::Instant;

use rustix::fd::{AsFd, OwnedFd};

use super::RETRY_INTERVAL;
use super::connection::{Connection, REPLY_TIMEOUT, RequestError};
use super::locks::Member;
use super::monitor::HostMonitor;
use crate::id::ShMemId;
use crate::process::Owner;
use crate::service::host::ShMemService;
use crate::service::protocol::{Command, Request, Token};
use crate::sys::fork_closed::ForkClosed;

/// From how many hosts in a row the pipes are kept.
const MAX_WITNESSES: usize = 16;

/// A segment that this process holds.
pub(super) struct HeldSegment {
    pub(super) size: NonZeroU64,
    pub(super) fd: Arc<OwnedFd>,
    /// The number of its handles.
    pub(super) handles: usize,
    pub(super) locks: KnownLocks,
}

/// What this client can tell a host about the locks in a segment.
pub(super) enum KnownLocks {
    /// Nothing.
    Nothing,
    /// The host knows all.
    All,
    /// The host knows all once these pipes have reached their ends.
    After(Vec<Arc<ForkClosed>>),
}

#[derive(Default)]
pub(super) struct State {
    /// The process that the connection, the threads and the service belong to, if there are any.
    pub(super) owner: Option<Owner>,
    pub(super) connection: Option<Arc<Connection>>,
    /// `true` from the end of a connection until there is another one.
    pub(super) lost_host: bool,
    /// The number of the last request.
    last_number: u32,
    /// The segments that this process holds and that the current service does not know yet.
    pub(super) unregistered: Vec<ShMemId>,
    /// A registration that was sent and not answered yet, and when it was sent.
    pending_registration: Option<(Request, Instant)>,
    /// The segments that were released, of which the service does not know yet.
    pub(super) unsent_releases: Vec<ShMemId>,
    pub(super) held: BTreeMap<ShMemId, HeldSegment>,
    pub(super) monitor: Option<HostMonitor>,
    /// `true` while the monitor reconnects.
    pub(super) is_reconnecting: bool,
    /// The service, if this client hosts it.
    pub(super) service: Option<ShMemService>,
    /// When an operation last failed because the service did not answer.
    pub(super) last_failure: Option<Instant>,
    /// The token of a fork that was announced and is about to happen, or has just happened.
    pub(super) token: Option<Token>,
    /// The participants of this process.
    pub(super) members: Vec<Weak<Member>>,
    /// `true` from the time when there was another connection until all participants have moved to its host.
    pub(super) has_new_host: bool,
    /// The end for reading of the pipe of the host, once it is needed.
    pub(super) witness: Option<Arc<ForkClosed>>,
}

impl State {
    /// Drops the connection after it has failed.
    pub(super) fn lose_connection(&mut self) {
        self.connection = None;
        self.lost_host = true;
        self.forget_unfinished();
    }

    /// Forgets what was not completed with the last service.
    pub(super) fn forget_unfinished(&mut self) {
        self.unregistered.clear();
        self.pending_registration = None;
        self.unsent_releases.clear();
    }

    /// Notes that another host does not know all locks.
    pub(super) fn doubt_locks(&mut self) {
        let witness = self.witness.take();
        for segment in self.held.values_mut() {
            let known = core::mem::replace(&mut segment.locks, KnownLocks::Nothing);
            segment.locks = match (known, &witness) {
                (KnownLocks::All, Some(witness)) => KnownLocks::After([Arc::clone(witness)].into()),
                (KnownLocks::After(mut pipes), Some(witness)) if pipes.len() < MAX_WITNESSES => {
                    pipes.push(Arc::clone(witness));
                    KnownLocks::After(pipes)
                }
                _ => KnownLocks::Nothing,
            };
        }
    }

    /// Returns the number of the next request.
    pub(super) fn next_number(&mut self) -> u32 {
        self.last_number = self.last_number.wrapping_add(1);
        self.last_number
    }

    /// Registers the segments that the service does not know yet. After the deadline, the next call continues
    /// where this one stopped.
    pub(super) fn register_held(&mut self, deadline: Instant) -> Result<(), RequestError> {
        let Some(connection) = self.connection.clone() else {
            return Err(RequestError::Disconnected);
        };
        loop {
            if let Some((request, _)) = self.pending_registration {
                // A segment that is refused remains usable for the processes that hold it.
                connection.receive(request, deadline)?;
                self.pending_registration = None;
            }
            let Some(&id) = self.unregistered.last() else {
                return Ok(());
            };
            // It may have been released in the meantime.
            if let Some(segment) = self.held.get(&id) {
                let size = segment.size;
                let fd = Arc::clone(&segment.fd);
                let number = self.next_number();
                let command = Command::Register { id, size };
                let request = Request { number, command };
                match connection.send(request, Some(fd.as_fd()), deadline) {
                    Ok(()) => self.pending_registration = Some((request, Instant::now())),
                    Err(RequestError::Os("sendmsg", _)) if Instant::now() < deadline => {
                        thread::sleep(RETRY_INTERVAL);
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            self.unregistered.pop();
        }
    }

    /// Returns `true` if a registration was sent that the service may still answer.
    pub(super) fn awaits_registration(&self) -> bool {
        self.pending_registration
            .is_some_and(|(_, sent)| sent.elapsed() < REPLY_TIMEOUT)
    }

    /// Sends the releases that were not sent yet: until the deadline, or those that can be sent without
    /// blocking.
    pub(super) fn send_releases(&mut self, deadline: Option<Instant>) {
        while let (Some(&id), Some(connection)) =
            (self.unsent_releases.last(), self.connection.clone())
        {
            let number = self.next_number();
            let command = Command::Release(id);
            let request = Request { number, command };
            let sent = match deadline {
                Some(deadline) => connection.send(request, None, deadline),
                None => connection.send_now(request),
            };
            match sent {
                Ok(()) => drop(self.unsent_releases.pop()),
                Err(RequestError::TimedOut) if deadline.is_none() => return,
                // Either the host has died, or it releases everything when it notices the disconnection.
                Err(_) => self.lose_connection(),
            }
        }
    }
}
