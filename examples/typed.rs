//! A typed header: the segment opens only as the type that it was created with.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicI16, AtomicU32, Ordering::Relaxed};
use std::{env, error::Error, process::Command};

use shmem_providers::{ShMemProvider, SharedLayout, StdShMemProvider, Typed};

#[derive(SharedLayout)]
#[repr(C)]
struct Sound {
    rate: AtomicU32,
    samples: [AtomicI16; 4096],
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut provider = StdShMemProvider::new()?;
    if env::var_os("SOUND").is_some() {
        let sound = Typed::<Sound>::existing_from_env(&mut provider, "SOUND")?;
        println!("the child finds {} Hz", sound.rate.load(Relaxed));
        sound.samples[0].store(-1, Relaxed);
        let other = Typed::<[AtomicU32; 9]>::existing_from_env(&mut provider, "SOUND");
        println!("as another type: {}", other.expect_err("the types differ"));
        return Ok(());
    }
    let sound = Typed::<Sound>::create(&mut provider, |sound| {
        sound.rate.store(48_000, Relaxed); // no other process opens it before this is done
    })?;
    let mut child = Command::new(env::current_exe()?);
    sound.hand_over(&mut child, "SOUND")?;
    assert!(child.status()?.success());
    let sample = sound.samples[0].load(Relaxed);
    println!("the parent finds {sample} in the first sample");
    Ok(())
}
