//! Parent and child: the child gets the segment by its environment, and works on the bytes.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering::Relaxed;
use std::{env, error::Error, process::Command};

use shmem_providers::{ShMem, ShMemProvider, StdShMemProvider};

const TEXT: &str = "PARENT_CHILD_TEXT";

fn child() -> Result<(), Box<dyn Error>> {
    let shared = StdShMemProvider::new()?.existing_from_env(TEXT)?.share();
    for byte in shared.access().as_atomic_u8() {
        byte.store(byte.load(Relaxed).to_ascii_uppercase(), Relaxed);
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    if env::var_os(TEXT).is_some() {
        return child();
    }
    let text = b"written by the parent, changed by the child";
    let shared = StdShMemProvider::new()?.new_shmem(text.len())?.share();
    shared.access().write_at(0, text)?;

    let mut command = Command::new(env::current_exe()?);
    shared.hand_over(&mut command, TEXT)?;
    let status = command.status()?; // keeps the segment until the child has attached
    if !status.success() {
        return Err(format!("the child: {status}").into());
    }

    let mut copy = [0; 43];
    shared.access().read_at(0, &mut copy)?;
    println!("{}", String::from_utf8_lossy(&copy));
    Ok(())
}
