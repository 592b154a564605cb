//! The deadlines of the service: which clients have to send something, which wait for something, and when
//! the loop has to wake up next. No sockets and no clock: times are numbers that the caller passes.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::registry::Client;
use crate::id::ShMemId;

/// A point in time, or a span, in milliseconds. Points are counted from the start of the service.
pub(super) type Millis = u64;

/// How long a client may take to introduce itself, and for the rest of a frame.
pub(super) const FRAME_TIMEOUT: Millis = 2_000;

/// How long an announced fork may take to connect.
pub(super) const FORK_TIMEOUT: Millis = 10_000;

/// How long after its start a service waits for the clients of a previous host, which was killed or stopped,
/// to register their segments.
pub(super) const GRACE_PERIOD: Millis = 500;

/// How often the service checks that its files are in place.
///
/// Half of [`GRACE_PERIOD`], so that a service that has been started in the meantime still waits when the
/// clients of this one register their segments there.
pub(super) const CHECK_INTERVAL: Millis = 250;

/// How long the service waits before it retries what it had no resources for.
pub(super) const RETRY_INTERVAL: Millis = 5;

/// All deadlines of the service, except when announced forks expire, which the registry knows.
#[derive(Debug)]
pub(super) struct Deadlines {
    /// Clients that have to introduce themselves, or to send the rest of a frame.
    frames: BTreeMap<Client, Millis>,
    /// Clients that wait for a segment until the end of the grace period.
    opens: BTreeMap<Client, PendingOpen>,
    /// Clients that are not read from until less of their process waits to be closed.
    paused: BTreeSet<Client>,
    /// When connections are accepted again, if they are not accepted now.
    accept: Option<Millis>,
    /// When to check the files next.
    check: Millis,
    /// The earliest deadline, or a time before it.
    next: Millis,
}

/// A request to open a segment that another client may still register.
#[derive(Clone, Copy, Debug)]
struct PendingOpen {
    id: ShMemId,
    number: u32,
}

/// What is due.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// Clients that have not sent a frame in time. All of their deadlines are removed.
    pub(super) late: Vec<Client>,
    /// Requests to open a segment that no client has registered: the client, and the number of the request.
    pub(super) unanswered: Vec<(Client, u32)>,
    /// `true` if connections can be accepted again.
    pub(super) accept: bool,
    /// Clients that are read from again if possible. They stay paused until
    /// [`resume`](Deadlines::resume).
    pub(super) paused: Vec<Client>,
    /// `true` if the files have to be checked, after which [`checked`](Deadlines::checked) is called.
    pub(super) check: bool,
}

impl Deadlines {
    /// Creates the deadlines of a service that starts now, at time 0.
    pub(super) fn new() -> Self {
        Self {
            frames: BTreeMap::new(),
            opens: BTreeMap::new(),
            paused: BTreeSet::new(),
            accept: None,
            check: CHECK_INTERVAL,
            next: CHECK_INTERVAL,
        }
    }

    /// Returns the earliest deadline, or a time before it.
    pub(super) fn next(&self) -> Millis {
        self.next
    }

    /// Requires that the client completes a frame, unless it has to already.
    pub(super) fn expect_frame(&mut self, client: Client, now: Millis) {
        let deadline = now + FRAME_TIMEOUT;
        self.frames.entry(client).or_insert(deadline);
        self.include(deadline);
    }

    /// The client has sent a frame.
    pub(super) fn received_frame(&mut self, client: Client) {
        self.frames.remove(&client);
    }

    /// Makes the client wait for a segment. Returns `false` after the grace period, when no client waits for
    /// segments any more.
    pub(super) fn wait_for(
        &mut self,
        client: Client,
        id: ShMemId,
        number: u32,
        now: Millis,
    ) -> bool {
        if now >= GRACE_PERIOD {
            return false;
        }
        self.opens.insert(client, PendingOpen { id, number });
        self.include(GRACE_PERIOD);
        true
    }

    /// Returns `true` if the client waits for a segment.
    pub(super) fn is_waiting(&self, client: Client) -> bool {
        self.opens.contains_key(&client)
    }

    /// Returns the clients that wait for this segment, with the numbers of their requests. They no longer
    /// wait.
    pub(super) fn take_waiters(&mut self, id: ShMemId) -> Vec<(Client, u32)> {
        let mut waiters = Vec::new();
        self.opens.retain(|&client, open| {
            if open.id == id {
                waiters.push((client, open.number));
            }
            open.id != id
        });
        waiters
    }

    /// Returns when a fork that is announced now expires.
    pub(super) fn announce_fork(&mut self, now: Millis) -> Millis {
        let deadline = now + FORK_TIMEOUT;
        self.include(deadline);
        deadline
    }

    /// Does not read from the client until [`resume`](Self::resume).
    pub(super) fn pause(&mut self, client: Client, now: Millis) {
        self.paused.insert(client);
        self.include(now + RETRY_INTERVAL);
    }

    /// Returns `true` if the client is not read from.
    pub(super) fn is_paused(&self, client: Client) -> bool {
        self.paused.contains(&client)
    }

    /// Reads from the client again.
    pub(super) fn resume(&mut self, client: Client) {
        self.paused.remove(&client);
    }

    /// Accepts no connections for a while.
    pub(super) fn stop_accepting(&mut self, now: Millis) {
        let deadline = now + RETRY_INTERVAL;
        self.accept = Some(deadline);
        self.include(deadline);
    }

    /// The files were checked at this time.
    pub(super) fn checked(&mut self, now: Millis) {
        self.check = now + CHECK_INTERVAL;
    }

    /// Removes all deadlines of a client.
    pub(super) fn remove(&mut self, client: Client) {
        self.frames.remove(&client);
        self.opens.remove(&client);
        self.paused.remove(&client);
    }

    /// Returns what is due at this time, and removes these deadlines. Afterwards
    /// [`schedule`](Self::schedule) has to be called.
    pub(super) fn expire(&mut self, now: Millis) -> Due {
        let late = self.frames.iter().filter(|&(_, &deadline)| deadline <= now);
        let late: Vec<Client> = late.map(|(&client, _)| client).collect();
        for &client in &late {
            self.remove(client);
        }
        let mut due = Due {
            late,
            accept: self.accept.take_if(|deadline| *deadline <= now).is_some(),
            paused: self.paused.iter().copied().collect(),
            check: self.check <= now,
            ..Due::default()
        };
        if GRACE_PERIOD <= now {
            let opens = core::mem::take(&mut self.opens).into_iter();
            due.unanswered = opens.map(|(client, open)| (client, open.number)).collect();
        }
        due
    }

    /// Determines the earliest deadline. `forks` is when the next announced fork expires.
    pub(super) fn schedule(&mut self, now: Millis, forks: Option<Millis>) {
        let retry = (!self.paused.is_empty()).then_some(now + RETRY_INTERVAL);
        let opens = (!self.opens.is_empty()).then_some(GRACE_PERIOD);
        let others = [retry, opens, self.accept, forks];
        let others = others.into_iter().flatten();
        let all = self.frames.values().copied().chain(others);
        self.next = all.fold(self.check, Millis::min);
    }

    fn include(&mut self, deadline: Millis) {
        self.next = self.next.min(deadline);
    }
}
