//! Turns: a fuzzer and its target take turns with an input, without system calls while both are awake.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::{env, error::Error, process::Command, time::Duration};

use shmem_providers::{ShMemProvider, SharedLayout, StdShMemProvider, Typed, sync, wake};

const FUZZER: u32 = 0; // has the first turn
const TARGET: u32 = 1;

#[derive(SharedLayout)]
#[repr(C)]
struct Run(sync::Turn, [AtomicU32; 2]); // the input and the coverage

fn main() -> Result<(), Box<dyn Error>> {
    let mut provider = StdShMemProvider::new()?;
    let wait = wake::Wait::new().timeout(Duration::from_secs(10)); // the peer may have crashed
    if env::var_os("RUN").is_some() {
        let run = Typed::<Run>::existing_from_env(&mut provider, "RUN")?;
        while run.0.wait_for(TARGET, wait)? {
            run.1[1].store(run.1[0].load(Relaxed).count_ones(), Relaxed);
            run.0.pass(FUZZER)?;
        }
        return Ok(());
    }
    let run = Typed::<Run>::create(&mut provider, |_| ())?;
    let mut command = Command::new(env::current_exe()?);
    run.hand_over(&mut command, "RUN")?;
    let (mut target, mut most) = (command.spawn()?, 0);
    for input in 0..256 {
        run.1[0].store(input, Relaxed); // visible to the target with its turn
        run.0.pass(TARGET)?;
        assert!(run.0.wait_for(FUZZER, wait)?, "input {input} hangs");
        most = most.max(run.1[1].load(Relaxed));
    }
    target.kill()?; // while it waits, which leaves nothing behind
    println!("256 inputs, coverage {most}: {}", target.wait()?);
    Ok(())
}
