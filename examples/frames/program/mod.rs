//! Produces the frames through each transport, and prints the table.

mod args;
mod consumer;
mod frame;
mod kill;
mod process;
mod producer;
mod ring;
mod streams;

use core::time::Duration;
use std::env;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use args::{Args, USAGE};
use frame::LINE;
use process::Consumer;
use producer::Producer;
use ring::FRAMES;
use streams::{Streams, pipe, socket};

type Error = Box<dyn core::error::Error + Send + Sync>;
type Result<T> = core::result::Result<T, Error>;

/// The number of frames before those that are measured.
const WARM_UP: u32 = 50;
/// How often each transport is measured, in turns.
const ROUNDS: usize = 5;
const NAMES: [&str; 3] = ["shared memory", "pipes", "Unix sockets"];

pub(crate) fn main() -> ExitCode {
    let done = match (env::var(consumer::SEAT), env::var(consumer::STREAM)) {
        (Ok(seat), _) => consumer::ring(&seat),
        (_, Ok(size)) => consumer::stream(&size),
        _ => parent(&mut io::stdout()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If this fails, the error cannot be reported.
            let _ = writeln!(io::stderr(), "frames: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parent(out: &mut impl Write) -> Result<()> {
    let args = Args::parse()?;
    if args.help {
        return Ok(writeln!(out, "{USAGE}")?);
    }
    if args.kill {
        return kill::demonstrate(&args, out);
    }
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        let (size, consumers, total) = (args.size as usize, args.consumers, WARM_UP + args.frames);
        // Each is dropped, with its processes, before the next one is created.
        let time = measure(NAMES[0], &args, Producer::new(size, consumers, total)?)?;
        times[0].push(time);
        let time = measure(NAMES[1], &args, Streams::new(size, consumers, total, pipe)?)?;
        times[1].push(time);
        let time = measure(
            NAMES[2],
            &args,
            Streams::new(size, consumers, total, socket)?,
        )?;
        times[2].push(time);
    }
    print(&args, times.map(median), out)
}

/// A producer and its consumers.
trait Transport {
    /// Draws the next frame and passes it on.
    fn produce(&mut self) -> Result<()>;

    fn consumers(&mut self) -> &mut [Consumer];
}

/// Returns the time from the end of the warm-up until all consumers have ended, which they do when they have
/// checked the last frame.
fn measure(name: &'static str, args: &Args, mut transport: impl Transport) -> Result<Duration> {
    for _ in 0..WARM_UP {
        transport.produce()?;
    }
    // Drawn only if the standard error is a terminal.
    let bar = ProgressBar::new(args.frames.into()).with_message(name);
    bar.set_style(ProgressStyle::with_template(
        "{msg:13} {wide_bar} {percent} %",
    )?);
    let start = Instant::now();
    for _ in 0..args.frames {
        transport.produce()?;
        bar.inc(1);
    }
    transport
        .consumers()
        .iter_mut()
        .try_for_each(Consumer::finish)?;
    let time = start.elapsed();
    bar.finish_and_clear();
    Ok(time)
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

/// Prints the table of the times in seconds, in the order of the names.
fn print(args: &Args, times: [f64; 3], out: &mut impl Write) -> Result<()> {
    let Args {
        frames,
        size,
        consumers,
        ..
    } = *args;
    writeln!(
        out,
        "transport       frames/s   MiB/s per consumer   times the pipe"
    )?;
    for (name, time) in NAMES.iter().zip(times) {
        let rate = f64::from(frames) / time;
        let mib = rate * f64::from(size) / f64::from(1 << 20);
        writeln!(
            out,
            "{name:13} {rate:10.0} {mib:20.0} {:16.1}",
            times[1] / time
        )?;
    }
    writeln!(
        out,
        "\nThe medians of {ROUNDS} rounds of {frames} frames of {size} bytes, after {WARM_UP} frames to warm up. Each of\n\
         {consumers} processes has checked all of them. The same code draws and checks one word in each {LINE} bytes,\n\
         so that all memory of a frame is touched: in place in a ring of {FRAMES} frames, or in a buffer that is\n\
         written to every consumer. The more a program does with a frame, the smaller are the differences."
    )?;
    Ok(())
}
