//! A ring: one process writes messages, another one reads them.
#![forbid(unsafe_code)]

use shmem_providers::{ShMemProvider, StdShMemProvider, channel::Ring, wake::Wait};
use std::{env, error::Error, process::Command, time::Duration};

fn main() -> Result<(), Box<dyn Error>> {
    let mut provider = StdShMemProvider::new()?;
    let wait = Wait::new().timeout(Duration::from_secs(10)); // the peer may have died
    if env::var_os("RING").is_some() {
        let mut reader = Ring::existing_from_env(&mut provider, "RING")?.reader()?;
        for number in 0..10_000 {
            let message = reader.peek(wait)?.ok_or("empty")?; // in place
            assert_eq!(message.to_vec(), format!("message {number}").as_bytes());
            message.release()?; // not before it has been used: the writer reuses the bytes
        }
        return Ok(());
    }
    let ring = Ring::create(&mut provider, 4096)?;
    let mut reader = Command::new(env::current_exe()?);
    ring.hand_over(&mut reader, "RING")?;
    let mut reader = reader.spawn()?;
    let mut writer = ring.writer()?;
    for number in 0..10_000 {
        if !writer.send(format!("message {number}").as_bytes(), wait)? {
            return Err("full".into());
        }
    }
    assert!(reader.wait()?.success());
    println!("10000 messages went through 4096 bytes");
    Ok(())
}
