//! One client with `SimpleRestartingEventManager`: no broker, the state alone survives the crash.

use libafl::Error;
use libafl::events::SimpleRestartingEventManager;
use libafl::inputs::BytesInput;
use libafl::monitors::NopMonitor;
use libafl_bolts::shmem::{ShMemProvider, StdShMemProvider};

use crate::fuzzer::{self, State};

type Manager = SimpleRestartingEventManager<BytesInput, NopMonitor, State, StdShMemProvider>;

pub fn run(fork: bool) -> Result<(), Error> {
    let mut provider = StdShMemProvider::new()?;
    let (state, manager) = Manager::launch(NopMonitor::new(), &mut provider, fork)?;
    fuzzer::run("client", state, manager, &mut provider)
}
