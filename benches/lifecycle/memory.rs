//! The memory that a live segment costs its process, and whether many segments slow down the next one.

use core::hint::black_box;
use std::process::Command;
use std::time::Instant;

use bench::Result;
use bench::pairs::{Time, median};
use bench::process::raise_descriptor_limit;
use shmem_providers::{ShMemProvider, StdShMemProvider};

use crate::CHILD;

/// The size of each segment, in bytes.
const SIZE: usize = 4096;

/// The number of descriptors that are left for everything else.
const OTHERS: u64 = 100;

/// The number of creations whose median is reported, at the start and at the end.
const SAMPLE: usize = 500;

/// Runs [`fill`] in a new process, which has no freed memory that it could reuse.
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

/// Creates segments and reports what they cost.
pub(crate) fn fill(wanted: usize) -> Result {
    let fit = raise_descriptor_limit()?.map_or(usize::MAX, |limit| {
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
    // Everything that the measurement itself needs is in memory before it starts.
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
        "\nMemory of a process per segment, with {count} live segments of {SIZE} bytes, untouched: \
         {} bytes (RssAnon and RssFile; {} of them are the value itself), payload {} bytes \
         (RssShmem).",
        each(before.own, after.own),
        size_of_val(segments.as_slice()) / count,
        each(before.payload, after.payload)
    );
    println!(
        "Creation, median of the first {sample}: {:.2}, of the last {sample}: {:.2}, ratio {:.3}.",
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
