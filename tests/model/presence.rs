//! How a participant takes a slot of a System V segment (`src/sys/linux/presence/namespace.rs`): it can only lock for
//! reading, which excludes nobody. Three processes, three slots: at each step a process can be killed or leave.
//!
//! A step is one call. A process that finds no slot has missed one, as there are as many slots as processes. The bound on the number of attempts is left out.

use std::collections::HashSet;

use super::{Model, check};

const PROCESSES: usize = 3;
const SLOTS: usize = 3;
/// How many participants there are at most, one after the other.
const JOINS: u8 = 5;

/// What a process does next. The number is that of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Out,
    Ask(usize),
    Lock(usize),
    /// Has locked the slot, from here on.
    AskAgain(usize),
    Unlock(usize),
    Present(usize),
    /// Has found that all slots are taken.
    Failed,
}

impl Step {
    fn locked(self) -> Option<usize> {
        match self {
            Self::AskAgain(slot) | Self::Unlock(slot) | Self::Present(slot) => Some(slot),
            _ => None,
        }
    }

    /// Returns the step after a slot that is taken.
    fn after(slot: usize) -> Self {
        if slot + 1 < SLOTS {
            Self::Ask(slot + 1)
        } else {
            Self::Failed
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    steps: [Step; PROCESSES],
    joins: u8,
}

impl State {
    fn with(&self, process: usize, step: Step) -> Self {
        let mut after = self.clone();
        after.steps[process] = step;
        after
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Join(usize),
    /// It is killed, or leaves.
    End(usize),
    Proceed(usize),
}

struct ReadLocks {
    asks_again: bool,
    /// Tries a slot again that it has unlocked, instead of the next one.
    tries_again: bool,
}

impl ReadLocks {
    fn proceed(&self, state: &State, process: usize) -> State {
        let is_locked = |slot: usize| {
            let is_locked_by = |other: usize| state.steps[other].locked() == Some(slot);
            (0..PROCESSES).any(|other| other != process && is_locked_by(other))
        };
        let next = match state.steps[process] {
            Step::Ask(slot) if is_locked(slot) => Step::after(slot),
            Step::Ask(slot) => Step::Lock(slot),
            Step::Lock(slot) => Step::AskAgain(slot),
            Step::AskAgain(slot) if self.asks_again && is_locked(slot) => Step::Unlock(slot),
            Step::AskAgain(slot) => Step::Present(slot),
            Step::Unlock(slot) if self.tries_again => Step::Ask(slot),
            Step::Unlock(slot) => Step::after(slot),
            step @ (Step::Out | Step::Present(_) | Step::Failed) => step,
        };
        state.with(process, next)
    }

    /// Returns `true` if all that join now can be present in the end.
    fn can_join(&self, state: &State) -> bool {
        let mut reached = HashSet::from([state.clone()]);
        let mut waiting = vec![state.clone()];
        while let Some(state) = waiting.pop() {
            let is_done = |step: &Step| matches!(step, Step::Out | Step::Present(_));
            if state.steps.iter().all(is_done) {
                return true;
            }
            for process in 0..PROCESSES {
                let after = self.proceed(&state, process);
                if reached.insert(after.clone()) {
                    waiting.push(after);
                }
            }
        }
        false
    }
}

impl Model for ReadLocks {
    type State = State;
    type Event = Event;

    fn start(&self) -> State {
        State {
            steps: [Step::Out; PROCESSES],
            joins: 0,
        }
    }

    fn next(&self, state: &State) -> Vec<(Event, State)> {
        let mut events = Vec::new();
        for process in 0..PROCESSES {
            if state.steps[process] != Step::Out {
                events.push((Event::End(process), state.with(process, Step::Out)));
                events.push((Event::Proceed(process), self.proceed(state, process)));
            } else if state.joins < JOINS {
                let mut after = state.with(process, Step::Ask(0));
                after.joins += 1;
                events.push((Event::Join(process), after));
            }
        }
        events
    }

    fn fault(&self, state: &State) -> Option<&'static str> {
        if state.steps.contains(&Step::Failed) {
            return Some("no slot was found, and there is one");
        }
        for (process, step) in state.steps.iter().enumerate() {
            if matches!(step, Step::Present(_)) && state.steps[..process].contains(step) {
                return Some("two participants have a slot");
            }
        }
        (!self.can_join(state)).then_some("a participant can never join")
    }
}

#[test]
fn participants_get_different_slots() {
    let model = ReadLocks {
        asks_again: true,
        tries_again: true,
    };
    let states = check(&model).expect("it is right");
    assert!(states > 5_000, "only {states} states");
}

#[test]
fn two_that_do_not_ask_again_share_a_slot() {
    let model = ReadLocks {
        asks_again: false,
        tries_again: true,
    };
    let (fault, _) = check(&model).expect_err("it is wrong");
    assert_eq!(fault, "two participants have a slot");
}

#[test]
fn those_that_do_not_try_again_miss_a_free_slot() {
    let model = ReadLocks {
        asks_again: true,
        tries_again: false,
    };
    let (fault, _) = check(&model).expect_err("it is wrong");
    assert_eq!(fault, "a participant can never join");
}
