//! The protocols between processes, as small models that are checked exhaustively: in every order of events,
//! including kills and `fork()`. Each file has one protocol.
//!
//! A checker of 40 lines is enough for that, and returns the shortest schedule that fails. The crate
//! `stateright` would do the same, but depends on a web server and on second versions of `rand`, `rand_core`
//! and `getrandom`, which `deny.toml` forbids.
//!
//! The schedules of pools that fail here are also tests of the real code, in `lease/tests.rs` and
//! `attachments/tests.rs` below `src/sys/`.

mod attachments;
mod barrier;
mod condvar;
mod event_count;
mod latest;
mod mutex;
mod named;
mod pool;
mod presence;
mod ring;
mod turn;

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
