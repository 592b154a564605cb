//! `sync::Turn`, with the event count that its waiters sleep on: processes that take turns, are killed at any
//! step, and are woken late. Memory is sequentially consistent here; loom explores the rest.

use super::{Model, check};

/// Processes that take turns. One more replaces a killed process as the one that passes.
const PROCESSES: usize = 3;
/// How often turns are passed before nobody passes any more.
const PASSES: u8 = 3;

const SLEEPS: u8 = 1;
const WAKING: u8 = 2;
const COUNT: u8 = 4;

/// What the protocol leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The waiter does not look again after it has announced itself.
    NoRecheck,
    /// The passer wakes before it stores.
    WakesFirst,
    /// The passer wakes only one sleeper.
    WakesOne,
    /// Waking does not change the count.
    NoCount,
    /// Waking leaves no mark for the case that the passer is killed.
    NoMark,
    /// The mark is removed even if another waiter has announced itself.
    RemovesAll,
}

/// The progress of a process, by what it does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Looks,
    Announces,
    LooksAgain(u8),
    /// Sleeps if the word still has this value.
    Compares(u8),
    Asleep,
    /// It is its turn, or it takes over from a killed process.
    Stores(usize),
    /// Has stored, and looks for waiters.
    Finds,
    Marks(u8),
    /// Has found that others change the word as well.
    Counts,
    Wakes(Option<u8>),
    Unmarks(u8),
    /// The wrong order: wakes, and then stores.
    WakesBefore(usize),
    StoresLast(usize),
    Dead,
    Idle,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    turn: usize,
    /// The word on which waiters sleep.
    word: u8,
    steps: [Step; PROCESSES + 1],
    left: u8,
    kills: u8,
    /// A passer was killed after it had stored, and nobody has passed since.
    is_cut_short: bool,
}

impl State {
    fn is_passing(&self) -> bool {
        self.steps.iter().any(|step| {
            !matches!(
                step,
                Step::Looks
                    | Step::Announces
                    | Step::LooksAgain(_)
                    | Step::Compares(_)
                    | Step::Asleep
                    | Step::Dead
                    | Step::Idle
            )
        })
    }
}

struct Turns(Fault);

impl Turns {
    /// Returns what one process can do next.
    fn of_process(&self, me: usize, state: &State) -> Vec<(&'static str, State)> {
        let mut events = Vec::new();
        let mut may = |event, step, change: &dyn Fn(&mut State)| {
            let mut after = state.clone();
            after.steps[me] = step;
            change(&mut after);
            events.push((event, after));
        };
        let nothing = |_: &mut State| ();
        let first = |to| match self.0 {
            Fault::WakesFirst => Step::WakesBefore(to),
            _ => Step::Stores(to),
        };
        let end = if me == PROCESSES {
            Step::Idle
        } else {
            Step::Looks
        };
        match state.steps[me] {
            Step::Looks | Step::LooksAgain(_) if state.turn == me => {
                for to in (0..PROCESSES).filter(|&to| to != me && state.left > 0) {
                    may("passes", first(to), &|after| after.left -= 1);
                }
            }
            Step::Looks => may("looks", Step::Announces, &nothing),
            Step::Announces => {
                let announced = state.word | SLEEPS;
                let step = match self.0 {
                    Fault::NoRecheck => Step::Compares(announced),
                    _ => Step::LooksAgain(announced),
                };
                may("announces", step, &|after| after.word = announced);
            }
            Step::LooksAgain(announced) => may("looks again", Step::Compares(announced), &nothing),
            Step::Compares(announced) if announced == state.word => {
                may("sleeps", Step::Asleep, &nothing);
            }
            Step::Compares(_) => may("does not sleep", Step::Looks, &nothing),
            // A timeout or a signal, at any time.
            Step::Asleep => may("is woken without a reason", Step::Looks, &nothing),
            Step::Stores(to) => may("stores", Step::Finds, &|after| {
                after.turn = to;
                after.is_cut_short = false;
            }),
            Step::Finds if state.word & (SLEEPS | WAKING) == 0 => {
                may("finds nobody", end, &nothing);
            }
            Step::Finds => may("finds waiters", Step::Marks(state.word), &nothing),
            Step::Marks(found) if found == state.word => {
                let count = if self.0 == Fault::NoCount { 0 } else { COUNT };
                let mark = if self.0 == Fault::NoMark { 0 } else { WAKING };
                let waking = found.wrapping_add(count) & !(SLEEPS | WAKING) | mark;
                may("marks", Step::Wakes(Some(waking)), &|after| {
                    after.word = waking;
                });
            }
            Step::Marks(_) => may("finds others", Step::Counts, &nothing),
            Step::Counts => may("counts", Step::Wakes(None), &|after| {
                after.word = after.word.wrapping_add(COUNT);
            }),
            Step::Wakes(waking) => {
                let step = waking.map_or(end, Step::Unmarks);
                if self.0 == Fault::WakesOne {
                    for one in (0..PROCESSES).filter(|&one| state.steps[one] == Step::Asleep) {
                        may("wakes one", step, &|after| after.steps[one] = Step::Looks);
                    }
                    if !state.steps.contains(&Step::Asleep) {
                        may("wakes nobody", step, &nothing);
                    }
                } else {
                    may("wakes", step, &wake_all);
                }
            }
            Step::Unmarks(waking) => may("unmarks", end, &|after| {
                if self.0 == Fault::RemovesAll {
                    after.word &= !(SLEEPS | WAKING);
                } else if after.word == waking {
                    after.word &= !WAKING;
                }
            }),
            Step::WakesBefore(to) => may("wakes", Step::StoresLast(to), &|after| {
                after.word = after.word.wrapping_add(COUNT) & !SLEEPS;
                wake_all(after);
            }),
            Step::StoresLast(to) => may("stores", end, &|after| {
                after.turn = to;
                after.is_cut_short = false;
            }),
            Step::Dead | Step::Idle => {}
        }
        events
    }
}

fn wake_all(state: &mut State) {
    for step in &mut state.steps {
        if *step == Step::Asleep {
            *step = Step::Looks;
        }
    }
}

impl Model for Turns {
    type State = State;
    type Event = (usize, &'static str);

    fn start(&self) -> State {
        let mut steps = [Step::Looks; PROCESSES + 1];
        steps[PROCESSES] = Step::Idle;
        State {
            turn: 0,
            word: 0,
            steps,
            left: PASSES,
            kills: 2,
            is_cut_short: false,
        }
    }

    fn next(&self, state: &State) -> Vec<(Self::Event, State)> {
        let mut events = Vec::new();
        for me in 0..=PROCESSES {
            let of_me = self.of_process(me, state);
            events.extend(of_me.into_iter().map(|(event, after)| ((me, event), after)));
            let step = state.steps[me];
            if state.kills > 0 && me < PROCESSES && step != Step::Dead {
                let mut after = state.clone();
                after.steps[me] = Step::Dead;
                after.kills -= 1;
                // It has stored, and may not have woken those who sleep.
                after.is_cut_short |= matches!(
                    step,
                    Step::Finds | Step::Marks(_) | Step::Counts | Step::Wakes(_)
                );
                events.push(((me, "is killed"), after));
            }
        }
        // Somebody notices a kill, and passes the turn on.
        let is_killed = state.steps[state.turn] == Step::Dead || state.is_cut_short;
        if is_killed && state.steps[PROCESSES] == Step::Idle && state.left > 0 {
            for to in (0..PROCESSES).filter(|&to| state.steps[to] != Step::Dead) {
                let mut after = state.clone();
                after.left -= 1;
                after.steps[PROCESSES] = match self.0 {
                    Fault::WakesFirst => Step::WakesBefore(to),
                    _ => Step::Stores(to),
                };
                events.push(((PROCESSES, "takes over"), after));
            }
        }
        events
    }

    fn fault(&self, state: &State) -> Option<&'static str> {
        // While somebody passes the turn, it may still wake the sleeper.
        let is_asleep = state.steps[state.turn] == Step::Asleep;
        (is_asleep && !state.is_passing() && !state.is_cut_short)
            .then_some("a process sleeps although it is its turn")
    }
}

#[test]
fn nobody_sleeps_when_it_is_its_turn() {
    let states = check(&Turns(Fault::None)).expect("no schedule fails");
    assert!(states > 100_000, "the model has only {states} states");
}

#[test]
fn every_part_of_the_protocol_of_turns_is_needed() {
    for fault in [
        Fault::NoRecheck,
        Fault::WakesFirst,
        Fault::WakesOne,
        Fault::NoCount,
        Fault::NoMark,
        Fault::RemovesAll,
    ] {
        let found = check(&Turns(fault));
        assert!(found.is_err(), "{fault:?}: {found:?}");
    }
}
