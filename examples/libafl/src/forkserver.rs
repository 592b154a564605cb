//! `ForkserverExecutor` with a target of AFL++. Coverage and test cases are in shared memory; the target does
//! nothing if its test case is elsewhere.

use std::num::NonZeroUsize;
use std::time::Duration;

use libafl::corpus::{Corpus, InMemoryCorpus, Testcase};
use libafl::events::SimpleEventManager;
use libafl::executors::StdChildArgs;
use libafl::executors::forkserver::ForkserverExecutor;
use libafl::feedbacks::{CrashFeedback, MaxMapFeedback};
use libafl::inputs::BytesInput;
use libafl::monitors::NopMonitor;
use libafl::mutators::{HavocScheduledMutator, havoc_mutations};
use libafl::observers::{HitcountsMapObserver, StdMapObserver};
use libafl::schedulers::QueueScheduler;
use libafl::stages::StdMutationalStage;
use libafl::state::{HasCorpus, HasSolutions};
use libafl::{Error, Fuzzer, StdFuzzer};
use libafl_bolts::StdTargetArgs;
use libafl_bolts::rands::StdRand;
use libafl_bolts::shmem::{ShMem, ShMemProvider, UnixShMemProvider};
use libafl_bolts::tuples::tuple_list;

use crate::fuzzer::State;

/// The size of the coverage map in bytes.
const MAP: usize = 65536;

pub fn run(target: &str) -> Result<(), Error> {
    // System V, because targets of AFL++ attach with `shmat`.
    let mut provider = UnixShMemProvider::new()?;
    let mut map = provider.new_shmem(MAP)?;
    // SAFETY: this process has no other thread.
    unsafe { map.write_to_env("__AFL_SHM_ID")? };
    let start = map.as_mut_ptr();
    // SAFETY: the map has `MAP` bytes and is dropped after the observer.
    let observer = unsafe { StdMapObserver::from_mut_ptr("coverage", start, MAP) };
    let observer = HitcountsMapObserver::new(observer);
    let mut feedback = MaxMapFeedback::new(&observer);
    let mut objective = CrashFeedback::new();
    let mut corpus = InMemoryCorpus::new();
    corpus.add(Testcase::new(BytesInput::new(b"a".to_vec())))?;
    let mut state = State::new(
        StdRand::with_seed(0),
        corpus,
        InMemoryCorpus::new(),
        &mut feedback,
        &mut objective,
    )?;
    let mut manager = SimpleEventManager::new(NopMonitor::new());
    let mut fuzzer = StdFuzzer::new(QueueScheduler::new(), feedback, objective);
    let mut executor = ForkserverExecutor::builder()
        .program(target)
        .coverage_map_size(MAP)
        .timeout(Duration::from_mins(1))
        .shmem_provider(&mut provider)
        .build(tuple_list!(observer))?;
    let few = NonZeroUsize::new(16).expect("not zero");
    let mut stages = tuple_list!(StdMutationalStage::with_max_iterations(
        HavocScheduledMutator::new(havoc_mutations()),
        few
    ));
    while state.solutions().count() == 0 {
        fuzzer.fuzz_one(&mut stages, &mut executor, &mut state, &mut manager)?;
    }
    println!(
        "The planted crash was found, and {} inputs with new coverage",
        state.corpus().count()
    );
    Ok(())
}
