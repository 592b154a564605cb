//! Which client holds which segment. No sockets, no descriptors and no clock: the type of a stored segment
//! is a parameter, and times are numbers.
//!
//! A segment is stored while it has a holder: a connected client, or a fork that was announced and whose
//! child has not connected yet. So nothing is stored any more when the last client has disconnected and the
//! last announced fork has connected or expired.
//!
//! A client that holds a segment can lock one of its bytes. A segment is settled if all locks in it are known:
//! one that a client has just created, or one of which a holder knows that all clients of
//! earlier services have either locked their bytes again or ended. In others, a byte that is not locked may
//! belong to a client that has not returned yet.
//!
//! The use of each process is bounded: see [`admission`](super::admission).

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::admission::is_fair;
use super::protocol::Token;
use crate::id::ShMemId;

/// Identifies a connected client. Numbers are not reused.
pub type Client = u64;

/// The process that a client belongs to. All clients of a process share its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Process {
    /// The process with this number.
    Known(u32),
    /// A process in another pid namespace, whose number is unknown. All of these together have the limits
    /// of one process.
    Unknown,
}

/// The limits for all clients together.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The maximum number of segments.
    pub segments: usize,
    /// The maximum size of all segments together, in bytes.
    pub bytes: u64,
    /// The maximum number of announced forks.
    pub forks: usize,
}

/// How many ids the sets of one process may contain together, as a multiple of [`Limits::segments`].
pub const IDS_PER_SEGMENT: usize = 4;

/// Segments that are no longer stored, but still count because they are being closed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Closing {
    /// Those of the client's process.
    pub own: usize,
    /// Those of all processes.
    pub all: usize,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The id belongs to another segment, or the byte is locked.
    Taken,
    /// A limit is reached, or the share of this process.
    Full,
    /// No segment has this id, or the client does not hold it, or it has no such byte.
    Unknown,
    /// Not all locks in the segment are known.
    Unsettled,
}

/// The stored segments and their holders.
#[derive(Debug)]
pub struct Registry<S> {
    limits: Limits,
    segments: BTreeMap<ShMemId, Entry<S>>,
    clients: BTreeMap<Client, ClientState>,
    forks: BTreeMap<Token, Fork>,
    /// Processes that use nothing have no entry.
    usage: BTreeMap<Process, Usage>,
    bytes: u64,
    /// Segments that are no longer stored, or never were, until [`take_freed`](Self::take_freed).
    freed: Vec<Freed<S>>,
}

/// A client and the segments it holds.
#[derive(Debug)]
struct ClientState {
    process: Process,
    held: Arc<HeldSet>,
    /// The segment and the byte that it has locked.
    lock: Option<(ShMemId, u64)>,
}

/// A set of held segments. A client and its announced forks share one set, which is copied when one of them
/// changes it.
#[derive(Debug)]
struct HeldSet {
    /// The process whose limit it counts towards.
    process: Process,
    ids: BTreeSet<ShMemId>,
}

#[derive(Debug)]
struct Entry<S> {
    segment: S,
    size: u64,
    /// The process that registered it first.
    process: Process,
    /// How many sets contain it.
    holders: usize,
    /// The locked bytes. Those who have locked them hold the segment.
    locks: BTreeMap<u64, Client>,
    /// `true` if these are all locks in the segment.
    is_settled: bool,
}

/// An announced fork. It holds what its parent held at the announcement.
#[derive(Debug)]
struct Fork {
    /// The parent.
    process: Process,
    held: Arc<HeldSet>,
    expires: u64,
}

/// A segment that the caller has to close.
#[derive(Debug, PartialEq, Eq)]
pub struct Freed<S> {
    /// The process that registered it.
    pub process: Process,
    /// The segment.
    pub segment: S,
    /// `true` if it was stored, and so counted towards the limits.
    pub was_stored: bool,
}

/// What counts towards the limits of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    clients: usize,
    /// The segments that it registered first.
    segments: usize,
    /// The size of these segments.
    bytes: u64,
    /// The ids in its sets.
    ids: usize,
    /// The forks that it announced.
    forks: usize,
}

impl<S: PartialEq> Registry<S> {
    /// Creates an empty registry.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            segments: BTreeMap::new(),
            clients: BTreeMap::new(),
            forks: BTreeMap::new(),
            usage: BTreeMap::new(),
            bytes: 0,
            freed: Vec::new(),
        }
    }

    /// Adds a client of this process, which holds nothing.
    pub fn connect(&mut self, client: Client, process: Process) {
        if self.clients.contains_key(&client) {
            return;
        }
        let held = Arc::new(HeldSet {
            process,
            ids: BTreeSet::new(),
        });
        let state = ClientState {
            process,
            held,
            lock: None,
        };
        self.clients.insert(client, state);
        self.update_usage(process, |usage| usage.clients += 1);
    }

    /// Removes a client with its lock, and frees the segments that only it held.
    pub fn disconnect(&mut self, client: Client) {
        self.unlock(client);
        if let Some(ClientState { process, held, .. }) = self.clients.remove(&client) {
            self.update_usage(process, |usage| {
                usage.clients = usage.clients.saturating_sub(1);
            });
            self.release_set(held);
        }
    }

    /// Stores a segment under the id, with the client as its holder.
    ///
    /// Registering a stored segment again, as clients do with a new host, adds a holder. A segment that is
    /// not stored by this call is [freed](Self::take_freed).
    ///
    /// # Errors
    ///
    /// If the id belongs to another segment, or if a limit is reached.
    pub fn register(
        &mut self,
        client: Client,
        id: ShMemId,
        size: u64,
        segment: S,
        closing: Closing,
    ) -> Result<(), Refusal> {
        let Some(process) = self.clients.get(&client).map(|client| client.process) else {
            self.give_back(Process::Unknown, segment);
            return Err(Refusal::Full);
        };
        if let Some(entry) = self.segments.get(&id) {
            let is_same = entry.segment == segment && entry.size == size;
            self.give_back(process, segment);
            return match is_same {
                true if self.add_holder(client, id) => Ok(()),
                true => Err(Refusal::Full),
                false => Err(Refusal::Taken),
            };
        }
        if !self.may_store(process, size, closing) || !self.reserve_id(client) {
            self.give_back(process, segment);
            return Err(Refusal::Full);
        }
        self.bytes += size;
        self.update_usage(process, |usage| {
            usage.segments += 1;
            usage.bytes += size;
        });
        let entry = Entry {
            segment,
            size,
            process,
            holders: 0,
            locks: BTreeMap::new(),
            is_settled: false,
        };
        self.segments.insert(id, entry);
        self.add_holder(client, id);
        Ok(())
    }

    /// As [`register`](Self::register), for a segment that no earlier service can have known.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register).
    pub fn create(
        &mut self,
        client: Client,
        id: ShMemId,
        size: u64,
        segment: S,
        closing: Closing,
    ) -> Result<(), Refusal> {
        let is_new = !self.segments.contains_key(&id);
        self.register(client, id, size, segment, closing)?;
        if let (true, Some(entry)) = (is_new, self.segments.get_mut(&id)) {
            entry.is_settled = true;
        }
        Ok(())
    }

    /// Locks a byte of a segment that the client holds. A client that had locked it when an earlier service died
    /// locks it `again`, until the segment is settled; only then can others do.
    ///
    /// # Errors
    ///
    /// [`Taken`](Refusal::Taken) if the byte is locked, by whatever client, or can no longer be locked again;
    /// [`Full`](Refusal::Full) if the client has a lock; [`Unsettled`](Refusal::Unsettled) if the byte may be
    /// locked; [`Unknown`](Refusal::Unknown) if the client does not hold the segment, or if it has no such byte.
    pub fn lock(
        &mut self,
        client: Client,
        id: ShMemId,
        byte: u64,
        again: bool,
    ) -> Result<(), Refusal> {
        let is_locked = self.is_locked(client, id, byte);
        let state = self.clients.get_mut(&client).ok_or(Refusal::Unknown)?;
        let is_settled = match is_locked {
            Ok(false) => true,
            Ok(true) => return Err(Refusal::Taken),
            Err(Refusal::Unsettled) => false,
            Err(refusal) => return Err(refusal),
        };
        if state.lock.is_some() {
            return Err(Refusal::Full);
        }
        match (is_settled, again) {
            (true, true) => return Err(Refusal::Taken),
            (false, false) => return Err(Refusal::Unsettled),
            _ => {}
        }
        let entry = self.segments.get_mut(&id).ok_or(Refusal::Unknown)?;
        entry.locks.insert(byte, client);
        state.lock = Some((id, byte));
        Ok(())
    }

    /// Removes the client's lock. Returns `false` if it has none.
    pub fn unlock(&mut self, client: Client) -> bool {
        let state = self.clients.get_mut(&client);
        let Some((id, byte)) = state.and_then(|state| state.lock.take()) else {
            return false;
        };
        if let Some(entry) = self.segments.get_mut(&id) {
            entry.locks.remove(&byte);
        }
        true
    }

    /// Returns `true` if a client has locked this byte of a segment that `client` holds.
    ///
    /// # Errors
    ///
    /// [`Unsettled`](Refusal::Unsettled) if that is not known, [`Unknown`](Refusal::Unknown) if the client does
    /// not hold the segment, or if it has no such byte.
    pub fn is_locked(&self, client: Client, id: ShMemId, byte: u64) -> Result<bool, Refusal> {
        let entry = self.segments.get(&id).ok_or(Refusal::Unknown)?;
        if !self.holds(client, id) || byte >= entry.size {
            return Err(Refusal::Unknown);
        }
        match entry.locks.contains_key(&byte) {
            true => Ok(true),
            false if entry.is_settled => Ok(false),
            false => Err(Refusal::Unsettled),
        }
    }

    /// Settles a segment that the client holds. Returns `false` if it does not.
    pub fn settle(&mut self, client: Client, id: ShMemId) -> bool {
        let is_held = self.holds(client, id);
        if let (true, Some(entry)) = (is_held, self.segments.get_mut(&id)) {
            entry.is_settled = true;
        }
        is_held
    }

    /// Returns `true` if the client has a lock in this segment, or may lock a byte of it.
    #[must_use]
    pub fn may_lock(&self, client: Client, id: ShMemId) -> bool {
        let is_settled = |entry: &Entry<S>| entry.is_settled;
        self.lock_of(client) == Some(id)
            || self.holds(client, id) && self.segments.get(&id).is_some_and(is_settled)
    }

    /// Returns the segment in which the client has a lock.
    #[must_use]
    pub fn lock_of(&self, client: Client) -> Option<ShMemId> {
        let lock = self.clients.get(&client)?.lock;
        lock.map(|(id, _)| id)
    }

    /// Frees a segment that was not stored.
    fn give_back(&mut self, process: Process, segment: S) {
        self.freed.push(Freed {
            process,
            segment,
            was_stored: false,
        });
    }

    /// Returns `true` if the process may store another segment of this size.
    fn may_store(&self, process: Process, size: u64, closing: Closing) -> bool {
        let Limits {
            segments, bytes, ..
        } = self.limits;
        let usage = self.usage_of(process);
        let stored = self.segments.len().saturating_add(closing.all);
        let own = usage.segments.saturating_add(closing.own);
        let left = segments.saturating_sub(stored);
        // After this segment is stored.
        let left_bytes = bytes.checked_sub(self.bytes.saturating_add(size));
        is_fair(own as u64, left as u64, segments as u64)
            && left_bytes.is_some_and(|left| {
                // Without the last byte: `is_fair` decides whether the process may have one more.
                let own = usage.bytes.saturating_add(size).saturating_sub(1);
                is_fair(own, left, bytes)
            })
    }

    /// Returns the segment with this id and its size, and makes the client one of its holders.
    ///
    /// # Errors
    ///
    /// If there is no such segment or client, or if the client's process holds as many as it may.
    pub fn open(&mut self, client: Client, id: ShMemId) -> Result<(&S, u64), Refusal> {
        if !self.clients.contains_key(&client) || !self.segments.contains_key(&id) {
            return Err(Refusal::Unknown);
        }
        if !self.add_holder(client, id) {
            return Err(Refusal::Full);
        }
        let entry = self.segments.get(&id).ok_or(Refusal::Unknown)?;
        Ok((&entry.segment, entry.size))
    }

    /// Removes the client from the holders of the segment, with its lock in it.
    ///
    /// Returns `false` if it is not one of them, or if there is no room to copy the set that it shares.
    pub fn release(&mut self, client: Client, id: ShMemId) -> bool {
        if !self.holds(client, id) || !self.unshare(client) {
            return false;
        }
        let state = self.clients.get_mut(&client);
        let Some(set) = state.and_then(|state| Arc::get_mut(&mut state.held)) else {
            return false;
        };
        let process = set.process;
        set.ids.remove(&id);
        self.update_usage(process, |usage| {
            usage.ids = usage.ids.saturating_sub(1);
        });
        if self.lock_of(client) == Some(id) {
            self.unlock(client);
        }
        self.remove_holder(id);
        true
    }

    /// Announces a fork of `parent`, which holds what its parent holds now, until it expires.
    ///
    /// If the limit is reached, this cancels the oldest forks of the same process. Returns `false` if there
    /// is none left to cancel, if there is no such client, or if another fork has this token.
    pub fn announce_fork(&mut self, parent: Client, token: Token, expires: u64) -> bool {
        let Some(parent) = self.clients.get(&parent) else {
            return false;
        };
        if self.forks.contains_key(&token) {
            return false;
        }
        let process = parent.process;
        let held = Arc::clone(&parent.held);
        while !self.may_announce(process) {
            if !self.cancel_oldest_fork(process) {
                return false;
            }
        }
        self.update_usage(process, |usage| usage.forks += 1);
        let fork = Fork {
            process,
            held,
            expires,
        };
        self.forks.insert(token, fork);
        true
    }

    fn may_announce(&self, process: Process) -> bool {
        let left = self.limits.forks.saturating_sub(self.forks.len());
        let own = self.usage_of(process).forks;
        is_fair(own as u64, left as u64, self.limits.forks as u64)
    }

    /// Binds an announced fork to the client of its child, which then holds what the fork held.
    ///
    /// Returns `false` if no fork with this token was pending, or if the client could not become a holder of
    /// every segment.
    pub fn bind_fork(&mut self, client: Client, token: Token) -> bool {
        if !self.clients.contains_key(&client) {
            return false;
        }
        let Some(fork) = self.remove_fork(token) else {
            return false;
        };
        if let Some(client) = self.clients.get_mut(&client) {
            if client.held.ids.is_empty() {
                let empty = core::mem::replace(&mut client.held, fork.held);
                self.release_set(empty);
                return true;
            }
        }
        let all = fork.held.ids.iter().all(|&id| self.add_holder(client, id));
        self.release_set(fork.held);
        all
    }

    /// Cancels the announced forks that have expired by this time.
    pub fn expire_forks(&mut self, now: u64) {
        let expired = self.forks.iter().filter(|(_, fork)| fork.expires <= now);
        let expired: Vec<Token> = expired.map(|(&token, _)| token).collect();
        for token in expired {
            self.cancel_fork(token);
        }
    }

    /// Returns when the next announced fork expires.
    #[must_use]
    pub fn next_fork_expiry(&self) -> Option<u64> {
        self.forks.values().map(|fork| fork.expires).min()
    }

    /// Returns the segments that are no longer stored, or never were, since the last call.
    pub fn take_freed(&mut self) -> Vec<Freed<S>> {
        core::mem::take(&mut self.freed)
    }

    /// Removes all clients and forks, and [frees](Self::take_freed) all segments.
    pub fn clear(&mut self) {
        self.clients.clear();
        self.forks.clear();
        self.usage.clear();
        self.bytes = 0;
        let entries = core::mem::take(&mut self.segments).into_values();
        let entries = entries.map(|entry| Freed {
            process: entry.process,
            segment: entry.segment,
            was_stored: true,
        });
        self.freed.extend(entries);
    }

    /// Returns the number of announced forks.
    #[must_use]
    pub fn pending_forks(&self) -> usize {
        self.forks.len()
    }

    /// Returns the number of clients.
    #[must_use]
    pub fn client_count(&self) -> usize {
        self.clients.len()
    }

    /// Returns the number of stored segments.
    #[must_use]
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// Returns `true` if no segment is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Returns the size of all stored segments together, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the number of ids in the sets of the process, to which the memory they occupy is
    /// proportional.
    #[must_use]
    pub fn ids_of(&self, process: Process) -> usize {
        self.usage_of(process).ids
    }

    /// Returns the number of stored segments that the process registered first.
    #[must_use]
    pub fn segments_of(&self, process: Process) -> usize {
        self.usage_of(process).segments
    }

    /// Returns the number of forks that the process has announced.
    #[must_use]
    pub fn forks_of(&self, process: Process) -> usize {
        self.usage_of(process).forks
    }

    /// Returns the number of clients of the process.
    #[must_use]
    pub fn clients_of(&self, process: Process) -> usize {
        self.usage_of(process).clients
    }

    /// Returns the number of processes that use anything.
    #[must_use]
    pub fn process_count(&self) -> usize {
        self.usage.len()
    }

    /// Returns `true` if the client holds no segment.
    #[must_use]
    pub fn holds_nothing(&self, client: Client) -> bool {
        let client = self.clients.get(&client);
        client.is_none_or(|client| client.held.ids.is_empty())
    }

    /// Returns the segments that the client holds.
    pub fn held_by(&self, client: Client) -> impl Iterator<Item = ShMemId> + '_ {
        let client = self.clients.get(&client).into_iter();
        client.flat_map(|client| client.held.ids.iter().copied())
    }

    /// Returns `true` if the client holds this segment.
    #[must_use]
    pub fn holds(&self, client: Client, id: ShMemId) -> bool {
        let client = self.clients.get(&client);
        client.is_some_and(|client| client.held.ids.contains(&id))
    }

    /// Makes the client a holder of a stored segment. Returns `false` if that is not possible.
    fn add_holder(&mut self, client: Client, id: ShMemId) -> bool {
        if self.holds(client, id) {
            return true;
        }
        if !self.reserve_id(client) {
            return false;
        }
        let client = self.clients.get_mut(&client);
        let set = client.and_then(|client| Arc::get_mut(&mut client.held));
        let (Some(set), Some(entry)) = (set, self.segments.get_mut(&id)) else {
            return false;
        };
        set.ids.insert(id);
        entry.holders += 1;
        let process = set.process;
        self.update_usage(process, |usage| usage.ids += 1);
        true
    }

    /// Gives the client a set of its own with room for one more id, if necessary by cancelling forks of the
    /// same process. Returns `false` if that is not possible.
    fn reserve_id(&mut self, client: Client) -> bool {
        if !self.unshare(client) {
            return false;
        }
        let Some(process) = self.clients.get(&client).map(|client| client.held.process) else {
            return false;
        };
        while !self.has_room_for_ids(process, 1) {
            if !self.cancel_oldest_fork(process) {
                return false;
            }
        }
        true
    }

    /// Copies the client's set if it is shared, if necessary by cancelling forks of the same process. Returns
    /// `false` if that is not possible.
    fn unshare(&mut self, client: Client) -> bool {
        loop {
            let Some(client) = self.clients.get_mut(&client) else {
                return false;
            };
            if Arc::get_mut(&mut client.held).is_some() {
                return true;
            }
            let (process, len) = (client.process, client.held.ids.len());
            if self.has_room_for_ids(process, len) {
                break;
            }
            if !self.cancel_oldest_fork(process) {
                return false;
            }
        }
        let Some(ClientState { process, held, .. }) = self.clients.get_mut(&client) else {
            return false;
        };
        let process = *process;
        let ids = held.ids.clone();
        let len = ids.len();
        for id in &ids {
            if let Some(entry) = self.segments.get_mut(id) {
                entry.holders += 1;
            }
        }
        let shared = core::mem::replace(held, Arc::new(HeldSet { process, ids }));
        self.update_usage(process, |usage| usage.ids += len);
        self.release_set(shared);
        true
    }

    fn has_room_for_ids(&self, process: Process, more: usize) -> bool {
        let max = self.limits.segments.saturating_mul(IDS_PER_SEGMENT);
        self.usage_of(process).ids.saturating_add(more) <= max
    }

    fn usage_of(&self, process: Process) -> Usage {
        self.usage.get(&process).copied().unwrap_or_default()
    }

    fn update_usage(&mut self, process: Process, change: impl FnOnce(&mut Usage)) {
        let usage = self.usage.entry(process).or_default();
        change(usage);
        if *usage == Usage::default() {
            self.usage.remove(&process);
        }
    }

    fn remove_fork(&mut self, token: Token) -> Option<Fork> {
        let fork = self.forks.remove(&token)?;
        self.update_usage(fork.process, |usage| {
            usage.forks = usage.forks.saturating_sub(1);
        });
        Some(fork)
    }

    fn cancel_fork(&mut self, token: Token) {
        if let Some(fork) = self.remove_fork(token) {
            self.release_set(fork.held);
        }
    }

    /// Cancels the fork of the process that expires first. Returns `false` if there is none.
    fn cancel_oldest_fork(&mut self, process: Process) -> bool {
        let of_process = self
            .forks
            .iter()
            .filter(|(_, fork)| fork.process == process);
        let oldest = of_process.min_by_key(|(_, fork)| fork.expires);
        let Some(oldest) = oldest.map(|(&token, _)| token) else {
            return false;
        };
        self.cancel_fork(oldest);
        true
    }

    /// Drops one reference to the set, and with the last one removes it from the holders of its segments.
    fn release_set(&mut self, set: Arc<HeldSet>) {
        let Some(set) = Arc::into_inner(set) else {
            return;
        };
        let len = set.ids.len();
        self.update_usage(set.process, |usage| {
            usage.ids = usage.ids.saturating_sub(len);
        });
        for id in set.ids {
            self.remove_holder(id);
        }
    }

    /// Decrements the number of holders, and frees the segment with the last one.
    fn remove_holder(&mut self, id: ShMemId) {
        let Some(entry) = self.segments.get_mut(&id) else {
            return;
        };
        entry.holders = entry.holders.saturating_sub(1);
        if entry.holders > 0 {
            return;
        }
        if let Some(entry) = self.segments.remove(&id) {
            self.bytes = self.bytes.saturating_sub(entry.size);
            self.update_usage(entry.process, |usage| {
                usage.segments = usage.segments.saturating_sub(1);
                usage.bytes = usage.bytes.saturating_sub(entry.size);
            });
            self.freed.push(Freed {
                process: entry.process,
                segment: entry.segment,
                was_stored: true,
            });
        }
    }
}
