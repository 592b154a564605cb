//! Who holds what. Knows no sockets, no descriptors and no clock: a segment is whatever the server
//! keeps for one, and times are numbers.
//!
//! What is kept is held: by a client that is connected, or by a fork that was announced and is still
//! awaited. So when the last client is gone, and the last fork has come or is given up, nothing is
//! kept.

use alloc::collections::{BTreeMap, BTreeSet};

use super::protocol::Token;
use crate::ShMemId;

/// A client, for as long as it is connected. Never given to another one later.
pub type Client = u64;

/// The process that a client belongs to: its clients share what one may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// The process of this number.
    Known(u32),
    /// It is not known which; so this client is taken for one of its own.
    Unknown(Client),
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

/// Why a segment is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The id is another segment's.
    Taken,
    /// There is no room.
    Full,
}

/// The books: segments, and who holds them.
#[derive(Debug)]
pub struct Registry<S> {
    limits: Limits,
    segments: BTreeMap<ShMemId, Entry<S>>,
    clients: BTreeMap<Client, Holder>,
    forks: BTreeMap<Token, Fork>,
    bytes: u64,
}

/// A client, and what it holds.
#[derive(Debug)]
struct Holder {
    process: Process,
    held: BTreeSet<ShMemId>,
}

#[derive(Debug)]
struct Entry<S> {
    segment: S,
    size: u64,
    /// Clients and awaited forks.
    holders: usize,
}

/// A fork that is awaited: it holds what its parent held when it announced it.
#[derive(Debug)]
struct Fork {
    parent: Client,
    held: BTreeSet<ShMemId>,
    /// When it is given up.
    until: u64,
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
            bytes: 0,
        }
    }

    /// A client of this process has come.
    pub fn connect(&mut self, client: Client, process: Process) {
        self.clients.entry(client).or_insert(Holder {
            process,
            held: BTreeSet::new(),
        });
    }

    /// A client is gone: what only it held is let go.
    pub fn disconnect(&mut self, client: Client) {
        let holder = self.clients.remove(&client);
        for id in holder.map(|holder| holder.held).unwrap_or_default() {
            self.let_go(id);
        }
    }

    /// Keeps a segment under the id, held by the client.
    ///
    /// To hand in what is kept already, as clients do for a new service, is to hold it.
    ///
    /// # Errors
    ///
    /// If the id is another segment's, or if there is no room. An eighth of the room is for
    /// processes that hold little, so that no single one takes it all.
    pub fn register(
        &mut self,
        client: Client,
        id: ShMemId,
        size: u64,
        segment: S,
    ) -> Result<(), Refused> {
        let Some(Holder { process, held }) = self.clients.get_mut(&client) else {
            return Err(Refused::Full);
        };
        if let Some(entry) = self.segments.get_mut(&id) {
            if entry.segment != segment || entry.size != size {
                return Err(Refused::Taken);
            }
            if held.insert(id) {
                entry.holders += 1;
            }
            return Ok(());
        }
        let process = *process;
        let limit = self.limits.segments;
        let room = limit.saturating_sub(self.segments.len());
        let bytes = self.bytes.saturating_add(size);
        let holds_little = || self.held_by(process) < (limit / 64).max(1);
        if room == 0 || bytes > self.limits.bytes || (room <= limit / 8 && !holds_little()) {
            return Err(Refused::Full);
        }
        if let Some(holder) = self.clients.get_mut(&client) {
            holder.held.insert(id);
        }
        self.bytes = bytes;
        self.segments.insert(
            id,
            Entry {
                segment,
                size,
                holders: 1,
            },
        );
        Ok(())
    }

    /// The segment of this id and its size, from now on held by the client as well.
    pub fn open(&mut self, client: Client, id: ShMemId) -> Option<(&S, u64)> {
        let holder = self.clients.get_mut(&client)?;
        let entry = self.segments.get_mut(&id)?;
        if holder.held.insert(id) {
            entry.holders += 1;
        }
        Some((&entry.segment, entry.size))
    }

    /// The client does not hold the id any more. Whether it did.
    pub fn release(&mut self, client: Client, id: ShMemId) -> bool {
        let holder = self.clients.get_mut(&client);
        let did = holder.is_some_and(|holder| holder.held.remove(&id));
        if did {
            self.let_go(id);
        }
        did
    }

    /// A fork of the client is awaited until then; it holds what the client does.
    ///
    /// If there are too many, the oldest of the same client is given up for it. Whether it is
    /// awaited: not if there is none of the same client, or if another fork has the token.
    pub fn announce(&mut self, parent: Client, token: Token, until: u64) -> bool {
        let Some(held) = self.clients.get(&parent).map(|holder| holder.held.clone()) else {
            return false;
        };
        if self.forks.contains_key(&token) {
            return false;
        }
        if self.forks.len() >= self.limits.forks {
            let siblings = self.forks.iter().filter(|(_, fork)| fork.parent == parent);
            let oldest = siblings.min_by_key(|(_, fork)| fork.until);
            let Some(oldest) = oldest.map(|(&token, _)| token) else {
                return false;
            };
            self.give_up(oldest);
        }
        for id in &held {
            if let Some(entry) = self.segments.get_mut(id) {
                entry.holders += 1;
            }
        }
        let fork = Fork {
            parent,
            held,
            until,
        };
        self.forks.insert(token, fork);
        true
    }

    /// The fork of this token has come, and is this client. Whether it was awaited.
    pub fn adopt(&mut self, client: Client, token: Token) -> bool {
        let Some(Holder { held, .. }) = self.clients.get_mut(&client) else {
            return false;
        };
        let Some(fork) = self.forks.remove(&token) else {
            return false;
        };
        let twice: BTreeSet<ShMemId> = held.intersection(&fork.held).copied().collect();
        held.extend(fork.held);
        for id in twice {
            self.let_go(id);
        }
        true
    }

    /// Gives up the forks that are awaited until this time or an earlier one.
    pub fn expire(&mut self, now: u64) {
        let late = |fork: &Fork| fork.until <= now;
        let tokens = self.forks.iter().filter(|(_, fork)| late(fork));
        let tokens: alloc::vec::Vec<Token> = tokens.map(|(&token, _)| token).collect();
        for token in tokens {
            self.give_up(token);
        }
    }

    /// When the first of the awaited forks is given up.
    #[must_use]
    pub fn next_expiry(&self) -> Option<u64> {
        self.forks.values().map(|fork| fork.until).min()
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

    /// Whether the client holds nothing.
    #[must_use]
    pub fn holds_nothing(&self, client: Client) -> bool {
        let holder = self.clients.get(&client);
        holder.is_none_or(|holder| holder.held.is_empty())
    }

    /// What the client holds.
    pub fn held(&self, client: Client) -> impl Iterator<Item = ShMemId> + '_ {
        let holder = self.clients.get(&client).into_iter();
        holder.flat_map(|holder| holder.held.iter().copied())
    }

    /// How many clients the process has.
    #[must_use]
    pub fn clients_of(&self, process: Process) -> usize {
        self.holders_of(process).count()
    }

    /// How many segments the clients of the process hold, those of each counted for itself.
    fn held_by(&self, process: Process) -> usize {
        self.holders_of(process)
            .map(|holder| holder.held.len())
            .sum()
    }

    fn holders_of(&self, process: Process) -> impl Iterator<Item = &Holder> {
        let all = self.clients.values();
        all.filter(move |holder| holder.process == process)
    }

    fn give_up(&mut self, token: Token) {
        let fork = self.forks.remove(&token);
        for id in fork.map(|fork| fork.held).unwrap_or_default() {
            self.let_go(id);
        }
    }

    /// One holder less.
    fn let_go(&mut self, id: ShMemId) {
        let Some(entry) = self.segments.get_mut(&id) else {
            return;
        };
        entry.holders = entry.holders.saturating_sub(1);
        if entry.holders == 0 {
            if let Some(entry) = self.segments.remove(&id) {
                self.bytes = self.bytes.saturating_sub(entry.size);
            }
        }
    }
}
