//! `Pool::reuse`. The owner of the pool has two threads and some segments, and forks children.

use super::{Model, check};

const SEGMENTS: usize = 3;
const CHILDREN: usize = 2;

/// When the pool asks whether children are alive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// Once, for the first candidate.
    Once,
    /// Each time, before the candidate is taken.
    BeforeTaking,
    /// Each time, after the candidate was taken.
    AfterTaking,
}

/// The use of a segment in the process that has the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Usage {
    /// A thread has a `&mut` to it.
    InUse,
    Idle,
    /// The thread that wants a segment has taken it, and creates no reference to it.
    Taken,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Segment {
    usage: Usage,
    /// Another process has opened it by its id.
    is_open_elsewhere: bool,
}

/// The progress of the thread that wants a segment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
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
struct State {
    segments: [Segment; SEGMENTS],
    /// For each living child, to which segments it has a `&mut`.
    children: [Option<[bool; SEGMENTS]>; CHILDREN],
    step: Step,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
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

struct Reuse(Asks);

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
        (state.segments[zeroed].is_open_elsewhere).then_some("another process's segment is zeroed")
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
