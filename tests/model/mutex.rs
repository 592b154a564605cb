//! `sync::Presence` and `sync::Mutex`. Three processes, two slots: at each step a process can be killed, and another
//! one starts in its place. One of them may stay present without locking.
//!
//! A step is one access to shared memory or one call. Sleeping is left out: a waiter looks again after some time, whether
//! or not it is woken; `src/sync/mutex/explored.rs` has tests of wake-ups.

use std::collections::HashSet;

use super::{Model, check};

const PROCESSES: usize = 3;
const SLOTS: usize = 2;
/// How many participants there are at most, one after the other.
const JOINS: u8 = 5;

/// The number of a slot and its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Id {
    slot: usize,
    generation: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// No participant.
    Out,
    /// Has locked a slot, and its generation is that of the participant before.
    HasSlot(usize),
    /// Is present.
    Idle(Id),
    /// Wants the lock.
    Wants(Id),
    /// Has read the word.
    Saw(Id, Option<Id>),
    /// The generation of the owner is that of the table.
    SawGeneration(Id, Id),
    /// The owner is dead.
    SawDeath(Id, Id),
    Owns(Id),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    steps: [Step; PROCESSES],
    /// By which process each slot is locked.
    locks: [Option<usize>; SLOTS],
    generations: [u8; SLOTS],
    word: Option<Id>,
    joins: u8,
    /// An owner has died, and its successor does not know.
    is_abandoned: bool,
    fault: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Join(usize),
    Kill(usize),
    Leave(usize),
    Proceed(usize),
}

struct Mutex {
    has_generations: bool,
    /// A waiter asks whether the slot of the owner is locked.
    asks_the_kernel: bool,
}

impl Mutex {
    /// What a process does next, unless it waits to be told to lock, join or leave.
    fn proceed(&self, state: &State, process: usize) -> State {
        let mut after = state.clone();
        after.steps[process] = match state.steps[process] {
            Step::Out => unreachable!("it joins first"),
            Step::HasSlot(slot) => {
                after.generations[slot] += u8::from(self.has_generations);
                let generation = after.generations[slot];
                Step::Idle(Id { slot, generation })
            }
            Step::Idle(me) => Step::Wants(me),
            Step::Wants(me) => Step::Saw(me, state.word),
            Step::Saw(me, None) => {
                if state.word.is_some() {
                    Step::Wants(me)
                } else {
                    after.word = Some(me);
                    if state.is_abandoned {
                        after.fault = Some("a death was not noticed");
                    }
                    Step::Owns(me)
                }
            }
            // Another thread of the same participant would own it.
            Step::Saw(me, Some(owner)) if owner == me => Step::Wants(me),
            Step::Saw(me, Some(owner)) => {
                if owner.generation == state.generations[owner.slot] && owner.slot != me.slot {
                    Step::SawGeneration(me, owner)
                } else {
                    Step::SawDeath(me, owner)
                }
            }
            Step::SawGeneration(me, owner) => {
                if self.asks_the_kernel && state.locks[owner.slot].is_none() {
                    Step::SawDeath(me, owner)
                } else {
                    Step::Wants(me)
                }
            }
            Step::SawDeath(me, owner) => {
                if state.word == Some(owner) {
                    after.word = Some(me);
                    if !state.is_abandoned {
                        after.fault = Some("a living owner was taken for dead");
                    }
                    after.is_abandoned = false;
                    Step::Owns(me)
                } else {
                    Step::Wants(me)
                }
            }
            Step::Owns(me) => {
                if state.word == Some(me) {
                    after.word = None;
                }
                Step::Idle(me)
            }
        };
        after
    }

    /// Ends a participant: the kernel unlocks its slot.
    fn end(state: &State, process: usize) -> State {
        let mut after = state.clone();
        after.is_abandoned |= matches!(state.steps[process], Step::Owns(_));
        after.steps[process] = Step::Out;
        for lock in &mut after.locks {
            *lock = lock.filter(|&holder| holder != process);
        }
        after
    }

    /// Returns `true` if a process can get the lock although nobody else is killed, leaves, joins or starts to lock.
    fn can_lock(&self, state: &State, process: usize) -> bool {
        let mut reached = HashSet::from([state.clone()]);
        let mut waiting = vec![state.clone()];
        while let Some(state) = waiting.pop() {
            if matches!(state.steps[process], Step::Owns(_)) {
                return true;
            }
            for other in 0..PROCESSES {
                if matches!(state.steps[other], Step::Out | Step::Idle(_)) {
                    continue;
                }
                let after = self.proceed(&state, other);
                if reached.insert(after.clone()) {
                    waiting.push(after);
                }
            }
        }
        false
    }
}

impl Model for Mutex {
    type State = State;
    type Event = Event;

    fn start(&self) -> State {
        State {
            steps: [Step::Out; PROCESSES],
            locks: [None; SLOTS],
            generations: [0; SLOTS],
            word: None,
            joins: 0,
            is_abandoned: false,
            fault: None,
        }
    }

    fn next(&self, state: &State) -> Vec<(Event, State)> {
        let mut events = Vec::new();
        for process in 0..PROCESSES {
            match state.steps[process] {
                Step::Out => {
                    let free = state.locks.iter().position(Option::is_none);
                    if let (Some(slot), true) = (free, state.joins < JOINS) {
                        let mut after = state.clone();
                        after.locks[slot] = Some(process);
                        after.joins += 1;
                        after.steps[process] = Step::HasSlot(slot);
                        events.push((Event::Join(process), after));
                    }
                    continue;
                }
                Step::Idle(_) => events.push((Event::Leave(process), Self::end(state, process))),
                _ => {}
            }
            events.push((Event::Kill(process), Self::end(state, process)));
            events.push((Event::Proceed(process), self.proceed(state, process)));
        }
        events
    }

    fn fault(&self, state: &State) -> Option<&'static str> {
        let owns = |step: &&Step| matches!(step, Step::Owns(_));
        if state.steps.iter().filter(owns).count() > 1 {
            return Some("two owners are alive");
        }
        if state.fault.is_some() {
            return state.fault;
        }
        let waits = |&process: &usize| matches!(state.steps[process], Step::Wants(_));
        let stuck = |process| !self.can_lock(state, process);
        (0..PROCESSES)
            .filter(waits)
            .any(stuck)
            .then_some("a waiter can never get the lock")
    }
}

#[test]
fn the_death_of_an_owner_is_noticed_once() {
    let model = Mutex {
        has_generations: true,
        asks_the_kernel: true,
    };
    let states = check(&model).expect("it is right");
    assert!(states > 10_000, "only {states} states");
}

#[test]
fn without_generations_a_new_participant_is_taken_for_the_dead_one() {
    let model = Mutex {
        has_generations: false,
        asks_the_kernel: true,
    };
    let (fault, schedule) = check(&model).expect_err("it is wrong");
    assert_eq!(fault, "a waiter can never get the lock");
    let kill = schedule
        .iter()
        .position(|event| matches!(event, Event::Kill(_)));
    let kill = kill.expect("an owner dies");
    assert!(
        schedule[kill..]
            .iter()
            .any(|event| matches!(event, Event::Join(_)))
    );
}

#[test]
fn generations_alone_do_not_tell_who_is_alive() {
    let model = Mutex {
        has_generations: true,
        asks_the_kernel: false,
    };
    let (fault, _) = check(&model).expect_err("it is wrong");
    assert_eq!(fault, "a waiter can never get the lock");
}
