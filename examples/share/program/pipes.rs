//! The comparison: each worker gets its part through its standard input.

use std::io;
use std::thread::{self, Builder, ScopedJoinHandle};
use std::time::Instant;

use super::digest::{Digest, part};
use super::process::{Worker, command};
use super::worker::INPUT;
use super::{Result, Round};

/// Workers that use their pipes only.
pub(super) struct Pipes {
    workers: Vec<Worker>,
}

impl Pipes {
    pub(super) fn new(workers: usize) -> Result<Self> {
        let mut command = command()?;
        command.env_remove(INPUT);
        let mut workers = (0..workers)
            .map(|index| Worker::start(&mut command, index))
            .collect::<Result<Vec<_>>>()?;
        workers.iter_mut().try_for_each(Worker::wait_for_signal)?;
        Ok(Self { workers })
    }

    /// Sends the bytes and receives the results, with a thread for each worker.
    pub(super) fn round(&mut self, bytes: &[u8]) -> Result<Round> {
        let start = Instant::now();
        let count = self.workers.len();
        let results = thread::scope(|scope| {
            let spawn =
                |worker| Builder::new().spawn_scoped(scope, move || exchange(worker, bytes, count));
            let threads: Vec<_> = self.workers.iter_mut().map(spawn).collect();
            let panicked = |_| Err("a thread panicked".into());
            let join = |thread: io::Result<ScopedJoinHandle<'_, _>>| {
                thread?.join().unwrap_or_else(panicked)
            };
            threads.into_iter().map(join).collect::<Result<Vec<_>>>()
        })?;
        Ok(Round {
            results,
            total: start.elapsed(),
            handover: None,
        })
    }
}

fn exchange(worker: &mut Worker, bytes: &[u8], workers: usize) -> Result<Digest> {
    let part = part(bytes.len(), worker.index, workers);
    let len = part.len();
    let mut head = [0; 10];
    head[..8].copy_from_slice(&(len as u64).to_ne_bytes());
    if let Some(&previous) = bytes[..part.start].last() {
        head[8..].copy_from_slice(&[1, previous]);
    }
    worker.write(&head)?;
    worker.write(&bytes[part])?;
    let mut crc = [0; 4];
    worker.read(&mut crc)?;
    let mut digest = Digest::with_crc(u32::from_ne_bytes(crc), len);
    worker.read(&mut digest.map)?;
    Ok(digest)
}
