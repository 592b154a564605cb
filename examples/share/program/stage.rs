//! The road through shared memory: two segments, and the workers that have attached to them.

use core::time::Duration;
use std::io::{self, IsTerminal};
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, Builder};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use shmem_providers::{Access, ShMem, ShMemProvider, StdShMem};

use super::digest::{Digest, part};
use super::process::{Worker, command};
use super::record::{Record, STEPS};
use super::worker::{INPUT, RESULTS, STOP};
use super::{Job, Result, Round};

/// From how many bytes on there is a progress bar.
const LONG: usize = 16 << 20;

/// All that takes part.
pub(super) struct Stage {
    pub(super) input: StdShMem,
    pub(super) results: StdShMem,
    pub(super) workers: Vec<Worker>,
    command: Command,
}

impl Stage {
    /// Makes the segments and starts the workers, one of which may have to stop half-way.
    pub(super) fn new(job: &Job, stopping: Option<usize>) -> Result<Self> {
        let mut provider = job.provider.clone();
        let input = provider.new_shmem(job.bytes.len())?;
        let results = provider.new_shmem(Record::SIZE.saturating_mul(job.workers))?;
        let mut command = command()?;
        input.hand_over(&mut command, INPUT)?;
        results.hand_over(&mut command, RESULTS)?;

        let mut workers = Vec::new();
        for index in 0..job.workers {
            if Some(index) == stopping {
                command.env(STOP, "");
            } else {
                command.env_remove(STOP);
            }
            workers.push(Worker::start(&mut command, index)?);
        }
        workers.iter_mut().try_for_each(Worker::hear)?;
        Ok(Self {
            input,
            results,
            workers,
            command,
        })
    }

    /// Puts the bytes into the segment, has them worked on, and takes the results.
    pub(super) fn round(&mut self, bytes: &[u8]) -> Result<Round> {
        let start = Instant::now();
        self.fill(bytes)?;
        let handover = start.elapsed();
        self.begin()?;
        self.wait()?;
        Ok(Round {
            results: self.take()?,
            total: start.elapsed(),
            handover: Some(handover),
        })
    }

    /// Copies the bytes into the segment, with a thread for each part, as the pipes have it.
    ///
    /// It may be written as a slice: the workers do not look at it until they are told.
    pub(super) fn fill(&mut self, bytes: &[u8]) -> io::Result<()> {
        let workers = self.workers.len();
        thread::scope(|scope| {
            let mut rest = &mut self.input[..];
            for index in 0..workers {
                let from = &bytes[part(bytes.len(), index, workers)];
                let (to, behind) = rest.split_at_mut(from.len());
                Builder::new().spawn_scoped(scope, move || to.copy_from_slice(from))?;
                rest = behind;
            }
            Ok(())
        })
    }

    /// Empties the records, and tells all workers to begin. From now on nobody writes the input.
    pub(super) fn begin(&mut self) -> Result<()> {
        self.results.access().fill(0);
        let mut workers = self.workers.iter_mut();
        workers.try_for_each(|worker| worker.write(b"!"))
    }

    /// Waits until all workers are done.
    pub(super) fn wait(&mut self) -> Result<()> {
        let watched = self.input.len() > LONG && io::stderr().is_terminal();
        let count = self.workers.len();
        let results = self.results.access();
        thread::scope(|scope| {
            let (_until_here, over) = channel();
            if watched {
                let draw = move || draw_progress(results, count, &over);
                Builder::new().spawn_scoped(scope, draw)?;
            }
            self.workers.iter_mut().try_for_each(Worker::hear)
        })
    }

    /// What the workers have put into their records.
    pub(super) fn take(&mut self) -> Result<Vec<Digest>> {
        let (len, workers) = (self.input.len(), self.workers.len());
        let results = self.results.access();
        let result = |index| match Record::of(results, index)? {
            record if record.kept() == STEPS => record.result(part(len, index, workers).len()),
            record => Err(format!("worker {index} stopped at step {}", record.kept()).into()),
        };
        (0..workers).map(result).collect()
    }

    /// Puts another worker, with the same ids, in the place of one that has died. Tells its pid.
    pub(super) fn replace(&mut self, index: usize) -> Result<u32> {
        let mut worker = Worker::start(self.command.env_remove(STOP), index)?;
        worker.hear()?;
        worker.write(b"!")?;
        let pid = worker.pid();
        self.workers[index] = worker;
        Ok(pid)
    }
}

/// Shows how far the workers have got, until the other end of the channel is dropped.
fn draw_progress(results: Access<'_>, workers: usize, over: &Receiver<()>) {
    let bar = ProgressBar::new(u64::from(STEPS) * workers as u64);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent} %") {
        bar.set_style(style);
    }
    while over.recv_timeout(Duration::from_millis(50)) == Err(RecvTimeoutError::Timeout) {
        let records = (0..workers).filter_map(|index| Record::of(results, index).ok());
        bar.set_position(records.map(|record| u64::from(record.progress())).sum());
    }
    bar.finish_and_clear();
}
