//! Turns, events and barriers in every schedule of two threads and of three with few preemptions (loom), and in
//! random ones (shuttle).

use core::sync::atomic::Ordering::{Relaxed, Release};
use core::time::Duration;
use std::boxed::Box;
use std::string::String;
use std::sync::Arc;
use std::vec::Vec;

use super::{LoomWord, ShuttleWord, UnfencedWord};
use crate::sync::barrier::{BarrierOutcome, Protocol as Barrier};
use crate::sync::event::Protocol as Event;
use crate::sync::event_count::EventCount;
use crate::sync::turn::Protocol as Turn;
use crate::sync::wake::Wait;
use crate::sync::word::Word;

const WAIT: Wait = Wait::new().spins(0);
const LOOK: Wait = WAIT.timeout(Duration::ZERO);

/// A tool, with words of its own and threads.
trait Tool: 'static {
    type Word: Word + Send + Sync;

    fn word() -> Self::Word;

    /// Starts a thread, and returns what waits for its end.
    fn spawn(body: Box<dyn FnOnce() + Send>) -> Box<dyn FnOnce()>;

    fn count() -> EventCount<Self::Word> {
        EventCount::new(Self::word())
    }

    /// Runs these as threads, the first one as this thread.
    fn run<const N: usize>(bodies: [Box<dyn FnOnce() + Send>; N]) {
        let mut bodies = bodies.into_iter();
        let first = bodies.next().unwrap();
        let ends: Vec<_> = bodies.map(Self::spawn).collect();
        first();
        for end in ends {
            end();
        }
    }
}

macro_rules! tool {
    ($name:ident, $tool:ident, $word:ident) => {
        struct $name;

        impl Tool for $name {
            type Word = $word;

            fn word() -> $word {
                $word::new(0)
            }

            fn spawn(body: Box<dyn FnOnce() + Send>) -> Box<dyn FnOnce()> {
                let thread = $tool::thread::spawn(body);
                Box::new(|| thread.join().unwrap())
            }
        }
    };
}

tool!(Loom, loom, LoomWord);
tool!(Unfenced, loom, UnfencedWord);
tool!(Shuttle, shuttle, ShuttleWord);

fn turn<T: Tool>() -> Turn<T::Word> {
    Turn {
        current: T::word(),
        waiters: T::count(),
    }
}

fn event<T: Tool>() -> Event<T::Word> {
    Event {
        state: T::word(),
        waiters: T::count(),
    }
}

fn barrier<T: Tool>() -> Barrier<T::Word> {
    Barrier {
        state: T::word(),
        waiters: T::count(),
    }
}

/// One participant passes the turn to another one, who sees what it has written.
fn passed<T: Tool>() {
    let shared = Arc::new((turn::<T>(), T::word()));
    let [passer, waiter] = [shared.clone(), shared];
    T::run([
        Box::new(move || {
            passer.1.store(7, Relaxed);
            passer.0.pass(1).unwrap();
        }),
        Box::new(move || {
            assert!(waiter.0.wait_for(1, WAIT).unwrap());
            assert_eq!(waiter.1.load(Relaxed), 7);
        }),
    ]);
}

/// `N` participants in a round. Each sees what the one before it has written.
fn round<T: Tool, const N: usize>() {
    let shared = Arc::new((turn::<T>(), T::word()));
    T::run::<N>(std::array::from_fn(|index| {
        let shared = Arc::clone(&shared);
        let me = u32::try_from(index).unwrap();
        let all = u32::try_from(N).unwrap();
        Box::new(move || {
            let (turn, data) = &*shared;
            // The first one begins, and waits for the last one.
            let found = if me == 0 { all } else { me };
            if me == 0 {
                data.store(1, Relaxed);
                turn.pass(1).unwrap();
            }
            assert!(turn.wait_for(found, WAIT).unwrap());
            assert_eq!(data.load(Relaxed), found);
            data.store(found + 1, Relaxed);
            if me != 0 {
                turn.pass(me + 1).unwrap();
            }
        }) as Box<dyn FnOnce() + Send>
    }));
}

/// The turn goes away from the waiter's value, and back, and only then to the waiter.
fn back_and_forth<T: Tool>() {
    let shared = Arc::new(turn::<T>());
    let [passer, waiter] = [shared.clone(), shared];
    T::run([
        Box::new(move || {
            for to in [1, 0, 2] {
                passer.pass(to).unwrap();
            }
        }),
        Box::new(move || assert!(waiter.wait_for(2, WAIT).unwrap())),
    ]);
}

/// How a protocol can be wrong.
#[derive(Clone, Copy)]
enum Fault {
    WakesBeforeItStores,
    DoesNotLookAgain,
}

fn faulty(fault: Fault) {
    let shared = Arc::new(turn::<Loom>());
    let [passer, waiter] = [shared.clone(), shared];
    let pass = move || match fault {
        Fault::WakesBeforeItStores => {
            passer.waiters.wake().unwrap();
            passer.current.store(1, Release);
        }
        Fault::DoesNotLookAgain => passer.pass(1).unwrap(),
    };
    let wait = move || match fault {
        Fault::DoesNotLookAgain => {
            while !waiter.wait_for(1, LOOK).unwrap() {
                let announced = waiter.waiters.announce();
                waiter.waiters.sleep_while(announced).unwrap();
            }
        }
        Fault::WakesBeforeItStores => assert!(waiter.wait_for(1, WAIT).unwrap()),
    };
    Loom::run([Box::new(pass), Box::new(wait)]);
}

/// Both threads take the event that the first one sets, one after the other.
fn taken<T: Tool, const TAKERS: usize>() {
    let shared = Arc::new((event::<T>(), T::word()));
    let mut bodies: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    let setter = shared.clone();
    bodies.push(Box::new(move || {
        setter.1.store(7, Relaxed);
        setter.0.set().unwrap();
    }));
    for _ in 0..TAKERS {
        let (shared, taken) = (shared.clone(), shared.clone());
        bodies.push(Box::new(move || {
            assert!(shared.0.take(WAIT).unwrap());
            assert_eq!(taken.1.load(Relaxed), 7);
            shared.0.set().unwrap();
        }));
    }
    let mut bodies = bodies.into_iter();
    let first = bodies.next().unwrap();
    let ends: Vec<_> = bodies.map(T::spawn).collect();
    first();
    for end in ends {
        end();
    }
    assert!(shared.0.reset() && !shared.0.is_set());
}

/// A manual reset: everybody goes on.
fn announced<T: Tool>() {
    let shared = Arc::new((event::<T>(), T::word()));
    T::run(std::array::from_fn::<_, 3, _>(|index| {
        let shared = Arc::clone(&shared);
        Box::new(move || {
            let (event, data) = &*shared;
            if index == 0 {
                data.store(7, Relaxed);
                event.set().unwrap();
            } else {
                assert!(event.wait(WAIT).unwrap());
                assert_eq!(data.load(Relaxed), 7);
            }
        }) as Box<dyn FnOnce() + Send>
    }));
}

/// Everybody sees what all have written, and there is one leader.
fn together<T: Tool, const N: usize>(rounds: u32) {
    let data: [_; N] = std::array::from_fn(|_| T::word());
    let shared = Arc::new((barrier::<T>(), data, T::word()));
    T::run::<N>(std::array::from_fn(|index| {
        let shared = Arc::clone(&shared);
        Box::new(move || {
            let (barrier, data, leaders) = &*shared;
            for round in 1..=rounds {
                data[index].store(round, Relaxed);
                let outcome = barrier.wait(u16::try_from(N).unwrap(), WAIT).unwrap();
                match outcome {
                    BarrierOutcome::Leader => leaders.store(round, Relaxed),
                    other => assert_eq!(other, BarrierOutcome::Passed),
                }
                assert!(data.iter().all(|data| data.load(Relaxed) >= round));
            }
        }) as Box<dyn FnOnce() + Send>
    }));
    assert_eq!(shared.2.load(Relaxed), rounds);
}

/// Two that do not wait pass together, or none does.
fn withdrawn<T: Tool>() {
    let shared = Arc::new((barrier::<T>(), [T::word(), T::word()]));
    T::run::<2>(std::array::from_fn(|index| {
        let shared = Arc::clone(&shared);
        Box::new(move || {
            let (barrier, passed) = &*shared;
            if barrier.wait(2, LOOK).unwrap() != BarrierOutcome::TimedOut {
                passed[index].store(1, Relaxed);
            }
        }) as Box<dyn FnOnce() + Send>
    }));
    let [first, second] = &shared.1;
    assert_eq!(first.load(Relaxed), second.load(Relaxed));
}

/// Explores all schedules, or those with few preemptions.
fn explore(preemptions: Option<usize>, body: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.check(body);
}

/// Explores random schedules: evenly distributed ones, and ones with priorities (PCT).
fn sample(schedules: usize, body: fn()) {
    shuttle::check_random(body, schedules);
    shuttle::check_pct(body, schedules, 3);
}

/// Explores a protocol that is wrong, and returns what loom reports.
fn report(body: impl Fn() + Send + Sync + 'static) -> String {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| explore(None, body)));
    let payload = caught.expect_err("loom finds no fault");
    let text = payload.downcast_ref::<String>().cloned();
    text.unwrap_or_default()
}

#[test]
fn a_turn_is_passed_in_every_schedule() {
    explore(None, passed::<Loom>);
}

#[test]
fn turns_in_schedules_with_few_preemptions() {
    explore(Some(3), round::<Loom, 2>);
    explore(Some(3), back_and_forth::<Loom>);
    explore(Some(1), round::<Loom, 3>);
}

#[test]
fn turns_in_random_schedules() {
    sample(1000, round::<Shuttle, 3>);
    sample(1000, back_and_forth::<Shuttle>);
}

#[test]
fn loom_finds_lost_turns() {
    let reports = [
        report(round::<Unfenced, 2>),
        report(|| faulty(Fault::WakesBeforeItStores)),
        report(|| faulty(Fault::DoesNotLookAgain)),
    ];
    for report in reports {
        assert!(report.contains("deadlock"), "{report}");
    }
}

#[test]
fn an_event_is_taken_once_in_every_schedule() {
    explore(None, taken::<Loom, 1>);
    explore(Some(2), taken::<Loom, 2>);
    explore(Some(2), announced::<Loom>);
}

#[test]
fn events_in_random_schedules() {
    sample(1000, taken::<Shuttle, 2>);
    sample(1000, announced::<Shuttle>);
}

#[test]
fn loom_finds_lost_events() {
    let report = report(taken::<Unfenced, 1>);
    assert!(report.contains("deadlock"), "{report}");
}

#[test]
fn barriers_open_in_every_schedule() {
    explore(None, || together::<Loom, 2>(1));
    explore(Some(2), || together::<Loom, 2>(2));
    explore(Some(2), || together::<Loom, 3>(1));
    explore(None, withdrawn::<Loom>);
}

#[test]
fn barriers_in_random_schedules() {
    sample(1000, || together::<Shuttle, 3>(3));
    sample(1000, withdrawn::<Shuttle>);
}

#[test]
fn loom_finds_barriers_that_stay_closed() {
    let report = report(|| together::<Unfenced, 2>(1));
    assert!(report.contains("deadlock"), "{report}");
}
