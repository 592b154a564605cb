//! A fuzzer of a function in its own process: what it finds aborts the process, and the successor
//! goes on with its state.

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

use crate::report::say;

/// How often a client shall crash before it is done.
pub const CRASHES: usize = 3;

/// How many bytes of coverage there are.
pub const MAP: usize = 64;

/// What is kept from one process to the next.
pub type State =
    StdState<InMemoryCorpus<BytesInput>, BytesInput, StdRand, InMemoryCorpus<BytesInput>>;

/// What is fuzzed: it aborts when the input starts with `abc`.
///
/// Marks in `map` how far it has got.
pub fn target(input: &BytesInput, map: *mut u8) -> ExitKind {
    let bytes = input.target_bytes();
    for (at, expected) in b"abc".iter().enumerate() {
        if bytes.get(at) != Some(expected) {
            return ExitKind::Ok;
        }
        // SAFETY: the map has `MAP` bytes, and nobody has a reference to them while this runs.
        unsafe { map.add(at + 1).write_volatile(1) };
    }
    std::process::abort()
}

/// Fuzzes until [`CRASHES`] crashes have been found, all but the last of them by predecessors.
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
    // SAFETY: the map lives until the end of this function, and so does the observer.
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
    say(&format!(
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
    say(&format!("{name}: done"));
    manager.send_exiting()
}
