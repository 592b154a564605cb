//! The worker: a separate process, whose environment tells it what to do.

use core::ops::Range;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::{env, process, thread};

use shmem_providers::{ShMem, ShMemProvider, StdShMemProvider};

use super::Result;
use super::digest::{Digest, border, part};
use super::record::{Record, STEPS};

/// The variable that makes a process a worker. Its value is the index of the worker, from 0.
pub(super) const WORKER: &str = "SHARE_WORKER";
/// If this variable is set, the worker stops in the middle of its part and waits to be killed.
pub(super) const STOP: &str = "SHARE_STOP";
/// The variables by which segments are handed over. Without them, a worker uses its pipe.
pub(super) const INPUT: &str = "SHARE_INPUT";
pub(super) const RESULTS: &str = "SHARE_RESULTS";

/// The number of bytes that are read from a pipe at once: the capacity of a pipe.
const BUFFER: usize = 1 << 16;

pub(super) fn main(index: &str) -> Result<()> {
    let done = match env::var_os(INPUT) {
        Some(_) => shared(index),
        None => pipe(),
    };
    done.map_err(|error| format!("worker {index}: {error}").into())
}

/// Works on the bytes in place, each time the parent signals.
fn shared(index: &str) -> Result<()> {
    let index = index.parse()?;
    let mut provider = StdShMemProvider::new()?;
    let input = provider.existing_from_env(INPUT)?;
    let mut results = provider.existing_from_env(RESULTS)?;
    let results = results.access();
    let workers = results.len() / Record::SIZE;
    let record = Record::of(results, index)?;
    let parent = watch_parent()?;
    reply(&[b"!"]);
    loop {
        parent.recv()?;
        // Before the signal the parent was writing the bytes, so no reference to them could exist. From now
        // on no process writes them, until this round is done.
        let bytes = &input[..];
        round(bytes, part(bytes.len(), index, workers), &record, &parent)?;
        reply(&[b"!"]);
    }
}

fn round(
    bytes: &[u8],
    part: Range<usize>,
    record: &Record<'_>,
    parent: &Receiver<u8>,
) -> Result<()> {
    let end_of_step = |step: u32| part.start + border(part.len(), step as usize, STEPS as usize);
    // Nothing is stored, unless this worker replaces one that died.
    let stored = record.stored();
    let mut position = end_of_step(stored);
    let mut digest = record.result(position - part.start)?;
    for step in stored..STEPS {
        if step == STEPS / 2 && env::var_os(STOP).is_some() {
            record.store(step, &digest)?;
            reply(&[b"!"]);
            // The parent sends nothing: it kills this process here.
            parent.recv()?;
        }
        let end = end_of_step(step + 1);
        digest.update(bytes[..position].last().copied(), &bytes[position..end]);
        record.set_progress(step + 1);
        position = end;
    }
    record.store(STEPS, &digest)
}

/// Returns a channel with the bytes that the parent sends. Ends this process, whatever it is doing, when the
/// parent closes the pipe or ends.
fn watch_parent() -> io::Result<Receiver<u8>> {
    let (to, from) = channel();
    thread::Builder::new().spawn(move || {
        for byte in io::stdin().lock().bytes().map_while(io::Result::ok) {
            // Fails only when the worker is ending.
            let _ = to.send(byte);
        }
        process::exit(0);
    })?;
    Ok(from)
}

/// Does the same work on bytes from a pipe. Before them come their number, whether there is a byte before them,
/// and that byte.
fn pipe() -> Result<()> {
    let mut input = io::stdin().lock();
    let mut buffer = vec![0; BUFFER];
    reply(&[b"!"]);
    let mut head = [0; 10];
    while input.read_exact(&mut head).is_ok() {
        let [len @ .., is_there, previous] = head;
        let mut previous = (is_there != 0).then_some(previous);
        let mut rest = u64::from_ne_bytes(len);
        let mut digest = Digest::of(None, &[]);
        while rest > 0 {
            let len = input.by_ref().take(rest).read(&mut buffer)?;
            if len == 0 {
                break;
            }
            digest.update(previous, &buffer[..len]);
            previous = buffer[..len].last().copied();
            rest -= len as u64;
        }
        reply(&[&digest.crc().to_ne_bytes(), &digest.map]);
    }
    // The parent has closed the pipe or ended, perhaps in the middle of a part.
    Ok(())
}

/// Writes to the parent. With shared memory, this is only a signal: the result is in the record.
fn reply(parts: &[&[u8]]) {
    let mut output = io::stdout().lock();
    let written = parts.iter().try_for_each(|part| output.write_all(part));
    if written.and_then(|()| output.flush()).is_err() {
        // The parent has ended.
        process::exit(0);
    }
}
