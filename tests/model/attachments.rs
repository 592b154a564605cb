//! `sys::attachments`: whether a System V segment was attached by this process only while it was zeroed.

use super::{Model, check};

/// What the pool compares.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// The number of attachments, which must be 1 before and after.
    Number,
    /// Also the process that attached or detached last, which must be the same before and after.
    LastProcess,
    /// That must be this process.
    LastProcessIsMe,
    /// Also the detachments by other threads of this process, counted from after the first look.
    DetachmentsSince,
    /// The same, counted from before the first look.
    Detachments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    Pool,
    /// Another thread of the same process.
    Thread,
    Process,
}

/// The progress of a thread or process that knows the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Guest {
    Outside,
    Attached,
    /// Has written.
    Done,
    /// Counted as detaching, and still attached.
    Leaving,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Begins,
    Looks,
    /// Has attached once more, and detaches next.
    Touches,
    LooksAgain,
    Counts,
    Zeroes,
    LooksAfter,
    CountsAfter,
    /// Hands the segment out, with whether its bytes were zero at the second look.
    HandsOut(bool),
    GivesUp,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    step: Step,
    guests: [(Who, Guest, u8); 2],
    is_zero: bool,
    was_zero: bool,
    last: Who,
    last_before: Who,
    detached: u8,
    detached_before: u8,
}

impl State {
    fn is_attached_once(&self) -> bool {
        self.step != Step::Touches
            && (self.guests.iter()).all(|&(_, guest, _)| guest == Guest::Outside)
    }

    /// Returns the process that attached or detached last. The kernel does not distinguish threads.
    fn last_process(&self) -> Who {
        match self.last {
            Who::Thread => Who::Pool,
            last => last,
        }
    }
}

type Event = (Who, &'static str);

struct Counting(By);

impl Model for Counting {
    type State = State;
    type Event = Event;

    fn start(&self) -> State {
        State {
            step: Step::Begins,
            // Each may attach twice: before the first look, and after.
            guests: [
                (Who::Thread, Guest::Outside, 2),
                (Who::Process, Guest::Outside, 2),
            ],
            is_zero: false,
            was_zero: false,
            last: Who::Pool,
            last_before: Who::Pool,
            detached: 0,
            detached_before: 0,
        }
    }

    fn next(&self, state: &State) -> Vec<(Event, State)> {
        let mut events = self.of_the_pool(state);
        for (index, &(who, guest, visits)) in state.guests.iter().enumerate() {
            let mut after = state.clone();
            let mut left = visits;
            let (event, guest) = match guest {
                Guest::Outside if visits == 0 => continue,
                Guest::Outside => {
                    left -= 1;
                    after.last = who;
                    ("attaches", Guest::Attached)
                }
                Guest::Attached => {
                    after.is_zero = false;
                    ("writes", Guest::Done)
                }
                Guest::Done => {
                    after.detached += u8::from(who == Who::Thread);
                    ("is about to detach", Guest::Leaving)
                }
                Guest::Leaving => {
                    after.last = who;
                    ("detaches", Guest::Outside)
                }
            };
            after.guests[index] = (who, guest, left);
            events.push(((who, event), after));
        }
        events
    }

    fn fault(&self, state: &State) -> Option<&'static str> {
        (state.step == Step::HandsOut(false)).then_some("what is handed out is not zero")
    }
}

impl Counting {
    fn of_the_pool(&self, state: &State) -> Vec<(Event, State)> {
        let mut after = state.clone();
        let is_me = state.last_process() == Who::Pool;
        let knows_last = self.0 != By::Number && self.0 != By::LastProcess;
        let (event, step) = match state.step {
            Step::Begins => {
                after.detached_before = state.detached;
                ("counts", Step::Looks)
            }
            Step::Looks if !state.is_attached_once() => ("looks", Step::GivesUp),
            Step::Looks if knows_last && !is_me => {
                after.last = Who::Pool;
                ("looks, and attaches", Step::Touches)
            }
            Step::Looks => {
                after.last_before = state.last_process();
                ("looks", Step::Counts)
            }
            Step::Touches => {
                after.last = Who::Pool;
                ("detaches", Step::LooksAgain)
            }
            Step::LooksAgain if state.is_attached_once() && is_me => {
                after.last_before = Who::Pool;
                ("looks again", Step::Counts)
            }
            Step::LooksAgain => ("looks again", Step::GivesUp),
            Step::Counts => {
                if self.0 == By::DetachmentsSince {
                    after.detached_before = state.detached;
                }
                ("counts", Step::Zeroes)
            }
            Step::Zeroes => {
                after.is_zero = true;
                ("zeroes", Step::LooksAfter)
            }
            Step::LooksAfter => {
                after.was_zero = state.is_zero;
                let same = self.0 == By::Number || state.last_process() == state.last_before;
                let step = if state.is_attached_once() && same {
                    Step::CountsAfter
                } else {
                    Step::GivesUp
                };
                ("looks after", step)
            }
            Step::CountsAfter => {
                let counts = matches!(self.0, By::Detachments | By::DetachmentsSince);
                let step = if !counts || state.detached == state.detached_before {
                    Step::HandsOut(state.was_zero)
                } else {
                    Step::GivesUp
                };
                ("counts after", step)
            }
            Step::HandsOut(_) | Step::GivesUp => return Vec::new(),
        };
        after.step = step;
        vec![((Who::Pool, event), after)]
    }
}

#[test]
fn what_the_kernel_counts_is_not_enough() {
    for by in [By::Number, By::LastProcess] {
        let (fault, schedule) = check(&Counting(by)).expect_err("a process was attached");
        assert_eq!(fault, "what is handed out is not zero");
        let is_process = |&(who, _): &(Who, _)| who == Who::Process;
        let is_thread = |&(who, _): &(Who, _)| who == Who::Thread;
        assert!(
            schedule
                .iter()
                .any(|event| is_process(event) || is_thread(event))
        );
    }
    // The last process does not show what other threads of this process have done.
    for by in [By::LastProcessIsMe, By::DetachmentsSince] {
        let (_, schedule) = check(&Counting(by)).expect_err("a thread was attached");
        assert!(schedule.contains(&(Who::Thread, "writes")), "{schedule:?}");
    }
}

#[test]
fn attachments_in_between_are_noticed() {
    let states = check(&Counting(By::Detachments)).expect("no schedule fails");
    assert!(states > 1000, "the model has only {states} states");
}
