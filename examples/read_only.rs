//! A producer, and a consumer that reads what the producer writes and could not change it if it tried.
//! It starts the consumer by itself. Linux, as only memfds have a single writer.
#![forbid(unsafe_code)]

use std::error::Error;
use std::process::Command;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::{env, thread};

use shmem_providers::{ShMem, ShMemOptions, ShMemProvider, StdShMemProvider};

fn main() -> Result<(), Box<dyn Error>> {
    env::args().nth(1).map_or_else(produce, |_| consume())
}

fn produce() -> Result<(), Box<dyn Error>> {
    let options = ShMemOptions::new().single_writer();
    let (mut page, _) = StdShMemProvider::new()?.new_shmem_with(4096, options)?;
    let mut consumer = Command::new(env::current_exe()?);
    page.hand_over(&mut consumer, "PAGE")?;
    let mut consumer = consumer.arg("consume").spawn()?;
    page.access().write_at(8, b"written by one, read by all")?;
    page.access().as_atomic_u32()?[0].store(27, Release); // the length: now it may be read
    match consumer.wait()?.code() {
        Some(0) => Ok(()),
        _ => Err("the consumer failed".into()),
    }
}

fn consume() -> Result<(), Box<dyn Error>> {
    let page = StdShMemProvider::new()?.existing_from_env_read_only("PAGE")?;
    while page.access().load_u32(0, Acquire)? == 0 {
        thread::yield_now();
    }
    let mut text = [0; 27];
    page.access().read_at(8, &mut text)?;
    println!("{}", std::str::from_utf8(&text)?);
    Ok(())
}
