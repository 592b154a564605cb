//! [`Stage`]: two segments, and the workers that have attached to them.

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

/// Inputs of more bytes than this have a progress bar.
const LONG: usize = 16 << 20;

/// The segments and the workers.
pub(super) struct Stage {
    pub(super) input: StdShMem,
    pub(super) results: StdShMem,
    pub(super) workers: Vec<Worker>,
    command: Command,
}

impl Stage {
    /// Creates the segments and starts the workers. The worker `stopping` stops half-way.
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
        workers.iter_mut().try_for_each(Worker::wait_for_signal)?;
        Ok(Self {
            input,
            results,
            workers,
            command,
        })
    }

    /// Writes the bytes into the segment, runs the workers, and returns the results.
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

    /// Copies the bytes into the segment, with a thread for each part, as for the pipes.
    ///
    /// The slice may be used here, because the workers do not read the input before they get the signal.
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

    /// Clears the records and signals all workers to begin. From now on no process writes the input.
    pub(super) fn begin(&mut self) -> Result<()> {
        self.results.access().fill(0);
        let mut workers = self.workers.iter_mut();
        workers.try_for_each(|worker| worker.write(b"!"))
    }

    /// Waits until all workers are done.
    pub(super) fn wait(&mut self) -> Result<()> {
        let has_bar = self.input.len() > LONG && io::stderr().is_terminal();
        let count = self.workers.len();
        let results = self.results.access();
        thread::scope(|scope| {
            // Dropped when all workers are done, which ends the thread of the bar.
            let (_sender, done) = channel();
            if has_bar {
                let draw = move || draw_progress(results, count, &done);
                Builder::new().spawn_scoped(scope, draw)?;
            }
            self.workers
                .iter_mut()
                .try_for_each(Worker::wait_for_signal)
        })
    }

    /// Returns the results in the records.
    pub(super) fn take(&mut self) -> Result<Vec<Digest>> {
        let (len, workers) = (self.input.len(), self.workers.len());
        let results = self.results.access();
        let result = |index| match Record::of(results, index)? {
            record if record.stored() == STEPS => record.result(part(len, index, workers).len()),
            record => Err(format!("worker {index} stopped at step {}", record.stored()).into()),
        };
        (0..workers).map(result).collect()
    }

    /// Replaces a worker that has died by another one with the same ids, and returns its process number.
    pub(super) fn replace(&mut self, index: usize) -> Result<u32> {
        let mut worker = Worker::start(self.command.env_remove(STOP), index)?;
        worker.wait_for_signal()?;
        worker.write(b"!")?;
        let pid = worker.pid();
        self.workers[index] = worker;
        Ok(pid)
    }
}

/// Shows the progress of the workers until the other end of the channel is dropped.
fn draw_progress(results: Access<'_>, workers: usize, done: &Receiver<()>) {
    let bar = ProgressBar::new(u64::from(STEPS) * workers as u64);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent} %") {
        bar.set_style(style);
    }
    while done.recv_timeout(Duration::from_millis(50)) == Err(RecvTimeoutError::Timeout) {
        let records = (0..workers).filter_map(|index| Record::of(results, index).ok());
        bar.set_position(records.map(|record| u64::from(record.progress())).sum());
    }
    bar.finish_and_clear();
}
