//! [`Barrier`]: processes go on together.
#![allow(unsafe_code)]

use core::fmt;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Release};

use super::event_count::EventCount;
use super::wake::Wait;
use super::word::Word;
use crate::error::Result;
use crate::memory::layout::{SharedLayout, fingerprint};

/// A point that a number of processes reach before any of them goes on. It can be used again at once.
///
/// What a process has written before it has reached the barrier is visible to all that have passed it.
///
/// # Lifetime
///
/// Nothing has to be cleaned up. Set a timeout if a process may be killed: a wait with a timeout returns, whichever
/// process is killed at whichever moment.
///
/// | killed | the others |
/// | --- | --- |
/// | before it arrives | wait until their timeouts end, and withdraw |
/// | while it waits or withdraws | pass, because it still counts as one that has arrived; they miss it the next time |
/// | as the last one, before it has woken them | pass at the latest when their timeouts end |
///
/// In no case does one pass before all have arrived. If another process replaces the killed one, or the number of
/// processes changes, [`reset`](Barrier::reset) the barrier first: the new process would be counted in addition to
/// the killed one. A reset also wakes those that the killed process has not woken.
///
/// # Platform notes
///
/// As [`wake`](crate::wake): where processes cannot be woken, waiting polls.
///
/// # Examples
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use std::thread;
/// use std::time::Duration;
/// use shmem_providers::sync::{Barrier, BarrierOutcome};
/// use shmem_providers::wake::Wait;
/// use shmem_providers::{ShMemProvider, StdShMemProvider, Typed};
///
/// let wait = Wait::new().timeout(Duration::from_secs(10));
/// let barrier = Typed::<Barrier>::create(&mut StdShMemProvider::new()?, |_| ())?;
/// let id = barrier.id();
/// let peer = thread::spawn(move || { // or in another process
///     Typed::<Barrier>::open(&mut StdShMemProvider::new()?, id)?.wait(2, wait)
/// });
/// let outcomes = [barrier.wait(2, wait)?, peer.join().unwrap()?];
/// assert!(outcomes.contains(&BarrierOutcome::Leader));
/// assert!(outcomes.contains(&BarrierOutcome::Passed));
/// # }
/// # Ok::<(), shmem_providers::Error>(())
/// ```
#[repr(transparent)]
pub struct Barrier(Protocol<AtomicU32>);

// SAFETY: it is a `repr(transparent)` structure of a `repr(C)` structure of two `AtomicU32`.
unsafe impl SharedLayout for Barrier {
    const FINGERPRINT: u64 = fingerprint("Barrier", &[1]);
}

/// How a wait at a [`Barrier`] has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarrierOutcome {
    /// All have arrived, this process as the last one.
    Leader,
    /// All have arrived, another process as the last one.
    Passed,
    /// The time was up before all had arrived. This process has withdrawn, and does not count any more.
    TimedOut,
    /// The barrier was reset before this process returned, whether all had arrived or not.
    Reset,
}

impl Barrier {
    /// Waits until this number of processes has arrived. All of them pass the same number; 0 is the same as 1.
    ///
    /// # Errors
    ///
    /// [`Error::Os`](crate::Error::Os) if the system refuses. A process that it does not let sleep has withdrawn; the
    /// last one has opened the barrier nevertheless.
    pub fn wait(&self, participants: u16, wait: Wait) -> Result<BarrierOutcome> {
        self.0.wait(participants, wait)
    }

    /// Withdraws all processes that have arrived. Those that still wait return [`BarrierOutcome::Reset`].
    ///
    /// # Errors
    ///
    /// [`Error::Os`](crate::Error::Os) if the system refuses. The barrier is reset nevertheless.
    pub fn reset(&self) -> Result<()> {
        self.0.reset()
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = State::of(self.0.state.load(Acquire));
        f.debug_struct("Barrier")
            .field("arrived", &state.arrived)
            .finish()
    }
}

/// How often a change of the state is attempted. Only a hostile peer can make all of these attempts fail: in one
/// generation each participant arrives, withdraws or resets a few times at most.
const ATTEMPTS: u32 = 1 << 18;

/// The word of the barrier.
#[derive(Clone, Copy)]
struct State {
    /// Grows by 1 when the barrier opens, and by 2 when it is reset.
    generation: u16,
    arrived: u16,
}

impl State {
    fn of(word: u32) -> Self {
        let [a, b, c, d] = word.to_le_bytes();
        Self {
            generation: u16::from_le_bytes([c, d]),
            arrived: u16::from_le_bytes([a, b]),
        }
    }

    fn word(self) -> u32 {
        u32::from(self.generation) << 16 | u32::from(self.arrived)
    }

    /// Returns the state after this number of generations, in which nobody has arrived.
    fn later(self, generations: u16) -> Self {
        Self {
            generation: self.generation.wrapping_add(generations),
            arrived: 0,
        }
    }
}

/// The algorithm. `tests/model/barrier.rs` checks it with kills at every step, `word/explored/protocols.rs` under the
/// memory model.
#[repr(C)]
pub(crate) struct Protocol<W> {
    pub(crate) state: W,
    pub(crate) waiters: EventCount<W>,
}

impl<W: Word> Protocol<W> {
    pub(crate) fn wait(&self, participants: u16, wait: Wait) -> Result<BarrierOutcome> {
        // The leader acquires what all have released who have arrived before, and releases it to them.
        let arrived = self.change(|state| {
            let arrived = state.arrived.saturating_add(1);
            Some(if arrived >= participants {
                state.later(1)
            } else {
                State { arrived, ..state }
            })
        });
        let Ok((before, after)) = arrived else {
            return Ok(BarrierOutcome::TimedOut);
        };
        let generation = before.generation;
        if after.generation != generation {
            self.waiters.wake()?;
            return Ok(BarrierOutcome::Leader);
        }
        let outcome = |state: State| {
            if state.generation == generation.wrapping_add(1) {
                BarrierOutcome::Passed
            } else {
                BarrierOutcome::Reset
            }
        };
        let opened = || {
            let state = State::of(self.state.load(Acquire));
            (state.generation != generation).then_some(state)
        };
        let waited = self.waiters.wait_until(wait, opened);
        if let Ok(Some(state)) = waited {
            return Ok(outcome(state));
        }
        let withdrawn = self.change(|state| {
            (state.generation == generation).then(|| State {
                arrived: state.arrived.saturating_sub(1),
                ..state
            })
        });
        match withdrawn {
            Err(state) if state.generation != generation => Ok(outcome(state)),
            _ => waited.map(|_| BarrierOutcome::TimedOut),
        }
    }

    pub(crate) fn reset(&self) -> Result<()> {
        if let Err(state) = self.change(|state| Some(state.later(2))) {
            self.state.store(state.later(2).word(), Release);
        }
        self.waiters.wake()
    }

    /// Changes the state, and returns it as it was and as it is. Returns the state if `next` returns `None`, or if no
    /// attempt succeeds.
    fn change(&self, next: impl Fn(State) -> Option<State>) -> Result<(State, State), State> {
        let mut found = self.state.load(Acquire);
        for _ in 0..ATTEMPTS {
            let before = State::of(found);
            let after = next(before).ok_or(before)?;
            let changed = (self.state).compare_exchange(found, after.word(), AcqRel, Acquire);
            match changed {
                Ok(_) => return Ok((before, after)),
                Err(other) => found = other,
            }
        }
        Err(State::of(found))
    }
}
