//! A ring with one writer and one reader, each of which can be killed at any step and is replaced by a new one: the
//! protocol of `src/channel/ring/`. A step is an access to a word of the segment, or a system call. The order of
//! memory is sequential here; loom explores the other orders.

use super::{Model, check};

/// How many records the ring has room for, and how many are sent.
const CAPACITY: u8 = 2;
const SENT: u8 = 4;

/// Which rule is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rules {
    All,
    /// The position is stored before the record is written.
    CommitFirst,
    /// A sleeper does not look again after it has announced itself.
    SleepAtOnce,
    /// The position is released before the record is read.
    ReleaseFirst,
    /// A process that replaces another one wakes nobody.
    StartAsleep,
    /// It wakes those that sleep, and not those that are about to: it does not change the word they sleep on.
    WakeOnlySleepers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// Wakes the other side, which the process before may not have woken.
    Starts,
    /// Reads both positions: goes on, or has to wait.
    Looks,
    Announces,
    LooksAgain,
    /// Asks the kernel to sleep while the announcement stands.
    FallsAsleep,
    Sleeps,
    /// Writes or reads the record.
    Transfers,
    /// Stores its own position.
    Stores,
    /// Takes the announcement of the other side.
    Asks,
    Wakes,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    /// The next steps of the writer and of the reader.
    sides: [Step; 2],
    /// The positions of both, in records.
    positions: [u8; 2],
    /// Whether the announcement of each side stands: a change of the word that it sleeps on withdraws it.
    announced: [bool; 2],
    /// Which message each record has.
    records: [u8; CAPACITY as usize],
    /// How many messages have been received, of which the last may be received again after a kill.
    received: u8,
    may_repeat: bool,
    is_wrong: Option<&'static str>,
}

struct Ring(Rules);

const WRITER: usize = 0;

impl State {
    /// Returns `true` if this side need not wait.
    fn can_go_on(&self, me: usize) -> bool {
        let used = self.positions[0] - self.positions[1];
        if me == WRITER {
            used < CAPACITY
        } else {
            used > 0
        }
    }

    fn has_sent_all(&self) -> bool {
        self.positions[0] == SENT
    }

    fn transfer(&mut self, me: usize, position: u8) {
        let record = &mut self.records[usize::from(position % CAPACITY)];
        if me == WRITER {
            // Messages are numbered from 1.
            *record = position + 1;
            return;
        }
        let repeats = self.may_repeat && *record == self.received;
        if *record != self.received + 1 && !repeats {
            self.is_wrong = Some("a message is lost, repeated or not written");
        }
        self.received = *record;
        self.may_repeat = false;
    }
}

impl Ring {
    fn step(&self, before: &State, me: usize) -> Option<State> {
        let mut after = before.clone();
        let stores_first = match self.0 {
            Rules::CommitFirst => me == WRITER,
            Rules::ReleaseFirst => me != WRITER,
            _ => false,
        };
        let position = before.positions[me];
        let ready = if stores_first {
            Step::Stores
        } else {
            Step::Transfers
        };
        after.sides[me] = match before.sides[me] {
            Step::Looks if me == WRITER && before.has_sent_all() => return None,
            Step::Looks | Step::LooksAgain if before.can_go_on(me) => ready,
            Step::Looks => Step::Announces,
            Step::Announces => {
                after.announced[me] = true;
                if self.0 == Rules::SleepAtOnce {
                    Step::FallsAsleep
                } else {
                    Step::LooksAgain
                }
            }
            Step::LooksAgain => Step::FallsAsleep,
            Step::FallsAsleep if before.announced[me] => Step::Sleeps,
            Step::FallsAsleep => Step::Looks,
            // Woken by the other side only.
            Step::Sleeps => return None,
            Step::Transfers => {
                let position = if stores_first { position - 1 } else { position };
                after.transfer(me, position);
                if stores_first {
                    Step::Asks
                } else {
                    Step::Stores
                }
            }
            Step::Stores => {
                after.positions[me] += 1;
                if stores_first {
                    Step::Transfers
                } else {
                    Step::Asks
                }
            }
            Step::Asks => {
                let is_announced = before.announced[1 - me];
                after.announced[1 - me] = false;
                if is_announced {
                    Step::Wakes
                } else {
                    Step::Looks
                }
            }
            Step::Starts if self.0 == Rules::StartAsleep => Step::Looks,
            Step::Starts | Step::Wakes => {
                if before.sides[me] == Step::Starts && self.0 != Rules::WakeOnlySleepers {
                    after.announced[1 - me] = false;
                }
                if before.sides[1 - me] == Step::Sleeps {
                    after.sides[1 - me] = Step::Looks;
                }
                Step::Looks
            }
        };
        Some(after)
    }
}

impl Model for Ring {
    type State = State;
    /// The side, and its step or that it is killed.
    type Event = (usize, Option<Step>);

    fn start(&self) -> State {
        State {
            sides: [Step::Starts; 2],
            positions: [0; 2],
            announced: [false; 2],
            records: [0; CAPACITY as usize],
            received: 0,
            may_repeat: false,
            is_wrong: None,
        }
    }

    fn next(&self, state: &State) -> Vec<(Self::Event, State)> {
        let mut events = Vec::new();
        for me in 0..2 {
            let step = state.sides[me];
            events.extend(self.step(state, me).map(|after| ((me, Some(step)), after)));
            let mut killed = state.clone();
            killed.sides[me] = Step::Starts;
            killed.may_repeat |= me != WRITER && state.positions[1] < state.received;
            events.push(((me, None), killed));
        }
        events
    }

    fn fault(&self, state: &State) -> Option<&'static str> {
        let is_stuck = (0..2).all(|me| self.step(state, me).is_none());
        let is_done = state.positions == [SENT; 2] && state.received == SENT;
        (state.is_wrong).or_else(|| (is_stuck && !is_done).then_some("both sides sleep"))
    }
}

#[test]
fn killed_writers_and_readers_lose_no_message_and_leave_nobody_asleep() {
    let states = check(&Ring(Rules::All)).expect("no schedule fails");
    println!("{states} states of a ring");
    assert!(states > 500, "the model has only {states} states");
}

#[test]
fn each_rule_of_a_ring_is_needed() {
    let garbled = "a message is lost, repeated or not written";
    for (rules, expected) in [
        (Rules::CommitFirst, garbled),
        (Rules::ReleaseFirst, garbled),
        (Rules::SleepAtOnce, "both sides sleep"),
        (Rules::StartAsleep, "both sides sleep"),
        (Rules::WakeOnlySleepers, "both sides sleep"),
    ] {
        let (fault, schedule) = check(&Ring(rules)).expect_err("a rule is missing");
        assert_eq!(fault, expected, "{schedule:?}");
    }
}
