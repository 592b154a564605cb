//! [`ServedParticipant`]: the locks of a served segment as `sys` knows them.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::time::Duration;
use std::thread;
use std::time::Instant;

use super::super::connection::RequestError;
use super::super::{Client, RETRY_INTERVAL, ServedHandle, TIMEOUT};
use super::{Member, SETTLE_TIMEOUT};
use crate::error::{Error, Result, ServiceError};
use crate::process::Owner;
use crate::service::protocol::{Command, Status};
use crate::sys::locks::{Locks, Participant};

/// How long a participant that leaves waits until the service knows that.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(500);

/// The [`Participant`] in a served segment.
struct ServedParticipant {
    member: Arc<Member>,
    client: Arc<Client>,
    owner: Owner,
}

impl Locks for ServedHandle {
    fn participant(&self) -> Result<Box<dyn Participant>> {
        let member = self.client.shared.join(self.id)?;
        Ok(Box::new(ServedParticipant {
            member,
            client: Arc::clone(&self.client),
            owner: Owner::current(),
        }))
    }
}

impl Participant for ServedParticipant {
    fn is_of_this_process(&self) -> bool {
        self.owner.is_current()
    }

    fn try_lock(&mut self, byte: usize) -> Result<bool> {
        let byte = byte as u64;
        let id = self.member.id;
        match self.ask(Command::Lock { id, byte })? {
            Status::Done => {
                self.member.lock().byte = Some(byte);
                Ok(true)
            }
            Status::Taken => Ok(false),
            status => Err(self.client.shared.lock_error(id, status)),
        }
    }

    fn is_locked(&self, byte: usize) -> Result<bool> {
        let byte = byte as u64;
        let id = self.member.id;
        let end = Instant::now() + SETTLE_TIMEOUT;
        loop {
            match self.ask(Command::Query { id, byte })? {
                Status::Done => return Ok(false),
                Status::Taken => return Ok(true),
                // The monitors of the participants are settling it.
                Status::Unsettled if Instant::now() < end => thread::sleep(RETRY_INTERVAL),
                status => return Err(self.client.shared.lock_error(id, status)),
            }
        }
    }
}

impl ServedParticipant {
    /// Sends a request and returns the status of the reply. If the host has died, asks the next one.
    fn ask(&self, command: Command) -> Result<Status> {
        let shared = &self.client.shared;
        if !self.is_of_this_process() {
            return Err(Error::Unsupported {
                what: "a forked child has no part in the locks of its parent",
            });
        }
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let (outcome, is_lost) = {
                let inner = &mut *self.member.lock();
                (inner.link.ask(command, deadline), inner.is_lost)
            };
            let error = match outcome {
                Ok((Status::Busy, _)) if Instant::now() < deadline => {
                    thread::sleep(RETRY_INTERVAL);
                    continue;
                }
                Ok((status, _)) => return Ok(status),
                Err(error) => error,
            };
            match error {
                RequestError::Disconnected if is_lost => {
                    return Err(shared.error(ServiceError::LostLock));
                }
                RequestError::Disconnected | RequestError::TimedOut
                    if Instant::now() < deadline =>
                {
                    shared.find_host(self.member.id)?;
                    thread::sleep(RETRY_INTERVAL);
                }
                error => return Err(shared.request_error(error)),
            }
        }
    }
}

impl Drop for ServedParticipant {
    fn drop(&mut self) {
        if !self.is_of_this_process() {
            // The descriptors of the connection are closed, and another thread may have had the lock.
            core::mem::forget(Arc::clone(&self.member));
            return;
        }
        let inner = &mut *self.member.lock();
        // Otherwise the host would know it only after it has noticed the end of the connection.
        if inner.byte.take().is_some() {
            let command = Command::Unlock(self.member.id);
            let _ = inner.link.ask(command, Instant::now() + LEAVE_TIMEOUT);
        }
    }
}

impl fmt::Debug for ServedParticipant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServedParticipant")
            .field("segment", &self.member.id)
            .finish_non_exhaustive()
    }
}
