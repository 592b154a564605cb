//! `sync::Condvar`, with the event count that its waiters sleep on. Some processes add jobs and notify, the others wait
//! for a job and take it; all can be killed at any step, and time out. A step is one access to shared memory or
//! one call. Locking is one step, because `mutex.rs` checks it.

use super::event_count::{self, SLEEPS, Waker};
use super::{Model, check};

const TAKERS: usize = 2;
const PROCESSES: usize = 4;

/// What the protocol, or its user, leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The waiter unlocks before it reads the number of notifications.
    ReadsLate,
    /// The waiter does not look again after it has announced itself.
    NoRecheck,
    /// The waiter does not ask whether the owner is alive.
    IgnoresDeaths,
    /// Notifying wakes first, and then counts the notification.
    WakesFirst,
    /// Only one sleeper is woken.
    WakesOne,
    /// The user notifies after it has unlocked.
    NotifiesUnlocked,
    /// The user does not notify when it gets the lock of a killed owner.
    TakesOverSilently,
    Waking(event_count::Fault),
}

/// Who holds the lock while it notifies, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Then {
    /// A job was added.
    Unlock,
    /// The lock of a killed owner was taken over.
    Continue,
    /// The wrong order: the lock is free already.
    End,
}

/// The progress of a process, by what it does next. The first number is that of the notifications it has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Locks,
    /// Has the lock.
    Checks,
    Reads,
    /// Unlocks to wait.
    Lets(u8),
    /// The wrong order: has unlocked, and reads then.
    ReadsLate,
    Looks(u8),
    Announces(u8),
    LooksAgain(u8, u8),
    Compares(u8, u8),
    Asleep(u8),
    /// Some time has passed.
    LooksLast(u8),
    Asks(u8),
    Adds,
    Counts(Then),
    Wakes(Then, Waker),
    /// The wrong order: wakes, and then counts.
    WakesBefore(Then),
    Unlocks(Then),
    Done,
    Dead,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    owner: Option<usize>,
    jobs: u8,
    notifications: u8,
    /// The word on which waiters sleep.
    word: u8,
    steps: [Step; PROCESSES],
    kills: u8,
    /// A process was killed that had counted a notification, and may not have woken everybody.
    is_cut_short: bool,
}

impl State {
    fn may_lock(&self) -> bool {
        self.owner
            .is_none_or(|owner| self.steps[owner] == Step::Dead)
    }

    /// Returns the number of notifications that a process has seen which waits for the next one.
    fn waits_after(&self, me: usize) -> Option<u8> {
        match self.steps[me] {
            Step::Looks(seen)
            | Step::Announces(seen)
            | Step::LooksAgain(seen, _)
            | Step::Compares(seen, _)
            | Step::Asleep(seen)
            | Step::LooksLast(seen)
            | Step::Asks(seen) => Some(seen),
            _ => None,
        }
    }

    fn wake(&mut self, one: Option<usize>) {
        for (process, step) in self.steps.iter_mut().enumerate() {
            if let Step::Asleep(seen) = *step
                && one.is_none_or(|one| one == process)
            {
                *step = Step::Looks(seen);
            }
        }
    }
}

struct Condvar(Fault);

impl Condvar {
    /// Returns what one process does next. Only a sleeper has a choice, and its first one is that some time passes.
    #[expect(clippy::too_many_lines, reason = "an arm for each step")]
    fn of_process(&self, me: usize, state: &State) -> Vec<(&'static str, State)> {
        let mut after = state.clone();
        let mut others = Vec::new();
        let notify = |then| match self.0 {
            Fault::WakesFirst => Step::WakesBefore(then),
            _ => Step::Counts(then),
        };
        let continues = if me < TAKERS {
            Step::Checks
        } else {
            Step::Adds
        };
        let event = match state.steps[me] {
            Step::Done | Step::Dead => return others,
            Step::Locks if !state.may_lock() => return others,
            Step::Locks => {
                after.owner = Some(me);
                let is_abandoned = state.owner.is_some();
                after.steps[me] = if is_abandoned && self.0 != Fault::TakesOverSilently {
                    notify(Then::Continue)
                } else {
                    continues
                };
                "locks"
            }
            Step::Checks if state.jobs > 0 => {
                after.jobs -= 1;
                after.steps[me] = Step::Unlocks(Then::End);
                "takes a job"
            }
            Step::Checks => {
                after.steps[me] = match self.0 {
                    Fault::ReadsLate => Step::Lets(0),
                    _ => Step::Reads,
                };
                "finds no job"
            }
            Step::Reads => {
                after.steps[me] = Step::Lets(state.notifications);
                "reads"
            }
            Step::Lets(seen) => {
                after.owner = None;
                after.steps[me] = match self.0 {
                    Fault::ReadsLate => Step::ReadsLate,
                    _ => Step::Looks(seen),
                };
                "unlocks"
            }
            Step::ReadsLate => {
                after.steps[me] = Step::Looks(state.notifications);
                "reads"
            }
            Step::Looks(seen) | Step::LooksAgain(seen, _) | Step::LooksLast(seen)
                if seen != state.notifications =>
            {
                after.steps[me] = Step::Locks;
                "is notified"
            }
            Step::Looks(seen) => {
                after.steps[me] = Step::Announces(seen);
                "looks"
            }
            Step::Announces(seen) => {
                after.word |= SLEEPS;
                after.steps[me] = match self.0 {
                    Fault::NoRecheck => Step::Compares(seen, after.word),
                    _ => Step::LooksAgain(seen, after.word),
                };
                "announces"
            }
            Step::LooksAgain(seen, announced) => {
                after.steps[me] = Step::Compares(seen, announced);
                "looks again"
            }
            Step::Compares(seen, announced) if announced == state.word => {
                after.steps[me] = Step::Asleep(seen);
                "sleeps"
            }
            Step::Compares(seen, _) => {
                after.steps[me] = Step::Looks(seen);
                "does not sleep"
            }
            Step::Asleep(seen) => {
                for (event, step) in [
                    ("is woken without a reason", Step::Looks(seen)),
                    ("times out", Step::Locks),
                ] {
                    let mut woken = state.clone();
                    woken.steps[me] = step;
                    others.push((event, woken));
                }
                after.steps[me] = Step::LooksLast(seen);
                "has slept for some time"
            }
            Step::LooksLast(seen) => {
                after.steps[me] = match self.0 {
                    Fault::IgnoresDeaths => Step::Looks(seen),
                    _ => Step::Asks(seen),
                };
                "looks"
            }
            Step::Asks(seen) => {
                let is_abandoned = state.owner.is_some() && state.may_lock();
                after.steps[me] = if is_abandoned {
                    Step::Locks
                } else {
                    Step::Looks(seen)
                };
                "asks whether the owner is alive"
            }
            Step::Adds => {
                after.jobs += 1;
                after.steps[me] = match self.0 {
                    Fault::NotifiesUnlocked => Step::Unlocks(Then::Unlock),
                    _ => notify(Then::Unlock),
                };
                "adds a job"
            }
            Step::WakesBefore(then) => {
                after.word = state.word.wrapping_add(4) & !SLEEPS;
                after.wake(None);
                after.steps[me] = Step::Counts(then);
                "wakes"
            }
            Step::Counts(then) => {
                after.notifications += 1;
                after.is_cut_short = false;
                after.steps[me] = match self.0 {
                    Fault::WakesFirst => Self::after_notifying(then, continues),
                    _ => Step::Wakes(then, Waker::Finds),
                };
                "counts a notification"
            }
            Step::Wakes(then, waker) => {
                let fault = match self.0 {
                    Fault::Waking(fault) => Some(fault),
                    _ => None,
                };
                let woken = waker.step(state.word, fault);
                after.word = woken.word;
                let next = woken.next.map(|waker| Step::Wakes(then, waker));
                after.steps[me] = next.unwrap_or_else(|| Self::after_notifying(then, continues));
                if woken.wakes {
                    let is_asleep = |step| matches!(step, Step::Asleep(_));
                    let one = (state.steps.into_iter().position(is_asleep))
                        .filter(|_| self.0 == Fault::WakesOne);
                    after.wake(one);
                }
                woken.event
            }
            Step::Unlocks(then) => {
                after.owner = None;
                after.steps[me] = match then {
                    Then::Unlock if self.0 == Fault::NotifiesUnlocked => notify(Then::End),
                    _ => Step::Done,
                };
                "unlocks"
            }
        };
        others.insert(0, (event, after));
        others
    }

    fn after_notifying(then: Then, continues: Step) -> Step {
        match then {
            Then::Unlock => Step::Unlocks(then),
            Then::Continue => continues,
            Then::End => Step::Done,
        }
    }

    /// Returns `true` if a process that waits and runs alone stops waiting, without a timeout.
    fn returns_alone(&self, me: usize, state: &State) -> bool {
        let mut state = state.clone();
        for _ in 0..12 {
            if state.waits_after(me).is_none() {
                return true;
            }
            state = self.of_process(me, &state).swap_remove(0).1;
        }
        false
    }
}

impl Model for Condvar {
    type State = State;
    type Event = (usize, &'static str);

    fn start(&self) -> State {
        State {
            owner: None,
            jobs: 0,
            notifications: 0,
            word: 0,
            steps: [Step::Locks; PROCESSES],
            kills: 2,
            is_cut_short: false,
        }
    }

    fn next(&self, state: &State) -> Vec<(Self::Event, State)> {
        let mut events = Vec::new();
        for me in 0..PROCESSES {
            let of_me = self.of_process(me, state);
            events.extend(of_me.into_iter().map(|(event, after)| ((me, event), after)));
            let step = state.steps[me];
            if state.kills > 0 && !matches!(step, Step::Done | Step::Dead) {
                let mut after = state.clone();
                after.kills -= 1;
                after.is_cut_short |= matches!(step, Step::Wakes(_, waker) if waker.is_cut_short());
                after.steps[me] = Step::Dead;
                events.push(((me, "is killed"), after));
            }
        }
        events
    }

    fn fault(&self, state: &State) -> Option<&'static str> {
        let is_waking = |step: &Step| matches!(step, Step::Wakes(..));
        let is_notifying =
            |step: &Step| is_waking(step) || matches!(step, Step::WakesBefore(_) | Step::Counts(_));
        let all_are_woken = !state.is_cut_short && !state.steps.iter().any(is_waking);
        let nobody_notifies = state.owner.is_none() && !state.steps.iter().any(is_notifying);
        for me in 0..PROCESSES {
            let Some(seen) = state.waits_after(me) else {
                continue;
            };
            let is_notified = seen != state.notifications;
            if is_notified && all_are_woken && matches!(state.steps[me], Step::Asleep(_)) {
                return Some("a process sleeps although it was notified");
            }
            if !is_notified && state.jobs > 0 && nobody_notifies {
                return Some("a process waits for a job that is there");
            }
            let is_abandoned = state.owner.is_some() && state.may_lock();
            if (is_notified || is_abandoned) && !self.returns_alone(me, state) {
                return Some("a process waits after a notification or a death");
            }
        }
        None
    }
}

#[test]
fn every_waiter_is_notified_or_notices_a_death() {
    let states = check(&Condvar(Fault::None)).expect("no schedule fails");
    assert!(states > 50_000, "the model has only {states} states");
}

/// Removing all marks harms nobody here: those who notify have the lock, one at a time.
#[test]
fn every_part_of_the_protocol_of_condition_variables_is_needed() {
    for fault in [
        Fault::ReadsLate,
        Fault::NoRecheck,
        Fault::IgnoresDeaths,
        Fault::WakesFirst,
        Fault::WakesOne,
        Fault::NotifiesUnlocked,
        Fault::TakesOverSilently,
        Fault::Waking(event_count::Fault::NoCount),
        Fault::Waking(event_count::Fault::NoMark),
    ] {
        let found = check(&Condvar(fault));
        assert!(found.is_err(), "{fault:?}: {found:?}");
    }
}
