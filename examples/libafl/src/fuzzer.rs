//! A fuzzer of a function in its own process. A crash that it finds aborts the process, and its successor
//! continues with its state.

use std::num::NonZeroUsize;

use libafl::corpus::{Corpus, InMemoryCorpus};
use libafl::events::{EventFirer, EventReceiver, EventRestarter, ProgressReporter, SendExiting};
use libafl::executors::{ExitKind, InProcessExecutor};
use libafl::feedbacks::{CrashFeedback, MaxMapFeedback};
use libafl::inputs::{BytesInput, HasTargetBytes};
use libafl::mutators::{HavocScheduledMutator, havoc_mutations};
use libafl::observers::StdMapObserver;
use libafl::schedulers::QueueScheduler;
use libafl::stages::StdMutationalStage;
use libafl::state::{HasCorpus, HasExecutions, HasSolutions, StdState};
use libafl::{Error, Evaluator, Fuzzer, StdFuzzer};
use libafl_bolts::rands::StdRand;
use libafl_bolts::shmem::{ShMem, ShMemProvider};
use libafl_bolts::tuples::tuple_list;

use crate::report::report;

/// The number of crashes after which a client is done.
pub const CRASHES: usize = 3;

/// The size of the coverage map in bytes.
pub const MAP: usize = 64;

/// The state that a process leaves to its successor.
pub type State =
    StdState<InMemoryCorpus<BytesInput>, BytesInput, StdRand, InMemoryCorpus<BytesInput>>;

/// The target: aborts when the input starts with `abc`.
///
/// Marks each letter that it has passed in `map`, which has [`MAP`] bytes.
pub fn target(input: &BytesInput, map: *mut u8) -> ExitKind {
    let bytes = input.target_bytes();
    for (at, expected) in b"abc".iter().enumerate() {
        if bytes.get(at) != Some(expected) {
            return ExitKind::Ok;
        }
        // SAFETY: the callers pass a map of `MAP` bytes, to which there are no references meanwhile.
        unsafe { map.add(at + 1).write_volatile(1) };
    }
    std::process::abort()
}

/// Fuzzes until [`CRASHES`] crashes have been found. Each of them ends a process.
pub fn run<EM, P>(
    name: &str,
    state: Option<State>,
    mut manager: EM,
    provider: &mut P,
) -> Result<(), Error>
where
    EM: EventFirer<BytesInput, State>
        + EventReceiver<BytesInput, State>
        + EventRestarter<State>
        + ProgressReporter<State>
        + SendExiting,
    P: ShMemProvider,
{
    let mut map = provider.new_shmem(MAP)?;
    let start = map.as_mut_ptr();
    // SAFETY: the map has this size and is dropped after the observer.
    let observer = unsafe { StdMapObserver::from_mut_ptr("coverage", start, map.len()) };
    let mut feedback = MaxMapFeedback::new(&observer);
    let mut objective = CrashFeedback::new();
    let mut state = match state {
        Some(state) => state,
        None => StdState::new(
            StdRand::with_seed(name.len() as u64),
            InMemoryCorpus::new(),
            InMemoryCorpus::new(),
            &mut feedback,
            &mut objective,
        )?,
    };
    report(&format!(
        "{name}: process {} starts with {} crashes, after {} executions",
        std::process::id(),
        state.solutions().count(),
        state.executions()
    ));

    let mut fuzzer = StdFuzzer::new(QueueScheduler::new(), feedback, objective);
    let mut harness = |input: &BytesInput| target(input, start);
    let mut executor = InProcessExecutor::builder()
        .harness(&mut harness)
        .observers(tuple_list!(observer))
        .fuzzer(&mut fuzzer)
        .state(&mut state)
        .event_mgr(&mut manager)
        .crashdump(false)
        .build()?;
    if state.corpus().count() == 0 {
        let seed = BytesInput::new(b"a".to_vec());
        fuzzer.add_input(&mut state, &mut executor, &mut manager, seed)?;
    }
    let few = NonZeroUsize::new(16).expect("not zero");
    let mut stages = tuple_list!(StdMutationalStage::with_max_iterations(
        HavocScheduledMutator::new(havoc_mutations()),
        few
    ));
    while state.solutions().count() < CRASHES {
        fuzzer.fuzz_one(&mut stages, &mut executor, &mut state, &mut manager)?;
    }
    report(&format!("{name}: done"));
    manager.send_exiting()
}
