//! `InProcessForkExecutor`: each execution is a forked child, which marks its coverage in a segment of its
//! parent before it aborts.

use std::num::NonZeroUsize;
use std::time::Duration;

use libafl::corpus::{Corpus, InMemoryCorpus};
use libafl::events::SimpleEventManager;
use libafl::executors::InProcessForkExecutor;
use libafl::feedbacks::{CrashFeedback, MaxMapFeedback};
use libafl::inputs::BytesInput;
use libafl::monitors::NopMonitor;
use libafl::mutators::{HavocScheduledMutator, havoc_mutations};
use libafl::observers::StdMapObserver;
use libafl::schedulers::QueueScheduler;
use libafl::stages::StdMutationalStage;
use libafl::state::{HasCorpus, HasExecutions, HasSolutions};
use libafl::{Error, Evaluator, Fuzzer, StdFuzzer};
use libafl_bolts::rands::StdRand;
use libafl_bolts::shmem::{ShMemProvider, StdShMemProvider};
use libafl_bolts::tuples::tuple_list;

use crate::fuzzer::{CRASHES, MAP, State, target};
use crate::report::report;

pub fn run() -> Result<(), Error> {
    let mut provider = StdShMemProvider::new()?;
    let mut map = provider.new_shmem(MAP)?;
    let start = map.as_mut_ptr();
    // SAFETY: the map has `MAP` bytes and is dropped after the observer.
    let observer = unsafe { StdMapObserver::from_mut_ptr("coverage", start, MAP) };
    let mut feedback = MaxMapFeedback::new(&observer);
    let mut objective = CrashFeedback::new();
    let mut state = State::new(
        StdRand::with_seed(0),
        InMemoryCorpus::new(),
        InMemoryCorpus::new(),
        &mut feedback,
        &mut objective,
    )?;
    let mut manager = SimpleEventManager::new(NopMonitor::new());
    let mut fuzzer = StdFuzzer::new(QueueScheduler::new(), feedback, objective);
    let mut harness = |input: &BytesInput| target(input, start);
    let mut executor = InProcessForkExecutor::new(
        &mut harness,
        tuple_list!(observer),
        &mut fuzzer,
        &mut state,
        &mut manager,
        Duration::from_mins(1),
        provider,
    )?;
    let seed = BytesInput::new(b"a".to_vec());
    fuzzer.add_input(&mut state, &mut executor, &mut manager, seed)?;
    let few = NonZeroUsize::new(16).expect("not zero");
    let mut stages = tuple_list!(StdMutationalStage::with_max_iterations(
        HavocScheduledMutator::new(havoc_mutations()),
        few
    ));
    while state.solutions().count() < CRASHES {
        fuzzer.fuzz_one(&mut stages, &mut executor, &mut state, &mut manager)?;
    }
    report(&format!(
        "{} crashes, {} inputs with new coverage, {} executions",
        state.solutions().count(),
        state.corpus().count(),
        state.executions()
    ));
    Ok(())
}
