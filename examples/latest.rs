//! The latest value: one writer, which is killed and replaced, and readers that it never waits for.
#![forbid(unsafe_code)]

use shmem_providers::channel::{Latest, LatestReader, LatestWriter};
use shmem_providers::{ShMemProvider, StdShMemProvider, wake::Wait};
use std::{env, error::Error, process::Command, time::Duration};

fn write(mut writer: LatestWriter) -> Result<(), Box<dyn Error>> {
    let mut bytes = (0..=255).cycle().take(1_000_000);
    Ok(bytes.try_for_each(|byte| writer.write(100_000, |value| value.fill(byte)))?)
}

fn read(mut reader: LatestReader) -> Result<(), Box<dyn Error>> {
    let (mut value, wait) = (vec![], Wait::new().timeout(Duration::from_secs(10)));
    for _ in 0..1000 {
        reader.next(&mut value, wait)?.ok_or("no writer")?; // sleeps until there is a new one
        assert_eq!(value, vec![value[0]; 100_000]);
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    if let Ok(latest) = Latest::existing_from_env(&mut StdShMemProvider::new()?, "LATEST") {
        return match env::var_os("WRITES") {
            Some(_) => write(latest.writer()),
            None => read(latest.reader()),
        };
    }
    let latest = Latest::create_with_slots(&mut StdShMemProvider::new()?, 100_000, 64)?; // so that readers have time
    let mut command = Command::new(env::current_exe()?);
    latest.hand_over(&mut command, "LATEST")?;
    for reader in [(); 3].map(|()| command.spawn()) {
        let mut writer = command.env("WRITES", "").spawn()?;
        assert!(reader?.wait()?.success());
        writer.kill()?; // perhaps in the middle of a value
        writer.wait()?;
    }
    println!("three readers have seen whole values only");
    Ok(())
}
