//! `write_to_env` and `existing_from_env`: children that attach, add, and abort.

use std::process::Command;

use libafl::Error;
use libafl_bolts::shmem::{
    MemfdShMemProvider, MmapShMemProvider, ShMem, ShMemProvider, StdShMemProvider,
    UnixShMemProvider,
};

use crate::report::report;

/// The number of children for each provider.
const CHILDREN: u8 = 3;

pub fn parent() -> Result<(), Error> {
    hand_over::<StdShMemProvider>("STD")?;
    hand_over::<UnixShMemProvider>("UNIX")?;
    hand_over::<MmapShMemProvider>("MMAP")?;
    hand_over::<MemfdShMemProvider>("MEMFD")
}

fn hand_over<P: ShMemProvider>(name: &str) -> Result<(), Error> {
    let mut segment = P::new()?.new_shmem(4096)?;
    // SAFETY: this process has no other thread.
    unsafe { segment.write_to_env(name)? };
    for _ in 0..CHILDREN {
        let child = Command::new(std::env::current_exe()?)
            .args(["environment", "child", name])
            .status()?;
        if child.code().is_some() {
            let problem = format!("a child did not abort: {child}");
            return Err(Error::illegal_state(problem));
        }
    }
    let sum = segment.access().as_atomic_u8()[0].load(std::sync::atomic::Ordering::Acquire);
    report(&format!("{name}: {sum} of {CHILDREN} children attached"));
    Ok(())
}

pub fn child(name: &str) -> Result<(), Error> {
    match name {
        "STD" => add::<StdShMemProvider>(name),
        "UNIX" => add::<UnixShMemProvider>(name),
        "MMAP" => add::<MmapShMemProvider>(name),
        "MEMFD" => add::<MemfdShMemProvider>(name),
        _ => Err(Error::illegal_argument("no such provider")),
    }
}

/// Adds one, and aborts while it holds the segment.
fn add<P: ShMemProvider>(name: &str) -> Result<(), Error> {
    let mut segment = P::new()?.existing_from_env(name)?;
    segment.access().as_atomic_u8()[0].fetch_add(1, std::sync::atomic::Ordering::AcqRel);
    std::process::abort()
}
