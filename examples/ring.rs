//! A ring: one process writes messages, another one reads them. Sleeping while it is full or empty needs Linux.
#![forbid(unsafe_code)]

use shmem_providers::{ShMemProvider, StdShMemProvider, Typed, wake};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed, Ordering::Release};
use std::{env, error::Error, process::Command, time::Duration};

/// The number of messages written, that of messages read, and the slots.
type Ring = [AtomicU32; 2 + 8];

fn main() -> Result<(), Box<dyn Error>> {
    let mut provider = StdShMemProvider::new()?;
    let wait = wake::Wait::new().timeout(Duration::from_secs(10)); // the peer may have died
    if env::var_os("RING").is_some() {
        let ring = Typed::<Ring>::existing_from_env(&mut provider, "RING")?;
        let [written, read, slots @ ..] = &*ring;
        for number in 0..10_000 {
            wait.while_equal(written, number)?.ok_or("empty")?;
            assert_eq!(slots[number as usize % 8].load(Relaxed), number * 3);
            read.store(number + 1, Release);
            wake::one(read)?;
        }
        return Ok(());
    }
    let ring = Typed::<Ring>::create(&mut provider, |_| {})?;
    let [written, read, slots @ ..] = &*ring;
    let mut reader = Command::new(env::current_exe()?);
    ring.hand_over(&mut reader, "RING")?;
    let mut reader = reader.spawn()?;
    for number in 0..10_000_u32 {
        wait.while_equal(read, number.wrapping_sub(8))?
            .ok_or("full")?;
        slots[number as usize % 8].store(number * 3, Relaxed);
        written.store(number + 1, Release);
        wake::one(written)?;
    }
    assert!(reader.wait()?.success());
    println!("10000 messages went through 8 slots");
    Ok(())
}
