//! `--kill`: a worker is killed in the middle of its part, another one takes over, and nothing is left behind.

use std::io::{self, Write};
use std::{fs, process};

use shmem_providers::{ShMem, ShMemProvider};

use super::digest::{border, part};
use super::record::{Record, STEPS};
use super::stage::Stage;
use super::{Job, Result};

/// The worker that is killed.
const VICTIM: usize = 0;

pub(super) fn demonstrate(job: &Job, out: &mut impl Write) -> Result<()> {
    let before = descriptors()?;
    let (len, workers) = (job.bytes.len(), job.workers);
    let part = part(len, VICTIM, workers);
    let mut stage = Stage::new(job, Some(VICTIM))?;
    let ids = [stage.input.id(), stage.results.id()];
    writeln!(out, "segment {}: {len} bytes of input", ids[0])?;
    writeln!(out, "segment {}: the results of {workers} workers", ids[1])?;

    stage.fill(&job.bytes)?;
    stage.begin()?;
    let victim = &mut stage.workers[VICTIM];
    victim.wait_for_signal()?;
    let (pid, status) = (victim.pid(), victim.kill()?);
    writeln!(
        out,
        "worker {VICTIM}, process {pid}, works on bytes {part:?}; it is killed: {status}"
    )?;

    let stored = Record::of(stage.results.access(), VICTIM)?.stored();
    let position = part.start + border(part.len(), stored as usize, STEPS as usize);
    let pid = stage.replace(VICTIM)?;
    writeln!(
        out,
        "process {pid} takes over at byte {position}, where the stored result ends"
    )?;

    stage.wait()?;
    job.check(&stage.take()?)?;
    let crc = job.expected.crc();
    writeln!(out, "all results are correct, CRC-32 {crc:08x}")?;
    drop(stage);

    writeln!(
        out,
        "both segments are dropped; opening them is an error now:"
    )?;
    let mut provider = job.provider.clone();
    for id in ids {
        match provider.shmem_from_id(id) {
            Ok(_) => return Err(format!("segment {id} still exists").into()),
            Err(error) => writeln!(out, "  {error}")?,
        }
    }
    let (after, children) = (descriptors()?, children()?);
    writeln!(
        out,
        "open descriptors: {before} before, {after} after; children left: {children}"
    )?;
    if before != after || children != 0 {
        return Err("something was left behind".into());
    }
    Ok(())
}

/// Returns the number of open descriptors of this process.
fn descriptors() -> io::Result<usize> {
    Ok(fs::read_dir("/proc/self/fd")?.count())
}

/// Returns the number of children of this process, including those that have ended and were not waited for.
fn children() -> io::Result<usize> {
    let parent = format!("PPid:\t{}", process::id());
    let processes = fs::read_dir("/proc")?.filter_map(io::Result::ok);
    // Entries that are not processes, and processes that have just ended, have no status.
    let statuses = processes.filter_map(|it| fs::read_to_string(it.path().join("status")).ok());
    Ok(statuses
        .filter(|status| status.lines().any(|line| line == parent))
        .count())
}
