//! Decides who is admitted: how many connections and segments the service has room for, how much of that
//! one process may have, and which client is evicted when there is no room left. No sockets and no clock,
//! only numbers.
//!
//! Of each limited resource, a process gets at most [`SHARE`] times as much as is left for all others, so
//! one process leaves a fifth. Several processes that come and go could still take the rest, because each
//! new one has nothing and may take more. So the last eighth is reserved for processes that have little:
//! see [`is_fair`].

use alloc::vec::Vec;

use super::registry::Client;

/// How many times as much a process may have as is left.
pub(super) const SHARE: u64 = 4;

/// Returns `true` if a process that has `own` of a resource may have more of it, when `left` of `limit` is
/// left.
///
/// [`SHARE`] bounds each process. Of the last eighth, a process that already has a twelfth of it gets
/// nothing, so ten other processes leave some of it.
#[must_use]
pub(super) fn is_fair(own: u64, left: u64, limit: u64) -> bool {
    let reserve = limit / 8;
    let little = (reserve / 12).max(1);
    own < left.saturating_mul(SHARE) && (left > reserve || own < little)
}

/// How many connections and segments the descriptors of this process suffice for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capacity {
    /// The maximum number of connections, including those that are being closed.
    pub(super) connections: usize,
    /// The maximum number of segments, including those that are being closed.
    pub(super) segments: usize,
    /// How many descriptors that clients should not have sent may be open until they are closed.
    pub(super) foreign: usize,
}

/// The decision about a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// There is room for it.
    Admit,
    /// There is room for it if an idle client can be evicted.
    Evict,
    /// Its process has to leave the room to others.
    Refuse,
}

impl Capacity {
    /// Returns the capacity of a process with this `RLIMIT_NOFILE`; `None` stands for no limit.
    ///
    /// Some descriptors are kept free: for the service itself, and for what is being closed. Half of the
    /// rest is for connections, half for segments.
    pub(super) fn of(open_files: Option<u64>) -> Self {
        /// What the service itself needs.
        const OWN: u64 = 24;
        const FOREIGN: u64 = 256;
        const MAX: u64 = 1 << 20;
        let limit = open_files.unwrap_or(MAX).min(MAX);
        let free = (limit / 8).min(OWN + FOREIGN);
        let count = |number| usize::try_from(number).unwrap_or(0);
        let rest = count(limit.saturating_sub(free));
        Self {
            connections: (rest / 2).max(1),
            segments: (rest / 2).max(1),
            foreign: count(free.saturating_sub(OWN) / 2).max(1),
        }
    }

    /// Decides about a new connection of a process that has `own` connections, when all processes
    /// together have `taken`.
    ///
    /// A process may have as many connections as are left for all others, and of the last eighth only if it
    /// has few.
    pub(super) fn admit(&self, own: usize, taken: usize) -> Admission {
        let limit = self.connections;
        match limit.saturating_sub(taken) {
            0 => Admission::Evict,
            left if own < left && is_fair(own as u64, left as u64, limit as u64) => {
                Admission::Admit
            }
            _ => Admission::Refuse,
        }
    }
}

/// A client that may be evicted: it holds no segment and waits for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct IdleClient {
    /// `false` until it has sent a valid `Hello`.
    pub(super) introduced: bool,
    /// When it was last read from: a number that increases with time.
    pub(super) last_read: u64,
    /// The client.
    pub(super) client: Client,
}

/// How many idle clients are considered for eviction: for each of them the caller asks the system whether
/// it has sent something in the meantime.
const MAX_CANDIDATES: usize = 8;

/// Returns the candidates for eviction, in this order: clients that have not introduced themselves first,
/// then those that have been silent longest.
pub(super) fn eviction_candidates(
    idle: impl Iterator<Item = IdleClient>,
) -> impl Iterator<Item = Client> {
    let mut idle: Vec<_> = idle.collect();
    idle.sort_unstable();
    let candidates = idle.into_iter().take(MAX_CANDIDATES);
    candidates.map(|candidate| candidate.client)
}
