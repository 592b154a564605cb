//! The deadlines, against a model that lists all of them.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::id;
use crate::service::deadlines::{
    CHECK_INTERVAL, Deadlines, FORK_TIMEOUT, FRAME_TIMEOUT, GRACE_PERIOD, Millis, RETRY_INTERVAL,
};
use crate::service::registry::Client;

#[derive(Clone, Debug)]
enum Event {
    ExpectFrame(Client),
    ReceivedFrame(Client),
    WaitFor(Client, u8, u32),
    TakeWaiters(u8),
    AnnounceFork,
    Pause(Client),
    Resume(Client),
    StopAccepting,
    Remove(Client),
    /// Time passes, and the loop wakes up.
    Wake(Millis),
}

fn any_event() -> impl Strategy<Value = Event> {
    let client = || 0..6_u64;
    prop_oneof![
        4 => client().prop_map(Event::ExpectFrame),
        2 => client().prop_map(Event::ReceivedFrame),
        4 => (client(), 0..3_u8, any::<u32>())
            .prop_map(|(client, id, number)| Event::WaitFor(client, id, number)),
        1 => (0..3_u8).prop_map(Event::TakeWaiters),
        1 => Just(Event::AnnounceFork),
        2 => client().prop_map(Event::Pause),
        1 => client().prop_map(Event::Resume),
        1 => Just(Event::StopAccepting),
        1 => client().prop_map(Event::Remove),
        3 => (0..4_u64).prop_map(Event::Wake),
        3 => (0..300_u64).prop_map(Event::Wake),
        1 => (0..12_000_u64).prop_map(Event::Wake),
    ]
}

#[derive(Debug, Default)]
struct Model {
    frames: BTreeMap<Client, Millis>,
    opens: BTreeMap<Client, (u8, u32)>,
    /// When each paused client is looked at again.
    paused: BTreeMap<Client, Millis>,
    accept: Option<Millis>,
    check: Millis,
    forks: Vec<Millis>,
}

impl Model {
    /// All deadlines.
    fn all(&self) -> impl Iterator<Item = Millis> {
        let frames = self.frames.values().copied();
        let opens = self.opens.values().map(|_| GRACE_PERIOD);
        let paused = self.paused.values().copied();
        let forks = self.forks.iter().copied();
        let others = self.accept.into_iter().chain([self.check]);
        frames.chain(opens).chain(paused).chain(forks).chain(others)
    }

    fn remove(&mut self, client: Client) {
        self.frames.remove(&client);
        self.opens.remove(&client);
        self.paused.remove(&client);
    }
}

proptest! {
    /// The loop never sleeps through a deadline, each one is reported once and not early, and after what
    /// is due was done, the loop can sleep.
    #[test]
    fn deadlines_are_reported_once_and_in_time(
        events in proptest::collection::vec(any_event(), 0..200),
    ) {
        let mut model = Model { check: CHECK_INTERVAL, ..Model::default() };
        let mut deadlines = Deadlines::new();
        let mut now = 0;
        for event in events {
            match event {
                Event::ExpectFrame(client) => {
                    model.frames.entry(client).or_insert(now + FRAME_TIMEOUT);
                    deadlines.expect_frame(client, now);
                }
                Event::ReceivedFrame(client) => {
                    model.frames.remove(&client);
                    deadlines.received_frame(client);
                }
                Event::WaitFor(client, number, request) => {
                    let may_wait = now < GRACE_PERIOD;
                    if may_wait {
                        model.opens.insert(client, (number, request));
                    }
                    prop_assert_eq!(deadlines.wait_for(client, id(number), request, now), may_wait);
                }
                Event::TakeWaiters(number) => {
                    let waiters = model.opens.iter().filter(|(_, open)| open.0 == number);
                    let waiters: Vec<_> = waiters.map(|(&client, open)| (client, open.1)).collect();
                    model.opens.retain(|_, open| open.0 != number);
                    prop_assert_eq!(deadlines.take_waiters(id(number)), waiters);
                }
                Event::AnnounceFork => {
                    model.forks.push(now + FORK_TIMEOUT);
                    prop_assert_eq!(deadlines.announce_fork(now), now + FORK_TIMEOUT);
                }
                Event::Pause(client) => {
                    model.paused.insert(client, now + RETRY_INTERVAL);
                    deadlines.pause(client, now);
                }
                Event::Resume(client) => {
                    model.paused.remove(&client);
                    deadlines.resume(client);
                }
                Event::StopAccepting => {
                    model.accept = Some(now + RETRY_INTERVAL);
                    deadlines.stop_accepting(now);
                }
                Event::Remove(client) => {
                    model.remove(client);
                    deadlines.remove(client);
                }
                Event::Wake(span) => {
                    now += span;
                    if deadlines.next() > now {
                        prop_assert!(model.all().all(|deadline| deadline > now));
                        continue;
                    }
                    let due = deadlines.expire(now);
                    let late = model.frames.iter().filter(|(_, deadline)| **deadline <= now);
                    let late: Vec<_> = late.map(|(&client, _)| client).collect();
                    for &client in &late {
                        model.remove(client);
                    }
                    prop_assert_eq!(due.late, late);
                    let mut unanswered = Vec::new();
                    if GRACE_PERIOD <= now {
                        let opens = core::mem::take(&mut model.opens).into_iter();
                        unanswered.extend(opens.map(|(client, open)| (client, open.1)));
                    }
                    prop_assert_eq!(due.unanswered, unanswered);
                    let accept = model.accept.is_some_and(|deadline| deadline <= now);
                    if accept {
                        model.accept = None;
                    }
                    prop_assert_eq!(due.accept, accept);
                    let paused: Vec<_> = model.paused.keys().copied().collect();
                    prop_assert_eq!(due.paused, paused);
                    prop_assert_eq!(due.check, model.check <= now);
                    if due.check {
                        model.check = now + CHECK_INTERVAL;
                        deadlines.checked(now);
                    }
                    for retry in model.paused.values_mut() {
                        *retry = now + RETRY_INTERVAL;
                    }
                    model.forks.retain(|&deadline| deadline > now);
                    deadlines.schedule(now, model.forks.iter().copied().min());
                    prop_assert_eq!(Some(deadlines.next()), model.all().min());
                    prop_assert!(deadlines.next() > now);
                }
            }
            prop_assert!(model.all().all(|deadline| deadline >= deadlines.next()));
            let waiting: BTreeSet<_> = (0..6).filter(|&client| deadlines.is_waiting(client)).collect();
            prop_assert!(waiting.iter().eq(model.opens.keys()));
            let paused: BTreeSet<_> = (0..6).filter(|&client| deadlines.is_paused(client)).collect();
            prop_assert!(paused.iter().eq(model.paused.keys()));
        }
    }
}

#[test]
fn a_replaced_service_is_noticed_within_the_grace_period_of_the_next() {
    const { assert!(2 * CHECK_INTERVAL <= GRACE_PERIOD) };
}
