//! A broker and two clients, started by `Launcher`, with `LlmpRestartingEventManager`.

use libafl::Error;
use libafl::events::{ClientDescription, EventConfig, Launcher, LlmpRestartingEventManager};
use libafl::inputs::BytesInput;
use libafl::monitors::NopMonitor;
use libafl_bolts::core_affinity::{Cores, get_core_ids};
use libafl_bolts::shmem::{ShMemProvider, StdShMem, StdShMemProvider};

use crate::fuzzer::{self, State};

type Manager = LlmpRestartingEventManager<(), BytesInput, State, StdShMem, StdShMemProvider>;

pub fn run(fork: bool, port: u16) -> Result<(), Error> {
    let all = get_core_ids()?;
    // One client for each processor, and two at most.
    let cores = Cores {
        cmdline: String::new(),
        ids: all.into_iter().take(2).collect(),
    };
    let mut provider = StdShMemProvider::new()?;
    let own = provider.clone();
    let client = |state: Option<State>, manager: Manager, client: ClientDescription| {
        let name = format!("client {}", client.id());
        fuzzer::run(&name, state, manager, &mut provider)
    };
    Launcher::builder()
        .shmem_provider(own)
        .configuration(EventConfig::from_name("libafl-client"))
        .monitor(NopMonitor::new())
        .run_client(client)
        .cores(&cores)
        .broker_port(port)
        .stdout_file(Some("output"))
        .fork(fork)
        .build()
        .launch()
}
