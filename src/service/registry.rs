//! Who holds what. Knows no sockets, no descriptors and no clock: a segment is whatever the server
//! keeps for one, and times are numbers.
//!
//! What is kept is held: by a client that is connected, or by a fork that was announced and is still
//! awaited. So when the last client is gone, and the last fork has come or is given up, nothing is
//! kept.
//!
//! Everything is bounded for each process: of whatever there is a limited number of, no process gets more
//! than [`SHARE`] times as much as is left for all others, so that one of them leaves a fifth. Several that
//! come and go could take the rest all the same, because each that comes has nothing and may have more. So
//! the last eighth is for processes that have little: see [`is_fair`].

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::protocol::Token;
use crate::ShMemId;

/// A client, for as long as it is connected. Never given to another one later.
pub type Client = u64;

/// The process that a client belongs to: its clients share what one may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Process {
    /// The process of this number.
    Known(u32),
    /// It is not known which, because it is in another pid namespace. All of these together may have as
    /// much as one process.
    Unknown,
}

/// How much is kept at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Segments of all clients together.
    pub segments: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Forks that are awaited, of all clients together.
    pub forks: usize,
}

/// How many times as much a process may have as is free.
pub const SHARE: usize = 4;

/// Whether a process that has `own` of something may have more of it, when `left` is left of `limit`.
///
/// [`SHARE`] bounds each process. Of the last eighth, a process with more than a twelfth of it gets
/// nothing, so that ten others leave some of it.
#[must_use]
pub fn is_fair(own: u64, left: u64, limit: u64) -> bool {
    let reserve = limit / 8;
    let little = (reserve / 12).max(1);
    own < left.saturating_mul(SHARE as u64) && (left > reserve || own < little)
}

/// How many ids the sets of one process have together, at most, as a multiple of how many segments there
/// may be.
pub const IDS: usize = 4;

/// Segments that are not kept any more, but still count, because they are being closed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Closing {
    /// Of the process of the client.
    pub own: usize,
    /// Of all processes.
    pub all: usize,
}

/// Why a segment is not kept, or not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The id is another segment's.
    Taken,
    /// There is no room, or none for this process.
    Full,
    /// There is no segment of this id.
    Unknown,
}

/// The books: segments, and who holds them.
#[derive(Debug)]
pub struct Registry<S> {
    limits: Limits,
    segments: BTreeMap<ShMemId, Entry<S>>,
    clients: BTreeMap<Client, Holder>,
    forks: BTreeMap<Token, Fork>,
    /// Processes that have something.
    accounts: BTreeMap<Process, Account>,
    bytes: u64,
    /// What is not kept any more, or never was, until somebody takes it.
    freed: Vec<Freed<S>>,
}

/// A client, and what it holds.
#[derive(Debug)]
struct Holder {
    process: Process,
    held: Arc<Set>,
}

/// Segments that are held by whoever shares this. It is copied when one of several changes it.
#[derive(Debug)]
struct Set {
    /// Whom it counts for.
    process: Process,
    ids: BTreeSet<ShMemId>,
}

#[derive(Debug)]
struct Entry<S> {
    segment: S,
    size: u64,
    /// The client that registered it first.
    process: Process,
    /// How many sets it is in.
    holders: usize,
}

/// A fork that is awaited: it holds what its parent held when it announced it.
#[derive(Debug)]
struct Fork {
    /// Of the parent.
    process: Process,
    held: Arc<Set>,
    /// When it is given up.
    until: u64,
}

/// A segment that is not kept, to be closed.
#[derive(Debug, PartialEq, Eq)]
pub struct Freed<S> {
    /// The process that has registered it.
    pub process: Process,
    /// The segment.
    pub segment: S,
    /// Whether it was kept before, and so took room.
    pub was_kept: bool,
}

/// What a process has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Account {
    clients: usize,
    /// That it has registered first, and their bytes.
    segments: usize,
    bytes: u64,
    /// In its sets.
    ids: usize,
    forks: usize,
}

impl<S: PartialEq> Registry<S> {
    /// Nothing.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            segments: BTreeMap::new(),
            clients: BTreeMap::new(),
            forks: BTreeMap::new(),
            accounts: BTreeMap::new(),
            bytes: 0,
            freed: Vec::new(),
        }
    }

    /// A client of this process has come.
    pub fn connect(&mut self, client: Client, process: Process) {
        if self.clients.contains_key(&client) {
            return;
        }
        let held = Arc::new(Set {
            process,
            ids: BTreeSet::new(),
        });
        self.clients.insert(client, Holder { process, held });
        self.account(process, |account| account.clients += 1);
    }

    /// A client is gone: what only it held is let go.
    pub fn disconnect(&mut self, client: Client) {
        if let Some(Holder { process, held }) = self.clients.remove(&client) {
            self.account(process, |account| {
                account.clients = account.clients.saturating_sub(1);
            });
            self.let_set_go(held);
        }
    }

    /// Keeps a segment under the id, held by the client.
    ///
    /// To hand in what is kept already, as clients do for a new service, is to hold it. What is not kept
    /// is [freed](Self::freed).
    ///
    /// # Errors
    ///
    /// If the id is another segment's, or if there is no room for it.
    pub fn register(
        &mut self,
        client: Client,
        id: ShMemId,
        size: u64,
        segment: S,
        closing: Closing,
    ) -> Result<(), Refused> {
        let Some(process) = self.clients.get(&client).map(|holder| holder.process) else {
            self.refuse(Process::Unknown, segment);
            return Err(Refused::Full);
        };
        if let Some(entry) = self.segments.get(&id) {
            let is_same = entry.segment == segment && entry.size == size;
            self.refuse(process, segment);
            return match is_same {
                true if self.hold(client, id) => Ok(()),
                true => Err(Refused::Full),
                false => Err(Refused::Taken),
            };
        }
        if !self.has_room(process, size, closing) || !self.may_hold_more(client) {
            self.refuse(process, segment);
            return Err(Refused::Full);
        }
        self.bytes += size;
        self.account(process, |account| {
            account.segments += 1;
            account.bytes += size;
        });
        let entry = Entry {
            segment,
            size,
            process,
            holders: 0,
        };
        self.segments.insert(id, entry);
        self.hold(client, id);
        Ok(())
    }

    /// Gives a segment back that is not kept.
    fn refuse(&mut self, process: Process, segment: S) {
        self.freed.push(Freed {
            process,
            segment,
            was_kept: false,
        });
    }

    /// Whether the process may have one more segment, of this size.
    fn has_room(&self, process: Process, size: u64, closing: Closing) -> bool {
        let Limits {
            segments, bytes, ..
        } = self.limits;
        let account = self.account_of(process);
        let kept = self.segments.len().saturating_add(closing.all);
        let own = account.segments.saturating_add(closing.own);
        let left = segments.saturating_sub(kept);
        // With this one included.
        let left_bytes = bytes.checked_sub(self.bytes.saturating_add(size));
        is_fair(own as u64, left as u64, segments as u64)
            && left_bytes.is_some_and(|left| {
                // All but the last byte: whether it may have that one too.
                let own = account.bytes.saturating_add(size).saturating_sub(1);
                is_fair(own, left, bytes)
            })
    }

    /// The segment of this id and its size, from now on held by the client as well.
    ///
    /// # Errors
    ///
    /// If there is no such segment or client, or if the client's process has as many as it may.
    pub fn open(&mut self, client: Client, id: ShMemId) -> Result<(&S, u64), Refused> {
        if !self.clients.contains_key(&client) || !self.segments.contains_key(&id) {
            return Err(Refused::Unknown);
        }
        if !self.hold(client, id) {
            return Err(Refused::Full);
        }
        let entry = self.segments.get(&id).ok_or(Refused::Unknown)?;
        Ok((&entry.segment, entry.size))
    }

    /// The client does not hold the id any more. Returns whether it did, and could be told from those who
    /// share its set.
    pub fn release(&mut self, client: Client, id: ShMemId) -> bool {
        if !self.holds(client, id) || !self.make_own(client) {
            return false;
        }
        let holder = self.clients.get_mut(&client);
        let Some(set) = holder.and_then(|holder| Arc::get_mut(&mut holder.held)) else {
            return false;
        };
        let process = set.process;
        set.ids.remove(&id);
        self.account(process, |account| {
            account.ids = account.ids.saturating_sub(1);
        });
        self.let_go(id);
        true
    }

    /// A fork of the client is awaited until then; it holds what the client does.
    ///
    /// If there are too many, the oldest of the same process is given up for it. Whether it is awaited:
    /// not if there is none of the same process, or if another fork has the token.
    pub fn announce(&mut self, parent: Client, token: Token, until: u64) -> bool {
        let Some(holder) = self.clients.get(&parent) else {
            return false;
        };
        if self.forks.contains_key(&token) {
            return false;
        }
        let process = holder.process;
        let held = Arc::clone(&holder.held);
        while !self.has_room_for_fork(process) {
            if !self.give_up_oldest(process) {
                return false;
            }
        }
        self.account(process, |account| account.forks += 1);
        let fork = Fork {
            process,
            held,
            until,
        };
        self.forks.insert(token, fork);
        true
    }

    fn has_room_for_fork(&self, process: Process) -> bool {
        let left = self.limits.forks.saturating_sub(self.forks.len());
        let own = self.account_of(process).forks;
        is_fair(own as u64, left as u64, self.limits.forks as u64)
    }

    /// The fork of this token has come, and is this client. Whether it was awaited.
    pub fn adopt(&mut self, client: Client, token: Token) -> bool {
        if !self.clients.contains_key(&client) {
            return false;
        }
        let Some(fork) = self.take_fork(token) else {
            return false;
        };
        if let Some(holder) = self.clients.get_mut(&client) {
            if holder.held.ids.is_empty() {
                let nothing = core::mem::replace(&mut holder.held, fork.held);
                self.let_set_go(nothing);
                return true;
            }
        }
        let all = fork.held.ids.iter().all(|&id| self.hold(client, id));
        self.let_set_go(fork.held);
        all
    }

    /// Gives up the forks that are awaited until this time or an earlier one.
    pub fn expire(&mut self, now: u64) {
        let late = |fork: &Fork| fork.until <= now;
        let tokens = self.forks.iter().filter(|(_, fork)| late(fork));
        let tokens: Vec<Token> = tokens.map(|(&token, _)| token).collect();
        for token in tokens {
            self.give_up(token);
        }
    }

    /// When the first of the awaited forks is given up.
    #[must_use]
    pub fn next_expiry(&self) -> Option<u64> {
        self.forks.values().map(|fork| fork.until).min()
    }

    /// What is not kept any more, or never was.
    pub fn freed(&mut self) -> Vec<Freed<S>> {
        core::mem::take(&mut self.freed)
    }

    /// Forgets everything, which is then [freed](Self::freed).
    pub fn clear(&mut self) {
        self.clients.clear();
        self.forks.clear();
        self.accounts.clear();
        self.bytes = 0;
        let entries = core::mem::take(&mut self.segments).into_values();
        let entries = entries.map(|entry| Freed {
            process: entry.process,
            segment: entry.segment,
            was_kept: true,
        });
        self.freed.extend(entries);
    }

    /// How many forks are awaited.
    #[must_use]
    pub fn awaited(&self) -> usize {
        self.forks.len()
    }

    /// How many clients there are.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// How many segments are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// Whether no segment is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// How many bytes the segments have together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many ids are kept in the sets of the process: this is what the sets cost.
    #[must_use]
    pub fn ids_of(&self, process: Process) -> usize {
        self.account_of(process).ids
    }

    /// How many segments are kept that the process has registered first.
    #[must_use]
    pub fn segments_of(&self, process: Process) -> usize {
        self.account_of(process).segments
    }

    /// How many forks of the process are awaited.
    #[must_use]
    pub fn forks_of(&self, process: Process) -> usize {
        self.account_of(process).forks
    }

    /// How many clients the process has.
    #[must_use]
    pub fn clients_of(&self, process: Process) -> usize {
        self.account_of(process).clients
    }

    /// How many processes have something.
    #[must_use]
    pub fn processes(&self) -> usize {
        self.accounts.len()
    }

    /// Whether the client holds nothing.
    #[must_use]
    pub fn holds_nothing(&self, client: Client) -> bool {
        let holder = self.clients.get(&client);
        holder.is_none_or(|holder| holder.held.ids.is_empty())
    }

    /// What the client holds.
    pub fn held(&self, client: Client) -> impl Iterator<Item = ShMemId> + '_ {
        let holder = self.clients.get(&client).into_iter();
        holder.flat_map(|holder| holder.held.ids.iter().copied())
    }

    fn holds(&self, client: Client, id: ShMemId) -> bool {
        let holder = self.clients.get(&client);
        holder.is_some_and(|holder| holder.held.ids.contains(&id))
    }

    /// Lets the client hold a segment that is kept. Whether it does.
    fn hold(&mut self, client: Client, id: ShMemId) -> bool {
        if self.holds(client, id) {
            return true;
        }
        if !self.may_hold_more(client) {
            return false;
        }
        let holder = self.clients.get_mut(&client);
        let set = holder.and_then(|holder| Arc::get_mut(&mut holder.held));
        let (Some(set), Some(entry)) = (set, self.segments.get_mut(&id)) else {
            return false;
        };
        set.ids.insert(id);
        entry.holders += 1;
        let process = set.process;
        self.account(process, |account| account.ids += 1);
        true
    }

    /// Makes the client's set its own, with room for one more. Whether it is.
    fn may_hold_more(&mut self, client: Client) -> bool {
        if !self.make_own(client) {
            return false;
        }
        let Some(process) = self.clients.get(&client).map(|holder| holder.held.process) else {
            return false;
        };
        while !self.has_room_for_ids(process, 1) {
            if !self.give_up_oldest(process) {
                return false;
            }
        }
        true
    }

    /// Copies the client's set if it shares it. For the copy, forks of the same process are given up if
    /// need be. Whether the client has a set of its own now.
    fn make_own(&mut self, client: Client) -> bool {
        loop {
            let Some(holder) = self.clients.get_mut(&client) else {
                return false;
            };
            if Arc::get_mut(&mut holder.held).is_some() {
                return true;
            }
            let (process, len) = (holder.process, holder.held.ids.len());
            if self.has_room_for_ids(process, len) {
                break;
            }
            if !self.give_up_oldest(process) {
                return false;
            }
        }
        let Some(Holder { process, held }) = self.clients.get_mut(&client) else {
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
        let shared = core::mem::replace(held, Arc::new(Set { process, ids }));
        self.account(process, |account| account.ids += len);
        self.let_set_go(shared);
        true
    }

    fn has_room_for_ids(&self, process: Process, more: usize) -> bool {
        let most = self.limits.segments.saturating_mul(IDS);
        self.account_of(process).ids.saturating_add(more) <= most
    }

    fn account_of(&self, process: Process) -> Account {
        self.accounts.get(&process).copied().unwrap_or_default()
    }

    /// Changes what a process has.
    fn account(&mut self, process: Process, change: impl FnOnce(&mut Account)) {
        let account = self.accounts.entry(process).or_default();
        change(account);
        if *account == Account::default() {
            self.accounts.remove(&process);
        }
    }

    fn take_fork(&mut self, token: Token) -> Option<Fork> {
        let fork = self.forks.remove(&token)?;
        self.account(fork.process, |account| {
            account.forks = account.forks.saturating_sub(1);
        });
        Some(fork)
    }

    fn give_up(&mut self, token: Token) {
        if let Some(fork) = self.take_fork(token) {
            self.let_set_go(fork.held);
        }
    }

    /// Gives up the fork of the process that is due first. Whether there was one.
    fn give_up_oldest(&mut self, process: Process) -> bool {
        let its = self
            .forks
            .iter()
            .filter(|(_, fork)| fork.process == process);
        let oldest = its.min_by_key(|(_, fork)| fork.until);
        let Some(oldest) = oldest.map(|(&token, _)| token) else {
            return false;
        };
        self.give_up(oldest);
        true
    }

    /// One who shares the set less.
    fn let_set_go(&mut self, set: Arc<Set>) {
        // Otherwise somebody else has it.
        if let Some(set) = Arc::into_inner(set) {
            let len = set.ids.len();
            self.account(set.process, |account| {
                account.ids = account.ids.saturating_sub(len);
            });
            for id in set.ids {
                self.let_go(id);
            }
        }
    }

    /// One set less that it is in.
    fn let_go(&mut self, id: ShMemId) {
        let Some(entry) = self.segments.get_mut(&id) else {
            return;
        };
        entry.holders = entry.holders.saturating_sub(1);
        if entry.holders == 0 {
            if let Some(entry) = self.segments.remove(&id) {
                self.bytes = self.bytes.saturating_sub(entry.size);
                self.account(entry.process, |account| {
                    account.segments = account.segments.saturating_sub(1);
                    account.bytes = account.bytes.saturating_sub(entry.size);
                });
                self.freed.push(Freed {
                    process: entry.process,
                    segment: entry.segment,
                    was_kept: true,
                });
            }
        }
    }
}
