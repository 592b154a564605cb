//! What a live segment costs its process in memory, and whether many make the next one slow.

use core::hint::black_box;
use std::process::Command;
use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shmem_providers::{ShMemProvider, StdShMemProvider};

use crate::compare::{Time, median};
use crate::{CHILD, Result};

/// The size of each segment.
const SIZE: usize = 4096;

/// How many descriptors are left for everything else.
const OTHERS: u64 = 100;

/// How many creations the first and the last time is the median of.
const SAMPLE: usize = 500;

/// Fills a new process, which has no history that could stand in for memory.
pub(crate) fn report(count: usize) {
    let run = || -> Result<bool> {
        let mut child = Command::new(std::env::current_exe()?);
        child.args([CHILD, "memory", &count.to_string()]);
        Ok(child.status()?.success())
    };
    match run() {
        Ok(true) => {}
        Ok(false) => println!("\nMemory: skipped, as the process failed"),
        Err(reason) => println!("\nMemory: skipped: {reason}"),
    }
}

/// What that process does.
pub(crate) fn fill(wanted: usize) -> Result {
    let limit = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: limit,
        maximum: limit,
    };
    setrlimit(Resource::Nofile, raised)?;
    let fit = limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit.saturating_sub(OTHERS)).unwrap_or(usize::MAX)
    });
    let count = wanted.min(fit);
    if count == 0 {
        return Err("the hard limit of RLIMIT_NOFILE leaves no room for segments".into());
    }
    if count < wanted {
        println!(
            "\nOnly {count} segments: the hard limit of RLIMIT_NOFILE does not allow {wanted}"
        );
    }

    let mut provider = StdShMemProvider::new()?;
    // All that the measurement itself needs is in memory before it starts.
    drop(black_box(provider.new_shmem(SIZE)?));
    let mut times = vec![1.0; count];
    let mut segments = Vec::with_capacity(count);
    Usage::now()?;
    let before = Usage::now()?;
    for time in &mut times {
        let start = Instant::now();
        segments.push(provider.new_shmem(SIZE)?);
        *time = start.elapsed().as_secs_f64();
    }
    let after = Usage::now()?;

    let sample = SAMPLE.min(count);
    let first = median(times.iter().take(sample).copied());
    let last = median(times.iter().rev().take(sample).copied());
    let each = |before: usize, after: usize| after.saturating_sub(before) / count;
    println!(
        "\nMemory of a process per segment, at {count} live ones of {SIZE} bytes, untouched: \
         {} bytes (RssAnon and RssFile; {} of them are the value itself), payload {} bytes \
         (RssShmem).",
        each(before.own, after.own),
        size_of_val(segments.as_slice()) / count,
        each(before.payload, after.payload)
    );
    println!(
        "Creation, median of the first {sample}: {}, of the last {sample}: {}, ratio {:.3}.",
        Time(first),
        Time(last),
        last / first
    );
    Ok(())
}

/// Resident memory of this process, in bytes.
struct Usage {
    own: usize,
    payload: usize,
}

impl Usage {
    fn now() -> Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let bytes = |name: &str| -> Result<usize> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next());
            let kib: usize = number.ok_or("/proc/self/status lacks a line")?.parse()?;
            Ok(kib * 1024)
        };
        Ok(Self {
            own: bytes("RssAnon:")? + bytes("RssFile:")?,
            payload: bytes("RssShmem:")?,
        })
    }
}
