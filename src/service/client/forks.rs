//! What a client does before and after `fork()`.

use std::time::Instant;

use super::state::{KnownLocks, State};
use super::{Client, TIMEOUT, random_text};
use crate::error::Result;
use crate::process::Owner;
use crate::service::protocol::{Command, Status};

impl Client {
    /// Announces a fork to the service, and keeps the state locked until [`post_fork`](Self::post_fork).
    pub(crate) fn pre_fork(&self) -> Result<()> {
        self.shared.address.read_environment();
        let start = Instant::now();
        let mut state = self.shared.state()?;
        let deadline = self.shared.deadline(&state, start)?;
        if state.connection.is_some() || !state.held.is_empty() {
            let token = random_text(b't')?;
            let command = Command::Fork(token);
            let (reply, _) = self.shared.request(&mut state, command, None, deadline)?;
            // Without a token, the child registers by itself what it holds.
            state.token = (reply.status == Status::Done).then_some(token);
        }
        // The child finds the state in which the fork was announced.
        state.hold();
        Ok(())
    }

    /// Unlocks the state. A child also creates a connection of its own.
    pub(crate) fn post_fork(&self, is_child: bool) -> Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        let mut state = self.shared.state.lock()?;
        if !is_child {
            state.token = None;
            return Ok(());
        }
        let is_announced = state.token.is_some();
        let current = state.current();
        state.forget_in_child(current);
        if is_announced || !state.held.is_empty() {
            self.shared.ensure_connected(&mut state, deadline)?;
        }
        Ok(())
    }
}

impl State {
    /// In a forked child, drops the connection, the threads and the service, which belong to its parent. The
    /// child holds the same segments as its parent.
    pub(super) fn forget_in_child(&mut self, current: Owner) {
        if self.owner.is_none_or(|owner| owner == current) {
            return;
        }
        if let Some(connection) = self.connection.take() {
            connection.close_in_child();
        }
        if let Some(monitor) = self.monitor.take() {
            monitor.forget_in_child();
        }
        self.forget_unfinished();
        self.members.clear();
        self.witness = None;
        for segment in self.held.values_mut() {
            segment.locks = KnownLocks::Nothing;
        }
        self.service = None;
        self.lost_host = false;
        self.owner = None;
    }
}
