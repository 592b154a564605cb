//! Frames from a pool: a child gets one id after another, and the segments are reused.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::Relaxed;
use std::{collections::HashSet, env, error::Error};

use shmem_providers::{ShMem, ShMemProvider, StdShMemPool, StdShMemProvider};

fn main() -> Result<(), Box<dyn Error>> {
    if env::args().nth(1).is_some() {
        for id in io::stdin().lines() {
            let frame = StdShMemProvider::new()?.shmem_from_id(id?.parse()?)?;
            let last = frame.share().access().as_atomic_u8()[65535].load(Relaxed);
            println!("{last}"); // by now the frame is dropped, so that it can be reused
        }
        return Ok(());
    }
    let mut child = Command::new(env::current_exe()?);
    child.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = child.arg("child").spawn()?;
    let mut ids = child.stdin.take().ok_or("no pipe")?;
    let mut replies = BufReader::new(child.stdout.take().ok_or("no pipe")?).lines();
    let (mut pool, mut used) = (StdShMemPool::new()?, HashSet::new());
    for number in 0..100 {
        let frame = pool.new_shmem(65536)?.share(); // zeroed, and held by no other process
        frame.access().fill(number);
        writeln!(ids, "{}", frame.id())?;
        assert_eq!(replies.next().ok_or("ended")??, number.to_string());
        used.insert(frame.id());
    }
    drop(ids);
    assert!(child.wait()?.success());
    println!("segments created for 100 frames: {}", used.len());
    Ok(())
}
