//! Protocol and bookkeeping, against what their documentation says: every frame there is, and any
//! sequence of events beside a model that is too simple to be wrong.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::num::NonZeroU64;

use proptest::prelude::*;

use super::protocol::{Ask, FRAME, Frame, Opcode, Reply, Request, VERSION, Verdict};
use super::registry::{Client, Limits, Process, Refused, Registry};
use crate::ShMemId;

fn id(number: u8) -> ShMemId {
    ShMemId::from_int(number.into())
}

fn any_id() -> impl Strategy<Value = ShMemId> {
    "[ -~]{1,19}".prop_map(|text| ShMemId::from_string(&text))
}

fn any_ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        proptest::option::of(any_id()).prop_map(Ask::Hello),
        (any_id(), 1..u64::MAX).prop_map(|(id, size)| Ask::Register {
            id,
            size: NonZeroU64::new(size).unwrap(),
        }),
        any_id().prop_map(Ask::Open),
        any_id().prop_map(Ask::Release),
        any_id().prop_map(Ask::Fork),
    ]
}

proptest! {
    #[test]
    fn a_request_comes_back(number: u32, ask in any_ask()) {
        let request = Request { number, ask };
        prop_assert_eq!(Request::decode(&request.encode()), Some(request));
        prop_assert_eq!(Reply::decode(&request.encode()), None);
    }

    /// What was decoded is what is encoded: nothing can be said in two ways.
    #[test]
    fn there_is_one_encoding(bytes: [u8; 32], head in 0..16_u8, tail: u8) {
        let mut frame: Frame = [0; FRAME];
        frame[..2].copy_from_slice(&[VERSION, head & 7 | (head & 8) << 4]);
        frame[4..36].copy_from_slice(&bytes);
        // Ids end early most of the time, as real ones do.
        frame[20 + usize::from(tail) % 16..36].fill(0);
        if let Some(request) = Request::decode(&frame) {
            prop_assert_eq!(request.encode(), frame);
        }
        if let Some(reply) = Reply::decode(&frame) {
            prop_assert_eq!(reply.encode(), frame);
        }
    }

    #[test]
    fn a_changed_frame_is_another_message_or_none(
        number: u32,
        ask in any_ask(),
        place in 0..FRAME,
        change in 1..=u8::MAX,
    ) {
        let request = Request { number, ask };
        let mut frame = request.encode();
        frame[place] ^= change;
        prop_assert_ne!(Request::decode(&frame), Some(request));
    }
}

#[test]
fn the_bytes_of_a_request_are_those_of_the_table() {
    let size = NonZeroU64::new(0x0102_0304_0506_0708).unwrap();
    let ask = Ask::Register {
        id: ShMemId::from_string("sabc"),
        size,
    };
    let frame = Request {
        number: 0x0a0b_0c0d,
        ask,
    }
    .encode();
    let mut expected = [0; FRAME];
    expected[..8].copy_from_slice(&[1, 2, 0, 0, 0x0d, 0x0c, 0x0b, 0x0a]);
    expected[8..16].copy_from_slice(&[8, 7, 6, 5, 4, 3, 2, 1]);
    expected[16..20].copy_from_slice(b"sabc");
    assert_eq!(frame, expected);
}

#[test]
fn a_reply_comes_back() {
    let opcodes = [
        Opcode::Hello,
        Opcode::Register,
        Opcode::Open,
        Opcode::Release,
        Opcode::Fork,
    ];
    let verdicts = [
        Verdict::Done,
        Verdict::Unknown,
        Verdict::Taken,
        Verdict::Full,
        Verdict::BadDescriptor,
        Verdict::Busy,
    ];
    for to in opcodes {
        for verdict in verdicts {
            for size in [0, 100, u64::MAX] {
                let number = 7;
                let reply = Reply {
                    number,
                    to,
                    verdict,
                    size,
                };
                let decoded = Reply::decode(&reply.encode());
                // A size comes with an opened segment, and with nothing else.
                let is_open = to == Opcode::Open && verdict == Verdict::Done;
                assert_eq!(decoded, (is_open == (size > 0)).then_some(reply));
                assert_eq!(Request::decode(&reply.encode()), None);
            }
        }
    }
}

/// What happens to a registry.
#[derive(Clone, Debug)]
enum Event {
    Connect(Client),
    Disconnect(Client),
    Register(Client, u8, u64, u8),
    Open(Client, u8),
    Release(Client, u8),
    Announce(Client, u8, u64),
    Adopt(Client, u8),
    Expire(u64),
}

fn any_event() -> impl Strategy<Value = Event> {
    let client = || 0..5_u64;
    let segment = || 0..24_u8;
    prop_oneof![
        2 => client().prop_map(Event::Connect),
        1 => client().prop_map(Event::Disconnect),
        // Mostly the same segment under the same id, as when clients hand in what they hold.
        8 => (client(), segment(), 1..3_u64, 0..8_u8)
            .prop_map(|(client, id, size, odd)| Event::Register(client, id, size, u8::from(odd == 0))),
        4 => (client(), segment()).prop_map(|(client, id)| Event::Open(client, id)),
        4 => (client(), segment()).prop_map(|(client, id)| Event::Release(client, id)),
        2 => (client(), 0..5_u8, 0..50_u64)
            .prop_map(|(client, token, until)| Event::Announce(client, token, until)),
        2 => (client(), 0..5_u8).prop_map(|(client, token)| Event::Adopt(client, token)),
        1 => (0..50_u64).prop_map(Event::Expire),
    ]
}

const LIMITS: Limits = Limits {
    segments: 16,
    bytes: 24,
    forks: 3,
};

/// Which process the clients belong to: two of them to the same one.
fn process_of(client: Client) -> Process {
    match client {
        0 | 1 => Process::Known(100),
        2 => Process::Known(102),
        _ => Process::Unknown(client),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Client(Client),
    Fork(u8),
}

/// Who holds what, as a list. What is on no list does not exist.
#[derive(Debug, Default)]
struct Model {
    clients: BTreeSet<Client>,
    forks: BTreeMap<u8, (Client, u64)>,
    holds: BTreeSet<(Holder, u8)>,
    /// The segment and the size that were registered under each id that is held.
    facts: BTreeMap<u8, (u8, u64)>,
}

impl Model {
    fn held(&self) -> BTreeSet<u8> {
        self.holds.iter().map(|&(_, id)| id).collect()
    }

    fn bytes(&self) -> u64 {
        self.held().iter().map(|id| self.facts[id].1).sum()
    }

    fn of(&self, holder: Holder) -> BTreeSet<u8> {
        let its = self.holds.iter().filter(|(whose, _)| *whose == holder);
        its.map(|&(_, id)| id).collect()
    }

    fn give_up(&mut self, token: u8) {
        self.forks.remove(&token);
        self.holds
            .retain(|(holder, _)| *holder != Holder::Fork(token));
    }

    fn register(&mut self, client: Client, id: u8, size: u64, segment: u8) -> Result<(), Refused> {
        if !self.clients.contains(&client) {
            return Err(Refused::Full);
        }
        if self.held().contains(&id) {
            if self.facts[&id] != (segment, size) {
                return Err(Refused::Taken);
            }
        } else {
            let room = LIMITS.segments - self.held().len();
            let mut its_process = self.holds.iter().filter(|(holder, _)| {
                matches!(holder, Holder::Client(other) if process_of(*other) == process_of(client))
            });
            let may = room > LIMITS.segments / 8 || its_process.next().is_none();
            if room == 0 || !may || self.bytes() + size > LIMITS.bytes {
                return Err(Refused::Full);
            }
            self.facts.insert(id, (segment, size));
        }
        self.holds.insert((Holder::Client(client), id));
        Ok(())
    }

    fn announce(&mut self, client: Client, token: u8, until: u64) -> bool {
        if !self.clients.contains(&client) || self.forks.contains_key(&token) {
            return false;
        }
        if self.forks.len() >= LIMITS.forks {
            let its = self.forks.iter().filter(|(_, fork)| fork.0 == client);
            let Some((&oldest, _)) = its.min_by_key(|(_, fork)| fork.1) else {
                return false;
            };
            self.give_up(oldest);
        }
        self.forks.insert(token, (client, until));
        for id in self.of(Holder::Client(client)) {
            self.holds.insert((Holder::Fork(token), id));
        }
        true
    }

    fn adopt(&mut self, client: Client, token: u8) -> bool {
        if !self.clients.contains(&client) || !self.forks.contains_key(&token) {
            return false;
        }
        for id in self.of(Holder::Fork(token)) {
            self.holds.insert((Holder::Client(client), id));
        }
        self.give_up(token);
        true
    }
}

proptest! {
    #[test]
    fn what_is_kept_is_what_is_held(events in proptest::collection::vec(any_event(), 0..200)) {
        let mut model = Model::default();
        let mut registry = Registry::new(LIMITS);
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
                Event::Register(client, number, size, segment) => {
                    let expected = model.register(client, number, size, segment);
                    let told = registry.register(client, id(number), size, segment);
                    prop_assert_eq!(told, expected);
                }
                Event::Open(client, number) => {
                    let may = model.clients.contains(&client) && model.held().contains(&number);
                    let expected = may.then(|| model.facts[&number]);
                    if may {
                        model.holds.insert((Holder::Client(client), number));
                    }
                    let told = registry.open(client, id(number));
                    prop_assert_eq!(told.map(|(&segment, size)| (segment, size)), expected);
                }
                Event::Release(client, number) => {
                    let expected = model.holds.remove(&(Holder::Client(client), number));
                    prop_assert_eq!(registry.release(client, id(number)), expected);
                }
                Event::Announce(client, token, until) => {
                    // Which of two that are due at once is given up first, nobody promises.
                    if model.forks.values().any(|fork| fork.1 == until) {
                        continue;
                    }
                    let expected = model.announce(client, token, until);
                    prop_assert_eq!(registry.announce(client, id(token), until), expected);
                }
                Event::Adopt(client, token) => {
                    let expected = model.adopt(client, token);
                    prop_assert_eq!(registry.adopt(client, id(token)), expected);
                }
                Event::Expire(now) => {
                    let late = model.forks.iter().filter(|(_, fork)| fork.1 <= now);
                    let late: Vec<u8> = late.map(|(&token, _)| token).collect();
                    for token in late {
                        model.give_up(token);
                    }
                    registry.expire(now);
                }
            }
            prop_assert_eq!(registry.len(), model.held().len());
            prop_assert_eq!(registry.is_empty(), model.held().is_empty());
            prop_assert_eq!(registry.bytes(), model.bytes());
            prop_assert_eq!(registry.clients(), model.clients.len());
            prop_assert_eq!(registry.awaited(), model.forks.len());
            let expiry = model.forks.values().map(|fork| fork.1).min();
            prop_assert_eq!(registry.next_expiry(), expiry);
            for client in 0..5 {
                let held: BTreeSet<_> = registry.held(client).collect();
                let expected = model.of(Holder::Client(client)).into_iter().map(id).collect();
                prop_assert_eq!(registry.holds_nothing(client), held.is_empty());
                prop_assert_eq!(held, expected);
            }
        }
        // When everybody is gone, nothing is kept.
        for client in 0..5 {
            registry.disconnect(client);
        }
        registry.expire(u64::MAX);
        prop_assert_eq!((registry.len(), registry.bytes(), registry.clients()), (0, 0, 0));
    }
}
