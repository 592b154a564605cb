//! What the user sees: takes both roads, checks the results, and prints the table.

mod args;
mod digest;
mod kill;
mod pipes;
mod process;
mod record;
mod stage;
mod worker;

use core::time::Duration;
use std::env;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use indicatif::DecimalBytes;
use shmem_providers::StdShMemProvider;

use args::{Args, USAGE};
use digest::{Digest, part};
use pipes::Pipes;
use stage::Stage;

type Error = Box<dyn core::error::Error + Send + Sync>;
type Result<T> = core::result::Result<T, Error>;

/// What is to be done.
struct Job {
    bytes: Vec<u8>,
    workers: usize,
    provider: StdShMemProvider,
    /// What the parent found by itself.
    expected: Digest,
}

/// One round of it. The results are those of the workers, in order.
struct Round {
    results: Vec<Digest>,
    total: Duration,
    /// How much of that was the hand-over, where it can be told from the work.
    handover: Option<Duration>,
}

pub(crate) fn main() -> ExitCode {
    let done = match env::var(worker::WORKER) {
        Ok(index) => worker::main(&index),
        Err(_) => parent(&mut io::stdout()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If this fails there is nobody to tell.
            let _ = writeln!(io::stderr(), "share: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parent(out: &mut impl Write) -> Result<()> {
    let args = Args::parse()?;
    if args.help {
        return Ok(writeln!(out, "{USAGE}")?);
    }
    // From here on the files are in memory: no disk is measured.
    let bytes = args.read_files()?;
    let start = Instant::now();
    let expected = Digest::of(None, &bytes);
    let alone = start.elapsed();
    let job = Job {
        workers: args.workers.min(bytes.len()),
        provider: args.provider,
        bytes,
        expected,
    };
    if args.kill {
        return kill::story(&job, out);
    }

    writeln!(out, "{HEAD}")?;
    let mut stage = Stage::new(&job, None)?;
    let round = || stage.round(&job.bytes);
    let row = job.measure("shared memory", args.repeat, round)?;
    writeln!(out, "{row}")?;
    drop(stage);
    let mut pipes = Pipes::new(job.workers)?;
    let round = || pipes.round(&job.bytes);
    let row = job.measure("pipes", args.repeat, round)?;
    writeln!(out, "{row}")?;
    drop(pipes);
    writeln!(
        out,
        "\nAll results are right, CRC-32 {:08x}. But for the first round, times are medians of\n\
         {}, by the same workers. In the first the system makes the pages of the new segment; pipes\n\
         need none. Pipes hand over while the work is done; who makes the bytes in the segment\n\
         has nothing to hand over. The work, map and CRC-32, is the same on both roads, and\n\
         outweighs them for long inputs: it takes one process {alone:.1?}.",
        job.expected.crc(),
        args.repeat,
    )?;
    Ok(())
}

const HEAD: &str =
    "road                 bytes  workers  first round  hand-over      work     total  throughput";

impl Job {
    /// Takes a road once, then `repeat` times more, and checks the results each time. Returns a row
    /// of the table.
    fn measure(
        &self,
        road: &str,
        repeat: usize,
        mut round: impl FnMut() -> Result<Round>,
    ) -> Result<String> {
        let mut times = Vec::new();
        for _ in 0..=repeat {
            let round = round()?;
            self.check(&round.results)?;
            times.push((round.total, round.handover));
        }
        let (first, _) = times.remove(0);
        times.sort();
        let (total, handover) = times[times.len() / 2];

        let work = handover.map(|handover| total.saturating_sub(handover));
        let rate = self.bytes.len() as u128 * 1_000_000_000 / total.as_nanos().max(1);
        let rate = DecimalBytes(u64::try_from(rate).unwrap_or(u64::MAX));
        let time = |time: Duration| format!("{time:.1?}");
        let known = |part: Option<Duration>| part.map_or("-".into(), time);
        Ok(format!(
            "{road:13} {:>12} {:>8} {:>12} {:>10} {:>9} {:>9} {:>11}",
            self.bytes.len(),
            self.workers,
            time(first),
            known(handover),
            known(work),
            time(total),
            format!("{rate}/s"),
        ))
    }

    /// Compares what the workers found with what the parent did.
    fn check(&self, results: &[Digest]) -> Result<()> {
        let mut all = Digest::of(None, &[]);
        for (index, result) in results.iter().enumerate() {
            let crc = crc32fast::hash(&self.bytes[part(self.bytes.len(), index, self.workers)]);
            let found = result.crc();
            if found != crc {
                return Err(format!("worker {index} found CRC {found:08x}, not {crc:08x}").into());
            }
            all.append(result);
        }
        if all.crc() != self.expected.crc() || all.map != self.expected.map {
            return Err("the results of the workers do not make up that of the whole".into());
        }
        Ok(())
    }
}
