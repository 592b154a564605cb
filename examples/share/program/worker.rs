//! The worker: a program of its own, which knows from its environment what to do.

use core::ops::Range;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::{env, process, thread};

use shmem_providers::{ShMem, ShMemProvider, StdShMemProvider};

use super::Result;
use super::digest::{Digest, border, part};
use super::record::{Record, STEPS};

/// The variable that makes a process a worker, and says which, counted from 0.
pub(super) const WORKER: &str = "SHARE_WORKER";
/// If this is set the worker stops in the middle of its part, and waits for its end.
pub(super) const STOP: &str = "SHARE_STOP";
/// Under these names segments are handed over. A worker without them uses the pipe.
pub(super) const INPUT: &str = "SHARE_INPUT";
pub(super) const RESULTS: &str = "SHARE_RESULTS";

/// How much is read from a pipe at once: what a pipe holds.
const BUFFER: usize = 1 << 16;

pub(super) fn main(index: &str) -> Result<()> {
    let done = match env::var_os(INPUT) {
        Some(_) => shared(index),
        None => pipe(),
    };
    done.map_err(|error| format!("worker {index}: {error}").into())
}

/// Works on the bytes where they are, each time the parent says so.
fn shared(index: &str) -> Result<()> {
    let index = index.parse()?;
    let mut provider = StdShMemProvider::new()?;
    let input = provider.existing_from_env(INPUT)?;
    let mut results = provider.existing_from_env(RESULTS)?;
    let results = results.access();
    let workers = results.len() / Record::SIZE;
    let record = Record::of(results, index)?;
    let parent = watch_parent()?;
    answer(&[b"!"]);
    loop {
        parent.recv()?;
        // Not before: the parent was writing the bytes, and no reference to them may live while
        // somebody does. From now on nobody does, until this round is done.
        let bytes = &input[..];
        round(bytes, part(bytes.len(), index, workers), &record, &parent)?;
        answer(&[b"!"]);
    }
}

fn round(
    bytes: &[u8],
    part: Range<usize>,
    record: &Record<'_>,
    parent: &Receiver<u8>,
) -> Result<()> {
    let end_of_step = |step: u32| part.start + border(part.len(), step as usize, STEPS as usize);
    // Nothing is kept, unless by a worker that died and is replaced by this one.
    let kept = record.kept();
    let mut position = end_of_step(kept);
    let mut digest = record.result(position - part.start)?;
    for step in kept..STEPS {
        if step == STEPS / 2 && env::var_os(STOP).is_some() {
            record.keep(step, &digest)?;
            answer(&[b"!"]);
            parent.recv()?; // which sends nothing: it kills us here
        }
        let end = end_of_step(step + 1);
        digest.update(bytes[..position].last().copied(), &bytes[position..end]);
        record.set_progress(step + 1);
        position = end;
    }
    record.keep(STEPS, &digest)
}

/// Passes on what the parent sends, and ends this process when the parent closes the pipe or ends,
/// however that comes about and whatever the worker is doing.
fn watch_parent() -> io::Result<Receiver<u8>> {
    let (to, from) = channel();
    thread::Builder::new().spawn(move || {
        for byte in io::stdin().lock().bytes().map_while(io::Result::ok) {
            // If nobody receives it, the worker is at its end anyway.
            let _ = to.send(byte);
        }
        process::exit(0);
    })?;
    Ok(from)
}

/// The same work on bytes that come through a pipe. Ahead of them come their number, whether there
/// is a byte before them, and which.
fn pipe() -> Result<()> {
    let mut input = io::stdin().lock();
    let mut buffer = vec![0; BUFFER];
    answer(&[b"!"]);
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
        answer(&[&digest.crc().to_ne_bytes(), &digest.map]);
    }
    // The parent has closed the pipe or ended, here or in the middle of a part.
    Ok(())
}

/// Writes to the parent. On the shared road that only wakes it: what there is to say is in the
/// record.
fn answer(parts: &[&[u8]]) {
    let mut output = io::stdout().lock();
    let written = parts.iter().try_for_each(|part| output.write_all(part));
    if written.and_then(|()| output.flush()).is_err() {
        // The parent has ended, and there is nobody else to tell.
        process::exit(0);
    }
}
