//! Threads: each keeps a reference into the segment, which stays mapped as long as one of them lives.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;

use shmem_providers::{Error, ShMem, ShMemProvider, SharedRef, StdShMemProvider};

/// Counts how often each byte occurs.
fn count(text: &str, counts: &SharedRef<[AtomicU32; 256]>) {
    for byte in text.bytes() {
        counts[usize::from(byte)].fetch_add(1, Relaxed);
    }
}

fn main() -> Result<(), Error> {
    let shared = StdShMemProvider::new()?.new_shmem(4096)?.share();
    let counts: SharedRef<[AtomicU32; 256]> = shared.view(0)?;
    let threads = ["a man", "a plan", "a canal", "panama"].map(|text| {
        let counts = counts.clone();
        thread::spawn(move || count(text, &counts))
    });
    // Another process that knows `shared.id()` could count in the same segment now.
    for thread in threads {
        thread.join().expect("the thread has not panicked");
    }
    for letter in ['a', 'n', 'p'] {
        println!("{letter}: {}", counts[letter as usize].load(Relaxed));
    }
    Ok(())
}
