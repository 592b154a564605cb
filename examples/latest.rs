//! The latest value: one writer and many readers, none of which waits for the others (a seqlock).
#![forbid(unsafe_code)]

use shmem_providers::{ShMem, ShMemProvider, Shared, StdShMem, StdShMemProvider};
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::{env, error::Error, process::Command};

/// Checks a copy of the value, unless it was being written: its version was odd, or has changed.
fn read(shared: &Shared<StdShMem>) -> Result<(), shmem_providers::Error> {
    let (version, mut copy) = (shared.view::<AtomicU32>(0)?, [0; 1000]);
    let before = version.load(Ordering::Acquire);
    shared.access().read_at(64, &mut copy)?;
    fence(Ordering::Acquire);
    let is_whole = before % 2 == 0 && version.load(Ordering::Relaxed) == before;
    assert!(!is_whole || copy == [copy[0]; 1000]);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut provider = StdShMemProvider::new()?;
    if env::var_os("LATEST").is_some() {
        let shared = provider.existing_from_env("LATEST")?.share();
        return Ok((0..10_000).try_for_each(|_| read(&shared))?);
    }
    let shared = provider.new_shmem(4096)?.share();
    let version = shared.view::<AtomicU32>(0)?;
    let mut command = Command::new(env::current_exe()?);
    shared.hand_over(&mut command, "LATEST")?;
    for mut reader in [command.spawn()?, command.spawn()?, command.spawn()?] {
        while reader.try_wait()?.is_none() {
            let [byte, ..] = version.fetch_add(1, Ordering::Relaxed).to_le_bytes();
            fence(Ordering::Release);
            shared.access().write_at(64, &[byte; 1000])?;
            version.fetch_add(1, Ordering::Release);
        }
        assert!(reader.wait()?.success());
    }
    println!("three readers have seen whole values only");
    Ok(())
}
