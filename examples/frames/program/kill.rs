//! `--kill`: a consumer is killed while frames are produced, another one takes its place, and nothing is left.

use std::fs;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;

use shmem_providers::{ShMemProvider, StdShMemProvider};

use super::args::Args;
use super::producer::{Event, Producer};
use super::{Result, WARM_UP};

/// The seat of the consumer that is killed.
const VICTIM: usize = 0;

pub(super) fn demonstrate(args: &Args, out: &mut impl Write) -> Result<()> {
    let total = WARM_UP + args.frames;
    let mut producer = Producer::new(args.size as usize, args.consumers, total)?;
    let segment = producer.ring.control.segment();
    let pids: Vec<_> = producer
        .consumers
        .iter()
        .map(|it| it.pid().to_string())
        .collect();
    writeln!(
        out,
        "segment {}, {} bytes: a ring that is read by the processes {}",
        segment.id,
        segment.size,
        pids.join(", ")
    )?;

    // The number of frames that the victim has checked, and the first one of its replacement.
    let mut killed = None;
    let mut joined = None;
    for frame in 0..total {
        let victim = &mut producer.consumers[VICTIM];
        if frame == total / 3 {
            writeln!(
                out,
                "frame {frame}: process {} is killed with SIGKILL",
                victim.pid()
            )?;
            victim.0.kill()?;
        } else if frame == total / 2 {
            producer.replace(VICTIM)?;
            let pid = producer.consumers[VICTIM].pid();
            writeln!(
                out,
                "frame {frame}: process {pid} is started with the same id"
            )?;
        } else if frame == total / 3 * 2 {
            // It may still be starting.
            producer.wait_until_joined(VICTIM)?;
            joined.get_or_insert(frame);
        }
        producer.draw(|producer, event| {
            match event {
                Event::Ended(VICTIM, status) if status.signal().is_some() && killed.is_none() => {
                    killed = Some(producer.checked(VICTIM));
                    writeln!(
                        out,
                        "frame {frame}: the producer notices ({status}) and goes on with the others"
                    )?;
                }
                Event::Joined(VICTIM) => joined = Some(frame),
                Event::Ended(_, status) => {
                    return Err(format!("a consumer has ended: {status}").into());
                }
                Event::Joined(_) => {}
            }
            Ok(())
        })?;
    }
    let killed = killed.ok_or("the producer has not noticed that a consumer has ended")?;
    let joined = joined.ok_or("the replacement has not joined")?;
    let pid = producer.consumers[VICTIM].pid();
    writeln!(out, "frame {joined}: process {pid} has joined")?;

    for consumer in &mut producer.consumers {
        consumer.finish()?;
    }
    for seat in 0..args.consumers {
        let (checked, expected) = match seat {
            VICTIM => (producer.checked(VICTIM) - killed, total - joined),
            _ => (producer.checked(seat), total),
        };
        if checked != expected {
            return Err(
                format!("consumer {seat} has checked {checked} frames, not {expected}").into(),
            );
        }
    }
    writeln!(
        out,
        "the killed process has checked {killed} frames, its replacement {}, every other one all {total}",
        total - joined,
    )?;
    drop(producer);

    match StdShMemProvider::new()?.shmem_from_id(segment.id) {
        Ok(_) => return Err("the segment still exists".into()),
        Err(error) => writeln!(
            out,
            "the ring is dropped; opening it is an error now: {error}"
        )?,
    }
    let left = files(segment.size as u64)?;
    writeln!(out, "files of this size in /dev/shm: {left}")?;
    if left > 0 {
        return Err("something was left behind".into());
    }
    Ok(())
}

/// Returns the number of files in `/dev/shm` with as many bytes as the ring.
fn files(size: u64) -> io::Result<usize> {
    let entries = fs::read_dir("/dev/shm")?.filter_map(io::Result::ok);
    let sizes = entries.filter_map(|entry| Some(entry.metadata().ok()?.len()));
    Ok(sizes.filter(|it| *it == size).count())
}
