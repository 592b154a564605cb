//! The locks of the registry, against a model that lists them.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use proptest::prelude::*;

use super::id;
use crate::service::registry::{Client, Closing, Limits, Process, Refusal, Registry};

const LIMITS: Limits = Limits {
    segments: 100,
    bytes: 1 << 20,
    forks: 3,
};

/// The size of each segment.
const SIZE: u64 = 4;

/// One call to a registry, by a client, about a segment.
#[derive(Clone, Copy, Debug)]
enum Event {
    Connect,
    Disconnect,
    Create,
    Register,
    Open,
    Release,
    Lock(u64),
    Relock(u64),
    Unlock,
    Settle,
}

fn any_event() -> impl Strategy<Value = (Client, u8, Event)> {
    let byte = || 0..SIZE + 2;
    let event = prop_oneof![
        2 => Just(Event::Connect),
        1 => Just(Event::Disconnect),
        2 => Just(Event::Create),
        3 => Just(Event::Register),
        4 => Just(Event::Open),
        1 => Just(Event::Release),
        6 => byte().prop_map(Event::Lock),
        6 => byte().prop_map(Event::Relock),
        2 => Just(Event::Unlock),
        2 => Just(Event::Settle),
    ];
    (0..4_u64, 0..3_u8, event)
}

#[derive(Debug, Default)]
struct Model {
    clients: BTreeSet<Client>,
    holds: BTreeSet<(Client, u8)>,
    /// Of each client the segment and the byte.
    locks: BTreeMap<Client, (u8, u64)>,
    settled: BTreeSet<u8>,
}

impl Model {
    fn is_stored(&self, number: u8) -> bool {
        self.holds.iter().any(|&(_, held)| held == number)
    }

    fn is_locked(&self, client: Client, number: u8, byte: u64) -> Result<bool, Refusal> {
        if !self.holds.contains(&(client, number)) || byte >= SIZE {
            return Err(Refusal::Unknown);
        }
        match self.locks.values().any(|&lock| lock == (number, byte)) {
            false if !self.settled.contains(&number) => Err(Refusal::Unsettled),
            is_locked => Ok(is_locked),
        }
    }

    fn lock(&mut self, client: Client, number: u8, byte: u64, again: bool) -> Result<(), Refusal> {
        let is_settled = match self.is_locked(client, number, byte) {
            Ok(true) => return Err(Refusal::Taken),
            Err(Refusal::Unknown) => return Err(Refusal::Unknown),
            outcome => outcome.is_ok(),
        };
        if self.locks.contains_key(&client) {
            return Err(Refusal::Full);
        }
        match (is_settled, again) {
            (true, true) => Err(Refusal::Taken),
            (false, false) => Err(Refusal::Unsettled),
            _ => {
                self.locks.insert(client, (number, byte));
                Ok(())
            }
        }
    }

    /// What a client does not hold any more, it has not locked either.
    fn forget(&mut self) {
        let holds = &self.holds;
        self.locks
            .retain(|&client, &mut (number, _)| holds.contains(&(client, number)));
        let stored: BTreeSet<u8> = holds.iter().map(|&(_, number)| number).collect();
        self.settled.retain(|number| stored.contains(number));
    }
}

proptest! {
    #[test]
    fn locks_belong_to_connected_holders(
        events in proptest::collection::vec(any_event(), 0..200),
    ) {
        let mut model = Model::default();
        let mut registry = Registry::new(LIMITS);
        let none = Closing::default();
        for (client, number, event) in events {
            let segment = id(number);
            let is_connected = model.clients.contains(&client);
            match event {
                Event::Connect => {
                    model.clients.insert(client);
                    registry.connect(client, Process::Known(u32::try_from(client).unwrap()));
                }
                Event::Disconnect => {
                    model.clients.remove(&client);
                    model.holds.retain(|&(holder, _)| holder != client);
                    registry.disconnect(client);
                }
                Event::Create | Event::Register => {
                    let is_new = !model.is_stored(number);
                    let result = if matches!(event, Event::Create) {
                        registry.create(client, segment, SIZE, number, none)
                    } else {
                        registry.register(client, segment, SIZE, number, none)
                    };
                    prop_assert_eq!(result.is_ok(), is_connected);
                    if is_connected {
                        model.holds.insert((client, number));
                        if is_new && matches!(event, Event::Create) {
                            model.settled.insert(number);
                        }
                    }
                }
                Event::Open => {
                    let may = is_connected && model.is_stored(number);
                    if may {
                        model.holds.insert((client, number));
                    }
                    prop_assert_eq!(registry.open(client, segment).is_ok(), may);
                }
                Event::Release => {
                    let expected = model.holds.remove(&(client, number));
                    prop_assert_eq!(registry.release(client, segment), expected);
                }
                Event::Lock(byte) | Event::Relock(byte) => {
                    let again = matches!(event, Event::Relock(_));
                    let expected = model.lock(client, number, byte, again);
                    prop_assert_eq!(registry.lock(client, segment, byte, again), expected);
                }
                Event::Unlock => {
                    let expected = model.locks.remove(&client).is_some();
                    prop_assert_eq!(registry.unlock(client), expected);
                }
                Event::Settle => {
                    let is_held = model.holds.contains(&(client, number));
                    if is_held {
                        model.settled.insert(number);
                    }
                    prop_assert_eq!(registry.settle(client, segment), is_held);
                }
            }
            model.forget();
            for client in 0..4 {
                let lock = model.locks.get(&client).map(|lock| id(lock.0));
                prop_assert_eq!(registry.lock_of(client), lock);
                for number in 0..3 {
                    for byte in 0..SIZE + 2 {
                        let expected = model.is_locked(client, number, byte);
                        prop_assert_eq!(registry.is_locked(client, id(number), byte), expected);
                    }
                    let is_settled = model.settled.contains(&number);
                    let may = model.holds.contains(&(client, number)) && is_settled;
                    let may = may || lock == Some(id(number));
                    prop_assert_eq!(registry.may_lock(client, id(number)), may);
                }
            }
        }
    }
}

/// What a host knows after another one has died: a byte is free once all others have returned.
#[test]
fn a_byte_is_not_free_until_its_owner_may_be_dead() {
    let mut registry = Registry::new(LIMITS);
    let clients: Vec<Client> = (1..=3).collect();
    for &client in &clients {
        registry.connect(client, Process::Unknown);
        let result = registry.register(client, id(1), SIZE, 1, Closing::default());
        result.unwrap();
    }
    assert_eq!(registry.lock(3, id(1), 0, false), Err(Refusal::Unsettled));
    assert_eq!(registry.is_locked(3, id(1), 0), Err(Refusal::Unsettled));
    registry.connect(4, Process::Unknown);
    assert!(!registry.settle(4, id(1)), "it does not hold the segment");
    assert_eq!(registry.lock(1, id(1), 0, true), Ok(()));
    assert_eq!(registry.is_locked(3, id(1), 0), Ok(true));
    assert_eq!(registry.is_locked(3, id(1), 1), Err(Refusal::Unsettled));
    assert_eq!(registry.lock(2, id(1), 1, true), Ok(()));
    assert!(registry.settle(2, id(1)));
    assert_eq!(registry.is_locked(3, id(1), 2), Ok(false));
    assert_eq!(registry.lock(3, id(1), 2, false), Ok(()));
}
