//! The protocols by which a pool reuses segments, as small models that are checked exhaustively: in every order
//! of events, including kills and `fork()`.
//!
//! A checker of 40 lines is enough for that, and returns the shortest schedule that fails. The crate
//! `stateright` would do the same, but depends on a web server and on second versions of `rand`, `rand_core`
//! and `getrandom`, which `deny.toml` forbids.
//!
//! The schedules that fail here are also tests of the real code, in `lease/tests.rs` and
//! `attachments/tests.rs` below `src/sys/`.

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;

/// A system: which events can happen, and which states are wrong.
trait Model {
    type State: Clone + Eq + Hash + Debug;
    type Event: Clone + Debug;

    fn start(&self) -> Self::State;

    /// Returns all events that are possible in a state, with the states that follow.
    fn next(&self, state: &Self::State) -> Vec<(Self::Event, Self::State)>;

    /// Returns what is wrong in a state, or `None` if the state is right.
    fn fault(&self, state: &Self::State) -> Option<&'static str>;
}

/// Visits every reachable state, the nearest first. Returns the number of states, or the first fault and the
/// shortest schedule that leads to it.
fn check<M: Model>(model: &M) -> Result<usize, (&'static str, Vec<M::Event>)> {
    let start = model.start();
    let mut reached_by = HashMap::from([(start.clone(), None::<(M::Event, M::State)>)]);
    let mut waiting = VecDeque::from([start]);
    while let Some(state) = waiting.pop_front() {
        if let Some(fault) = model.fault(&state) {
            let mut schedule = Vec::new();
            let mut at = &state;
            while let Some((event, before)) = &reached_by[at] {
                schedule.insert(0, event.clone());
                at = before;
            }
            return Err((fault, schedule));
        }
        for (event, after) in model.next(&state) {
            if !reached_by.contains_key(&after) {
                reached_by.insert(after.clone(), Some((event, state.clone())));
                waiting.push_back(after);
            }
        }
    }
    Ok(reached_by.len())
}

/// `Pool::reuse`. The owner of the pool has two threads and some segments, and forks children.
mod reuse {
    use super::Model;

    const SEGMENTS: usize = 3;
    const CHILDREN: usize = 2;

    /// When the pool asks whether children are alive.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Asks {
        /// Once, for the first candidate.
        Once,
        /// Each time, before the candidate is taken.
        BeforeTaking,
        /// Each time, after the candidate was taken.
        AfterTaking,
    }

    /// The use of a segment in the process that has the pool.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub(crate) enum Usage {
        /// A thread has a `&mut` to it.
        InUse,
        Idle,
        /// The thread that wants a segment has taken it, and creates no reference to it.
        Taken,
    }

    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    pub(crate) struct Segment {
        usage: Usage,
        /// Another process has opened it by its id.
        is_open_elsewhere: bool,
    }

    /// The progress of the thread that wants a segment.
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    pub(crate) enum Step {
        Begins,
        /// `asked` is the answer to the question whether no child is alive.
        Has {
            candidate: Option<usize>,
            asked: Option<bool>,
            tried: usize,
        },
        /// No process can open the candidate, whose bytes are being set to zero.
        Zeroes(usize),
        Ends,
    }

    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    pub(crate) struct State {
        segments: [Segment; SEGMENTS],
        /// For each living child, to which segments it has a `&mut`.
        children: [Option<[bool; SEGMENTS]>; CHILDREN],
        step: Step,
    }

    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(crate) enum Event {
        Fork,
        ChildDrops(usize, usize),
        ChildIsKilled(usize),
        Drop(usize),
        OpenElsewhere(usize),
        HolderIsKilled(usize),
        Ask,
        Take(usize),
        PutBack(usize),
        Seclude(usize),
        HandOut(usize),
        GiveUp,
    }

    pub(crate) struct Reuse(pub(crate) Asks);

    impl Model for Reuse {
        type State = State;
        type Event = Event;

        fn start(&self) -> State {
            let segment = |usage| Segment {
                usage,
                is_open_elsewhere: false,
            };
            State {
                segments: [Usage::Idle, Usage::InUse, Usage::InUse].map(segment),
                children: [None; CHILDREN],
                step: Step::Begins,
            }
        }

        fn next(&self, state: &State) -> Vec<(Event, State)> {
            let mut events = self.of_the_pool(state);
            let mut may = |event, change: &dyn Fn(&mut State)| {
                let mut after = state.clone();
                change(&mut after);
                events.push((event, after));
            };
            if let Some(free) = state.children.iter().position(Option::is_none) {
                // The child has no references to segments that are idle or taken.
                may(Event::Fork, &|after| {
                    let inherits = |segment: &Segment| segment.usage == Usage::InUse;
                    after.children[free] = Some(state.segments.each_ref().map(inherits));
                });
            }
            for (child, uses) in state.children.iter().enumerate() {
                let Some(uses) = uses else { continue };
                may(Event::ChildIsKilled(child), &|after| {
                    after.children[child] = None;
                });
                for (segment, _) in uses.iter().enumerate().filter(|&(_, &uses)| uses) {
                    may(Event::ChildDrops(child, segment), &|after| {
                        if let Some(uses) = &mut after.children[child] {
                            uses[segment] = false;
                        }
                    });
                }
            }
            for (index, segment) in state.segments.iter().enumerate() {
                if segment.usage == Usage::InUse && state.step != Step::Ends {
                    may(Event::Drop(index), &|after| {
                        after.segments[index].usage = Usage::Idle;
                    });
                }
                if segment.is_open_elsewhere {
                    may(Event::HolderIsKilled(index), &|after| {
                        after.segments[index].is_open_elsewhere = false;
                    });
                } else if state.step != Step::Zeroes(index) && state.step != Step::Ends {
                    may(Event::OpenElsewhere(index), &|after| {
                        after.segments[index].is_open_elsewhere = true;
                    });
                }
            }
            events
        }

        fn fault(&self, state: &State) -> Option<&'static str> {
            let Step::Zeroes(zeroed) = state.step else {
                return None;
            };
            let mut children = state.children.iter().flatten();
            if children.any(|uses| uses[zeroed]) {
                return Some("a child's segment is zeroed");
            }
            (state.segments[zeroed].is_open_elsewhere)
                .then_some("another process's segment is zeroed")
        }
    }

    impl Reuse {
        /// Returns what the thread that wants a segment can do next.
        fn of_the_pool(&self, state: &State) -> Vec<(Event, State)> {
            let mut events = Vec::new();
            let mut may = |event, change: Option<(usize, Usage)>, step| {
                let mut after = state.clone();
                if let Some((segment, usage)) = change {
                    after.segments[segment].usage = usage;
                }
                after.step = step;
                events.push((event, after));
            };
            let no_children_alive = state.children.iter().all(Option::is_none);
            let has = |candidate, asked, tried| Step::Has {
                candidate,
                asked,
                tried,
            };
            match state.step {
                Step::Begins => match self.0 {
                    Asks::BeforeTaking => {
                        may(Event::Ask, None, has(None, Some(no_children_alive), 0));
                    }
                    Asks::Once | Asks::AfterTaking => may(Event::GiveUp, None, has(None, None, 0)),
                },
                Step::Has {
                    candidate: None,
                    asked,
                    tried,
                } => {
                    let idle = |segment: &Segment| segment.usage == Usage::Idle;
                    for segment in (0..SEGMENTS).filter(|&index| idle(&state.segments[index])) {
                        let taken = Some((segment, Usage::Taken));
                        if tried < SEGMENTS {
                            may(
                                Event::Take(segment),
                                taken,
                                has(Some(segment), asked, tried),
                            );
                        }
                    }
                    may(Event::GiveUp, None, Step::Ends);
                }
                Step::Has {
                    candidate: candidate @ Some(_),
                    asked: None,
                    tried,
                } => may(
                    Event::Ask,
                    None,
                    has(candidate, Some(no_children_alive), tried),
                ),
                Step::Has {
                    candidate: Some(segment),
                    asked: Some(false),
                    ..
                } => {
                    let back = Some((segment, Usage::Idle));
                    may(Event::PutBack(segment), back, Step::Ends);
                }
                Step::Has {
                    candidate: Some(segment),
                    asked: Some(true),
                    tried,
                } => {
                    if state.segments[segment].is_open_elsewhere {
                        let back = Some((segment, Usage::Idle));
                        let next = match self.0 {
                            Asks::Once => has(None, Some(true), tried + 1),
                            Asks::AfterTaking => has(None, None, tried + 1),
                            Asks::BeforeTaking => Step::Begins,
                        };
                        may(Event::PutBack(segment), back, next);
                    } else {
                        may(Event::Seclude(segment), None, Step::Zeroes(segment));
                    }
                }
                Step::Zeroes(segment) => {
                    let used = Some((segment, Usage::InUse));
                    may(Event::HandOut(segment), used, Step::Begins);
                }
                Step::Ends => may(Event::GiveUp, None, Step::Begins),
            }
            events
        }
    }
}

/// `sys::attachments`: whether a System V segment was attached by this process only while it was zeroed.
mod attachments {
    use super::Model;

    /// What the pool compares.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(crate) enum By {
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
    pub(crate) enum Who {
        Pool,
        /// Another thread of the same process.
        Thread,
        Process,
    }

    /// The progress of a thread or process that knows the id.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub(crate) enum Guest {
        Outside,
        Attached,
        /// Has written.
        Done,
        /// Counted as detaching, and still attached.
        Leaving,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub(crate) enum Step {
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
    pub(crate) struct State {
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

    pub(crate) type Event = (Who, &'static str);

    pub(crate) struct Counting(pub(crate) By);

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
}

use attachments::{By, Counting, Who};
use reuse::{Asks, Event, Reuse};

#[test]
fn to_ask_once_for_several_candidates_zeroes_a_childs_segment() {
    let (fault, schedule) = check(&Reuse(Asks::Once)).expect_err("version 0.17.0 did this");
    assert_eq!(fault, "a child's segment is zeroed");
    // First the pool asks, then it forks, then it takes a candidate that the child has as well.
    let position = |event: &Event| schedule.iter().position(|other| other == event);
    let taken = |event: &Event| matches!(event, Event::Take(_));
    let last = schedule.iter().rposition(taken);
    assert!(
        position(&Event::Ask) < position(&Event::Fork),
        "{schedule:?}"
    );
    assert!(position(&Event::Fork) < last, "{schedule:?}");
}

#[test]
fn to_ask_before_the_candidate_is_taken_is_too_early() {
    let (fault, schedule) = check(&Reuse(Asks::BeforeTaking)).expect_err("it is too early");
    assert_eq!(fault, "a child's segment is zeroed", "{schedule:?}");
}

#[test]
fn to_ask_for_each_candidate_that_was_taken_zeroes_nobodys_segment() {
    let states = check(&Reuse(Asks::AfterTaking)).expect("no schedule fails");
    assert!(states > 1000, "the model has only {states} states");
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
