//! Runs the rounds, through shared memory and through pipes, checks the results, and prints the table.

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

/// The work.
struct Job {
    bytes: Vec<u8>,
    workers: usize,
    provider: StdShMemProvider,
    /// The result that the parent has computed.
    expected: Digest,
}

/// One round of the work.
struct Round {
    /// In the order of the workers.
    results: Vec<Digest>,
    total: Duration,
    /// The part of the total in which the bytes were handed over, if it is separate from the work.
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
            // If this fails, the error cannot be reported.
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
    // From here on the files are in memory, so no disk is measured.
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
        return kill::demonstrate(&job, out);
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
        "\nAll results are correct, CRC-32 {:08x}. Except for the first round, times are medians of\n\
         {} rounds with the same workers. In the first round, the system allocates the pages of the\n\
         new segment. With pipes, hand-over and work overlap. A program that produces its bytes in\n\
         the segment has no hand-over. The work (map and CRC-32) is the same for both; it takes a\n\
         single process {alone:.1?}, which for long inputs is most of the time.",
        job.expected.crc(),
        args.repeat,
    )?;
    Ok(())
}

const HEAD: &str =
    "transport            bytes  workers  first round  hand-over      work     total  throughput";

impl Job {
    /// Runs a round, then `repeat` rounds more, and checks the results each time. Returns a row of the table.
    fn measure(
        &self,
        transport: &str,
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
            "{transport:13} {:>12} {:>8} {:>12} {:>10} {:>9} {:>9} {:>11}",
            self.bytes.len(),
            self.workers,
            time(first),
            known(handover),
            known(work),
            time(total),
            format!("{rate}/s"),
        ))
    }

    /// Compares the results of the workers with that of the parent.
    fn check(&self, results: &[Digest]) -> Result<()> {
        let mut all = Digest::of(None, &[]);
        for (index, result) in results.iter().enumerate() {
            let crc = crc32fast::hash(&self.bytes[part(self.bytes.len(), index, self.workers)]);
            let found = result.crc();
            if found != crc {
                return Err(
                    format!("worker {index} has computed CRC {found:08x}, not {crc:08x}").into(),
                );
            }
            all.append(result);
        }
        if all.crc() != self.expected.crc() || all.map != self.expected.map {
            return Err("the joined results of the workers differ from the whole".into());
        }
        Ok(())
    }
}
