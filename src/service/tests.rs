//! Protocol and bookkeeping, against what their documentation says: every frame there is, and any
//! sequence of events beside a model that is too simple to be wrong.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::num::NonZeroU64;

use proptest::prelude::*;

use super::protocol::{Ask, FRAME, Frame, Opcode, Reply, Request, VERSION, Verdict};
use super::registry::{Client, Closing, IDS, Limits, Process, Refused, Registry, SHARE};
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
    /// The last is how many segments are still being closed: of the process, and of all.
    Register(Client, u8, u64, u8, (usize, usize)),
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
        8 => (client(), segment(), 1..3_u64, 0..8_u8, 0..60_usize)
            .prop_map(|(client, id, size, odd, closing)| {
                let closing = closing.saturating_sub(48);
                Event::Register(client, id, size, u8::from(odd == 0), (closing / 2, closing))
            }),
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
        _ => Process::Unknown,
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
    /// Whose they are, and when they are given up.
    forks: BTreeMap<u8, (Client, u64)>,
    holds: BTreeSet<(Holder, u8)>,
    /// The segment and the size that were registered under each id that is held, and by which process.
    facts: BTreeMap<u8, (u8, u64, Process)>,
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

    /// The facts of segments that are held and that the process has registered first.
    fn facts_of(&self, process: Process) -> impl Iterator<Item = u64> {
        let held = self.held().into_iter().map(|id| self.facts[&id]);
        let its: Vec<u64> = held
            .filter(|facts| facts.2 == process)
            .map(|facts| facts.1)
            .collect();
        its.into_iter()
    }

    fn forks_of(&self, process: Process) -> impl Iterator<Item = (&u8, &(Client, u64))> {
        let its = self.forks.iter();
        its.filter(move |(_, fork)| process_of(fork.0) == process)
    }

    fn give_up(&mut self, token: u8) {
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
    ) -> Result<(), Refused> {
        if !self.clients.contains(&client) {
            return Err(Refused::Full);
        }
        let process = process_of(client);
        if self.held().contains(&id) {
            let (its_segment, its_size, _) = self.facts[&id];
            if (its_segment, its_size) != (segment, size) {
                return Err(Refused::Taken);
            }
        } else {
            let room = LIMITS
                .segments
                .saturating_sub(self.held().len() + closing.1);
            let own = self.facts_of(process).count() + closing.0;
            let rest = LIMITS.bytes.checked_sub(self.bytes() + size);
            let bytes = self.facts_of(process).sum::<u64>() + size;
            let may_keep = own < room * SHARE && (room > LIMITS.segments / 8 || own < 1);
            let may_have = rest.is_some_and(|rest| {
                bytes <= rest * SHARE as u64 && (rest > LIMITS.bytes / 8 || bytes <= 1)
            });
            if !may_keep || !may_have {
                return Err(Refused::Full);
            }
            self.facts.insert(id, (segment, size, process));
        }
        self.holds.insert((Holder::Client(client), id));
        Ok(())
    }

    fn announce(&mut self, client: Client, token: u8, until: u64) -> bool {
        if !self.clients.contains(&client) || self.forks.contains_key(&token) {
            return false;
        }
        let process = process_of(client);
        let held = self.of(Holder::Client(client));
        // The last eighth of so few is none.
        while self.forks_of(process).count() >= (LIMITS.forks - self.forks.len()) * SHARE {
            let oldest = self.forks_of(process).min_by_key(|(_, fork)| fork.1);
            let Some((&oldest, _)) = oldest else {
                return false;
            };
            self.give_up(oldest);
        }
        self.forks.insert(token, (client, until));
        for id in held {
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
                    let told = registry.register(client, id(number), size, segment, closing);
                    prop_assert_eq!(told, expected);
                    registered += 1;
                    // What is refused, or kept already, has never taken room.
                    let given_back = registry.freed();
                    let never_kept = given_back.iter().filter(|freed| !freed.was_kept).count();
                    prop_assert_eq!(never_kept, usize::from(was_held || told.is_err()));
                    freed += given_back.len();
                }
                Event::Open(client, number) => {
                    let may = model.clients.contains(&client) && model.held().contains(&number);
                    let expected = may.then(|| model.facts[&number]);
                    let expected = expected.map(|(segment, size, _)| (segment, size));
                    if may {
                        model.holds.insert((Holder::Client(client), number));
                    }
                    let told = registry.open(client, id(number));
                    let told = told.map(|(&segment, size)| (segment, size));
                    prop_assert_eq!(told, expected.ok_or(Refused::Unknown));
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
            // What is not kept is given back.
            let given_back = registry.freed();
            prop_assert!(given_back.iter().all(|freed| freed.was_kept));
            freed += given_back.len();
            prop_assert_eq!(registry.len() + freed, registered);
            for client in 0..5 {
                let process = process_of(client);
                let siblings = model.clients.iter().filter(|&&other| process_of(other) == process);
                prop_assert_eq!(registry.clients_of(process), siblings.count());
                prop_assert_eq!(registry.segments_of(process), model.facts_of(process).count());
                prop_assert_eq!(registry.forks_of(process), model.forks_of(process).count());
                prop_assert!(registry.ids_of(process) <= IDS * LIMITS.segments);
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
        prop_assert_eq!((registry.processes(), registry.freed().len() + freed), (0, registered));
    }

    /// Whatever a process asks for, its sets have no more ids than it may, and others are served.
    #[test]
    fn what_a_process_can_have_is_bounded(events in proptest::collection::vec(any_event(), 0..400)) {
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
                Event::Announce(client, token, until) => {
                    registry.announce(client, id(token), until);
                }
                Event::Adopt(client, token) => {
                    registry.adopt(client, id(token));
                }
                Event::Expire(_) => {}
            }
            prop_assert!(registry.ids_of(own(0)) <= IDS * TIGHT.segments);
            prop_assert!(registry.len() < TIGHT.segments);
            prop_assert!(registry.awaited() < TIGHT.forks);
            // An honest one is served.
            prop_assert!(registry.register(9, id(99), 1, 99, none).is_ok());
            prop_assert!(registry.announce(9, id(99), 1));
            registry.expire(1);
            prop_assert!(registry.release(9, id(99)));
            registry.freed();
        }
    }
}

/// Announcing forks copies nothing; only who changes what it shares copies it, once.
#[test]
fn forks_share_what_they_hold() {
    const MANY: Limits = Limits {
        segments: 1000,
        bytes: 1 << 20,
        forks: 256,
    };
    let mut registry = Registry::new(MANY);
    let process = Process::Known(100);
    registry.connect(1, process);
    for number in 0..200 {
        let told = registry.register(1, id(number), 1, number, Closing::default());
        told.unwrap();
    }
    for token in 200..250 {
        assert!(registry.announce(1, id(token), 1));
    }
    assert_eq!(registry.ids_of(process), 200);
    // Whoever announces and changes in turn has as many copies as it may have ids.
    for number in 0..200 {
        assert!(registry.release(1, id(number)));
        assert!(registry.announce(1, id(number), 2));
        assert!(registry.ids_of(process) <= IDS * MANY.segments);
    }
    registry.disconnect(1);
    registry.expire(2);
    assert_eq!((registry.len(), registry.ids_of(process)), (0, 0));
}

/// Ten processes take all that they are given. Each of them lets go in turn, the others take what that
/// leaves, and it comes back as one that has nothing: there is always room for somebody else.
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
                let told = registry.register(client, id, size, next, Closing::default());
                if told.is_err() {
                    break;
                }
            }
        }
        // Beyond what it may have, its own oldest is given up for each.
        for _ in 0..100 {
            next += 1;
            let token = ShMemId::from_int(i32::try_from(next).unwrap());
            registry.announce(client, token, 2);
        }
        registry.freed();
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
            registry.freed();
            for other in clients().filter(|&other| other != one) {
                take(&mut registry, other);
            }
            registry.connect(one, process(one));
            take(&mut registry, one);

            let newcomer = 1000;
            registry.connect(newcomer, process(newcomer));
            for number in 1..=4 {
                let id = id(number);
                let told =
                    registry.register(newcomer, id, 1 << 20, number.into(), Closing::default());
                assert_eq!(told, Ok(()), "round {round}, after {one} came back");
                assert!(
                    registry.announce(newcomer, id, 1),
                    "round {round}, after {one} came back"
                );
            }
            registry.disconnect(newcomer);
            registry.expire(1);
            registry.freed();
        }
    }
}
