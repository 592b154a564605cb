//! The registry, against a model of what is held.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use proptest::prelude::*;

use super::id;
use crate::id::ShMemId;
use crate::service::admission::SHARE;
use crate::service::registry::{
    Client, Closing, IDS_PER_SEGMENT, Limits, Process, Refusal, Registry,
};

/// One call to a registry.
#[derive(Clone, Debug)]
enum Event {
    Connect(Client),
    Disconnect(Client),
    /// Client, id, size, segment, and how many segments are being closed: of the process, and of all.
    Register(Client, u8, u64, u8, (usize, usize)),
    Open(Client, u8),
    Release(Client, u8),
    AnnounceFork(Client, u8, u64),
    BindFork(Client, u8),
    ExpireForks(u64),
}

fn any_event() -> impl Strategy<Value = Event> {
    let client = || 0..5_u64;
    let segment = || 0..24_u8;
    prop_oneof![
        2 => client().prop_map(Event::Connect),
        1 => client().prop_map(Event::Disconnect),
        // Mostly the same segment under the same id, as when clients register them with a new host.
        8 => (client(), segment(), 1..3_u64, 0..8_u8, 0..60_usize)
            .prop_map(|(client, id, size, odd, closing)| {
                let closing = closing.saturating_sub(48);
                Event::Register(client, id, size, u8::from(odd == 0), (closing / 2, closing))
            }),
        4 => (client(), segment()).prop_map(|(client, id)| Event::Open(client, id)),
        4 => (client(), segment()).prop_map(|(client, id)| Event::Release(client, id)),
        2 => (client(), 0..5_u8, 0..50_u64)
            .prop_map(|(client, token, until)| Event::AnnounceFork(client, token, until)),
        2 => (client(), 0..5_u8).prop_map(|(client, token)| Event::BindFork(client, token)),
        1 => (0..50_u64).prop_map(Event::ExpireForks),
    ]
}

const LIMITS: Limits = Limits {
    segments: 16,
    bytes: 24,
    forks: 3,
};

/// The process of a client. Two clients belong to the same one.
fn process_of(client: Client) -> Process {
    match client {
        0 | 1 => Process::Known(100),
        2 => Process::Known(102),
        _ => Process::Unknown,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Client(Client),
    Fork(u8),
}

/// All pairs of holder and segment. A segment in no pair is not stored.
#[derive(Debug, Default)]
struct Model {
    clients: BTreeSet<Client>,
    /// The parent, and when it expires.
    forks: BTreeMap<u8, (Client, u64)>,
    holds: BTreeSet<(Holder, u8)>,
    /// The segment, the size and the registering process of each id that was registered.
    entries: BTreeMap<u8, (u8, u64, Process)>,
}

impl Model {
    fn held(&self) -> BTreeSet<u8> {
        self.holds.iter().map(|&(_, id)| id).collect()
    }

    fn bytes(&self) -> u64 {
        self.held().iter().map(|id| self.entries[id].1).sum()
    }

    fn of(&self, holder: Holder) -> BTreeSet<u8> {
        let held = self.holds.iter().filter(|(other, _)| *other == holder);
        held.map(|&(_, id)| id).collect()
    }

    /// The sizes of the stored segments that the process registered first.
    fn sizes_of(&self, process: Process) -> impl Iterator<Item = u64> {
        let held = self.held().into_iter().map(|id| self.entries[&id]);
        let sizes: Vec<u64> = held
            .filter(|entry| entry.2 == process)
            .map(|entry| entry.1)
            .collect();
        sizes.into_iter()
    }

    fn forks_of(&self, process: Process) -> impl Iterator<Item = (&u8, &(Client, u64))> {
        let forks = self.forks.iter();
        forks.filter(move |(_, fork)| process_of(fork.0) == process)
    }

    fn cancel_fork(&mut self, token: u8) {
        self.forks.remove(&token);
        self.holds
            .retain(|(holder, _)| *holder != Holder::Fork(token));
    }

    fn register(
        &mut self,
        client: Client,
        id: u8,
        size: u64,
        segment: u8,
        closing: (usize, usize),
    ) -> Result<(), Refusal> {
        if !self.clients.contains(&client) {
            return Err(Refusal::Full);
        }
        let process = process_of(client);
        if self.held().contains(&id) {
            let (stored, stored_size, _) = self.entries[&id];
            if (stored, stored_size) != (segment, size) {
                return Err(Refusal::Taken);
            }
        } else {
            let left = LIMITS
                .segments
                .saturating_sub(self.held().len() + closing.1);
            let own = self.sizes_of(process).count() + closing.0;
            let rest = LIMITS.bytes.checked_sub(self.bytes() + size);
            let bytes = self.sizes_of(process).sum::<u64>() + size;
            let has_share = (own as u64) < left as u64 * SHARE;
            let may_store = has_share && (left > LIMITS.segments / 8 || own < 1);
            let fits = rest.is_some_and(|rest| {
                bytes <= rest * SHARE && (rest > LIMITS.bytes / 8 || bytes <= 1)
            });
            if !may_store || !fits {
                return Err(Refusal::Full);
            }
            self.entries.insert(id, (segment, size, process));
        }
        self.holds.insert((Holder::Client(client), id));
        Ok(())
    }

    fn announce_fork(&mut self, client: Client, token: u8, until: u64) -> bool {
        if !self.clients.contains(&client) || self.forks.contains_key(&token) {
            return false;
        }
        let process = process_of(client);
        let held = self.of(Holder::Client(client));
        // An eighth of this limit is 0, so nothing is reserved.
        let left = |model: &Self| (LIMITS.forks - model.forks.len()) as u64;
        while self.forks_of(process).count() as u64 >= left(self) * SHARE {
            let oldest = self.forks_of(process).min_by_key(|(_, fork)| fork.1);
            let Some((&oldest, _)) = oldest else {
                return false;
            };
            self.cancel_fork(oldest);
        }
        self.forks.insert(token, (client, until));
        for id in held {
            self.holds.insert((Holder::Fork(token), id));
        }
        true
    }

    fn bind_fork(&mut self, client: Client, token: u8) -> bool {
        if !self.clients.contains(&client) || !self.forks.contains_key(&token) {
            return false;
        }
        for id in self.of(Holder::Fork(token)) {
            self.holds.insert((Holder::Client(client), id));
        }
        self.cancel_fork(token);
        true
    }
}

proptest! {
    #[test]
    fn segments_are_stored_while_they_are_held(events in proptest::collection::vec(any_event(), 0..200)) {
        let mut model = Model::default();
        let mut registry = Registry::new(LIMITS);
        let (mut registered, mut freed) = (0, 0);
        for event in events {
            match event {
                Event::Connect(client) => {
                    model.clients.insert(client);
                    registry.connect(client, process_of(client));
                }
                Event::Disconnect(client) => {
                    model.clients.remove(&client);
                    model.holds.retain(|(holder, _)| *holder != Holder::Client(client));
                    registry.disconnect(client);
                }
                Event::Register(client, number, size, segment, closing) => {
                    let was_held = model.held().contains(&number);
                    let expected = model.register(client, number, size, segment, closing);
                    let (own, all) = closing;
                    let closing = Closing { own, all };
                    let result = registry.register(client, id(number), size, segment, closing);
                    prop_assert_eq!(result, expected);
                    registered += 1;
                    // A segment that is refused, or stored already, is given back.
                    let given_back = registry.take_freed();
                    let not_stored = given_back.iter().filter(|freed| !freed.was_stored).count();
                    prop_assert_eq!(not_stored, usize::from(was_held || result.is_err()));
                    freed += given_back.len();
                }
                Event::Open(client, number) => {
                    let may = model.clients.contains(&client) && model.held().contains(&number);
                    let expected = may.then(|| model.entries[&number]);
                    let expected = expected.map(|(segment, size, _)| (segment, size));
                    if may {
                        model.holds.insert((Holder::Client(client), number));
                    }
                    let result = registry.open(client, id(number));
                    let result = result.map(|(&segment, size)| (segment, size));
                    prop_assert_eq!(result, expected.ok_or(Refusal::Unknown));
                }
                Event::Release(client, number) => {
                    let expected = model.holds.remove(&(Holder::Client(client), number));
                    prop_assert_eq!(registry.release(client, id(number)), expected);
                }
                Event::AnnounceFork(client, token, until) => {
                    // The order among forks with the same expiry is unspecified.
                    if model.forks.values().any(|fork| fork.1 == until) {
                        continue;
                    }
                    let expected = model.announce_fork(client, token, until);
                    prop_assert_eq!(registry.announce_fork(client, id(token), until), expected);
                }
                Event::BindFork(client, token) => {
                    let expected = model.bind_fork(client, token);
                    prop_assert_eq!(registry.bind_fork(client, id(token)), expected);
                }
                Event::ExpireForks(now) => {
                    let late = model.forks.iter().filter(|(_, fork)| fork.1 <= now);
                    let late: Vec<u8> = late.map(|(&token, _)| token).collect();
                    for token in late {
                        model.cancel_fork(token);
                    }
                    registry.expire_forks(now);
                }
            }
            // A segment that is no longer stored is given back.
            let given_back = registry.take_freed();
            prop_assert!(given_back.iter().all(|freed| freed.was_stored));
            freed += given_back.len();
            prop_assert_eq!(registry.len() + freed, registered);
            for client in 0..5 {
                let process = process_of(client);
                let siblings = model.clients.iter().filter(|&&other| process_of(other) == process);
                prop_assert_eq!(registry.clients_of(process), siblings.count());
                prop_assert_eq!(registry.segments_of(process), model.sizes_of(process).count());
                prop_assert_eq!(registry.forks_of(process), model.forks_of(process).count());
                prop_assert!(registry.ids_of(process) <= IDS_PER_SEGMENT * LIMITS.segments);
            }
            prop_assert_eq!(registry.len(), model.held().len());
            prop_assert_eq!(registry.is_empty(), model.held().is_empty());
            prop_assert_eq!(registry.bytes(), model.bytes());
            prop_assert_eq!(registry.client_count(), model.clients.len());
            prop_assert_eq!(registry.pending_forks(), model.forks.len());
            let expiry = model.forks.values().map(|fork| fork.1).min();
            prop_assert_eq!(registry.next_fork_expiry(), expiry);
            for client in 0..5 {
                let held: BTreeSet<_> = registry.held_by(client).collect();
                let expected = model.of(Holder::Client(client)).into_iter().map(id).collect();
                prop_assert_eq!(registry.holds_nothing(client), held.is_empty());
                prop_assert_eq!(held, expected);
            }
        }
        // Without clients and forks, nothing is stored.
        for client in 0..5 {
            registry.disconnect(client);
        }
        registry.expire_forks(u64::MAX);
        prop_assert_eq!((registry.len(), registry.bytes(), registry.client_count()), (0, 0, 0));
        prop_assert_eq!(registry.process_count(), 0);
        prop_assert_eq!(registry.take_freed().len() + freed, registered);
    }

    /// Whatever a process requests, its sets are bounded, and another process is served.
    #[test]
    fn a_process_leaves_room_for_others(events in proptest::collection::vec(any_event(), 0..400)) {
        const TIGHT: Limits = Limits { segments: 20, bytes: 1 << 20, forks: 8 };
        let mut registry = Registry::new(TIGHT);
        let own = |_: Client| Process::Known(100);
        let none = Closing::default();
        registry.connect(9, Process::Known(109));
        for event in events {
            match event {
                Event::Connect(client) => registry.connect(client, own(client)),
                Event::Disconnect(client) => registry.disconnect(client),
                Event::Register(client, number, ..) => {
                    let _ = registry.register(client, id(number), 1, number, none);
                }
                Event::Open(client, number) => {
                    let _ = registry.open(client, id(number));
                }
                Event::Release(client, number) => {
                    registry.release(client, id(number));
                }
                Event::AnnounceFork(client, token, until) => {
                    registry.announce_fork(client, id(token), until);
                }
                Event::BindFork(client, token) => {
                    registry.bind_fork(client, id(token));
                }
                Event::ExpireForks(_) => {}
            }
            prop_assert!(registry.ids_of(own(0)) <= IDS_PER_SEGMENT * TIGHT.segments);
            prop_assert!(registry.len() < TIGHT.segments);
            prop_assert!(registry.pending_forks() < TIGHT.forks);
            // The other process is served.
            prop_assert!(registry.register(9, id(99), 1, 99, none).is_ok());
            prop_assert!(registry.announce_fork(9, id(99), 1));
            registry.expire_forks(1);
            prop_assert!(registry.release(9, id(99)));
            registry.take_freed();
        }
    }
}

/// Announcing a fork copies nothing. The first change to a shared set copies it.
#[test]
fn forks_share_the_set_of_their_parent() {
    const MANY: Limits = Limits {
        segments: 1000,
        bytes: 1 << 20,
        forks: 256,
    };
    let mut registry = Registry::new(MANY);
    let process = Process::Known(100);
    registry.connect(1, process);
    for number in 0..200 {
        let result = registry.register(1, id(number), 1, number, Closing::default());
        result.unwrap();
    }
    for token in 200..250 {
        assert!(registry.announce_fork(1, id(token), 1));
    }
    assert_eq!(registry.ids_of(process), 200);
    // Announcing and releasing in turn creates copies until the limit of ids is reached.
    for number in 0..200 {
        assert!(registry.release(1, id(number)));
        assert!(registry.announce_fork(1, id(number), 2));
        assert!(registry.ids_of(process) <= IDS_PER_SEGMENT * MANY.segments);
    }
    registry.disconnect(1);
    registry.expire_forks(2);
    assert_eq!((registry.len(), registry.ids_of(process)), (0, 0));
}

/// Ten processes take all they can. Each of them disconnects in turn, the others take what becomes free,
/// and it returns as a process that has nothing. There is always room for another process.
#[test]
fn processes_that_come_and_go_leave_room_for_others() {
    const MANY: Limits = Limits {
        segments: 448,
        bytes: 1 << 47,
        forks: 256,
    };
    let mut registry = Registry::new(MANY);
    let mut next = 1000_u32;
    let mut take = |registry: &mut Registry<u32>, client| {
        for size in [MANY.bytes / 2, MANY.bytes / 16, 1] {
            loop {
                next += 1;
                let id = ShMemId::from_int(i32::try_from(next).unwrap());
                let result = registry.register(client, id, size, next, Closing::default());
                if result.is_err() {
                    break;
                }
            }
        }
        // Beyond its share, each one cancels its own oldest fork.
        for _ in 0..100 {
            next += 1;
            let token = ShMemId::from_int(i32::try_from(next).unwrap());
            registry.announce_fork(client, token, 2);
        }
        registry.take_freed();
    };
    let process = |client| Process::Known(u32::try_from(client).unwrap());
    let clients = || 1..=10_u64;
    for client in clients() {
        registry.connect(client, process(client));
        take(&mut registry, client);
    }
    for round in 0..5 {
        for one in clients() {
            registry.disconnect(one);
            registry.take_freed();
            for other in clients().filter(|&other| other != one) {
                take(&mut registry, other);
            }
            registry.connect(one, process(one));
            take(&mut registry, one);

            let newcomer = 1000;
            registry.connect(newcomer, process(newcomer));
            for number in 1..=4 {
                let id = id(number);
                let result =
                    registry.register(newcomer, id, 1 << 20, number.into(), Closing::default());
                assert_eq!(result, Ok(()), "round {round}, after {one} came back");
                assert!(
                    registry.announce_fork(newcomer, id, 1),
                    "round {round}, after {one} came back"
                );
            }
            registry.disconnect(newcomer);
            registry.expire_forks(1);
            registry.take_freed();
        }
    }
}
