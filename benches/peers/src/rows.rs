//! The rows.

use std::hint::black_box;
use std::process::Command;
use std::time::Instant;

use bench::pairs::{Pairs, Target, median};
use bench::process::{Holder, raise_descriptor_limit};
use bench::raw::{open, path_of_memfd};
use bench::{Result, SIZE};
use shmem_providers::{
    HugePages, MemfdShMemProvider, ShMem, ShMemOptions, ShMemProvider, Slab, StdShMemPool,
    StdShMemProvider,
};

use crate::table::Table;
use crate::two::{self, By};
use crate::{channels, locks, peers, raw};

const MIB: usize = 1 << 20;

/// The numbers of pairs and of operations in a batch: for operations that take microseconds, and for those
/// that take milliseconds.
const SHORT: (usize, u32) = (150, 32);
const LONG: (usize, u32) = (15, 1);

/// A part of the table.
type Part = (&'static str, fn(&mut Table) -> Result);

pub(crate) fn all(table: &mut Table) {
    let parts: [Part; 12] = [
        ("creation", creation),
        ("peers", peers::rows),
        ("options", options),
        ("content", content),
        ("attaching", attaching),
        ("many", many),
        ("clearing", clearing),
        ("snapshots", snapshots),
        ("forks", forks),
        ("two processes", two_processes),
        ("messages", channels::rows),
        ("locks", locks::rows),
    ];
    for (name, part) in parts {
        if let Err(error) = part(table) {
            table.fact(name, "", format!("not measured: {error}"));
        }
    }
}

fn creation(table: &mut Table) -> Result {
    let mut p = StdShMemProvider::new()?;
    table.row(
        "create + drop, 64 KiB",
        "raw memfd with seals",
        Target::AtMost(1.05),
        SHORT,
        || {
            drop(black_box(p.new_shmem(SIZE)?));
            Ok(())
        },
        || raw::life(SIZE, false),
    );
    let mut pool = StdShMemPool::new()?;
    table.row(
        "create + write all + drop, 64 KiB, from the pool",
        "raw memfd",
        Target::AtMost(0.05),
        SHORT,
        || {
            black_box(&mut pool.new_shmem(SIZE)?).fill(1);
            Ok(())
        },
        || raw::life(SIZE, true),
    );
    let mut pool = StdShMemPool::new()?;
    table.row(
        "create + write all + drop, 1 MiB, from the pool",
        "raw memfd",
        Target::None,
        (60, 4),
        || {
            black_box(&mut pool.new_shmem(MIB)?).fill(1);
            Ok(())
        },
        || raw::life(MIB, true),
    );
    Ok(())
}

fn options(table: &mut Table) -> Result {
    let mut p = MemfdShMemProvider::new()?;
    let huge = ShMemOptions::new().require_huge_pages(HugePages::TwoMiB);
    let transparent = ShMemOptions::new().transparent_huge_pages();
    for (work, options) in [
        (
            "create + write all + drop, 64 MiB, huge pages set aside",
            huge,
        ),
        (
            "create + write all + drop, 64 MiB, transparent huge pages",
            transparent,
        ),
    ] {
        let target = Target::AtMost(0.12);
        let probe = p
            .new_shmem_with(64 * MIB, options)
            .map(|(_, report)| report);
        let refused = match &probe {
            Ok(report) => report
                .refusals()
                .next()
                .map(|(_, reason)| reason.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(reason) = refused {
            table.add(work, "raw memfd", target, Err(reason));
            continue;
        }
        table.row(
            work,
            "raw memfd",
            target,
            LONG,
            || {
                black_box(&mut p.new_shmem_with(64 * MIB, options)?.0).fill(1);
                Ok(())
            },
            || raw::life(64 * MIB, true),
        );
    }
    let prefault = ShMemOptions::new().prefault();
    for (name, size, how) in [
        ("64 KiB", SIZE, SHORT),
        ("1 MiB", MIB, (60, 4)),
        ("64 MiB", 64 * MIB, LONG),
    ] {
        table.row(
            &format!("create + write all + drop, {name}, prefaulted"),
            "raw memfd",
            Target::AtMost(0.80),
            how,
            || {
                black_box(&mut p.new_shmem_with(size, prefault)?.0).fill(1);
                Ok(())
            },
            || raw::life(size, true),
        );
    }
    Ok(())
}

fn content(table: &mut Table) -> Result {
    let mut p = StdShMemProvider::new()?;
    for (name, size, how) in [
        ("64 KiB", SIZE, SHORT),
        ("1 MiB", MIB, (60, 4)),
        ("64 MiB", 64 * MIB, LONG),
    ] {
        let bytes = vec![1; size];
        table.row(
            &format!("from_bytes, {name}"),
            "raw memfd + copy",
            Target::AtMost(0.60),
            how,
            || {
                drop(black_box(p.shmem_from_bytes(&bytes)?));
                Ok(())
            },
            || raw::holding(&bytes),
        );
    }
    Ok(())
}

fn attaching(table: &mut Table) -> Result {
    let mut p = StdShMemProvider::new()?;
    let prefault = ShMemOptions::new().prefault();
    for (name, size, most, how) in [("64 KiB", SIZE, 0.45, SHORT), ("1 MiB", MIB, 0.30, (60, 4))] {
        let segment = p.shmem_from_bytes(&vec![1; size])?;
        let mut other = p.clone();
        table.row(
            &format!("attach + write all + drop, {name}, prefaulted"),
            "the same, plain",
            Target::AtMost(most),
            how,
            || {
                let (mut attached, _) = p.shmem_from_id_with(segment.id(), None, prefault)?;
                black_box(&mut attached).fill(2);
                Ok(())
            },
            || {
                black_box(&mut other.shmem_from_id(segment.id())?).fill(2);
                Ok(())
            },
        );
    }
    let segment = p.new_shmem(SIZE)?;
    let held = open(&path_of_memfd(std::process::id(), segment.id().as_str())?)?;
    let id = segment.id();
    table.row(
        "attach + drop by id, same process",
        "raw dup + mmap",
        Target::AtMost(1.10),
        SHORT,
        || {
            drop(black_box(p.shmem_from_id(id)?));
            Ok(())
        },
        || raw::duplicate(&held, SIZE),
    );
    let mut q = p.clone();
    table.row(
        "clone_ref + drop",
        "raw dup + mmap",
        Target::None,
        SHORT,
        || {
            drop(black_box(q.clone_ref(&segment)?));
            Ok(())
        },
        || raw::duplicate(&held, SIZE),
    );
    let holder = Holder::start(None, 0)?;
    let path = holder.path()?;
    table.row(
        "attach + drop by id, other process",
        "raw open through /proc + mmap",
        Target::AtMost(1.25),
        SHORT,
        || {
            drop(black_box(p.shmem_from_id(holder.id())?));
            Ok(())
        },
        || raw::attach(&path, SIZE),
    );
    let last = Holder::start(Some(holder.id()), 400)?;
    let id = holder.id();
    drop(holder);
    if table.wants("holder search") {
        let mut times = Vec::new();
        for _ in 0..50 {
            let start = Instant::now();
            drop(black_box(p.shmem_from_id(id)?));
            times.push(start.elapsed().as_secs_f64());
        }
        let millis = median(times.into_iter()) * 1e3;
        // From now on this process holds the segment.
        let held = p.shmem_from_id(id)?;
        let mut times = Vec::new();
        for _ in 0..50 {
            let start = Instant::now();
            drop(black_box(p.shmem_from_id(id)?));
            times.push(start.elapsed().as_secs_f64());
        }
        drop(held);
        let again = median(times.into_iter()) * 1e3;
        let files = std::fs::read_dir("/proc")?
            .flatten()
            .filter_map(|entry| std::fs::read_dir(entry.path().join("fd")).ok())
            .map(Iterator::count)
            .sum::<usize>();
        table.fact(
            "attach by id, holder search after the creator died",
            "≤ 2.5 ms at 400 descriptors, once per segment",
            format!("{millis:.2} ms at {files} descriptors; {again:.2} ms while it is held here"),
        );
    }
    drop(last);
    Ok(())
}

fn many(table: &mut Table) -> Result {
    if !table.wants("live segments") {
        return Ok(());
    }
    let count = if table.once { 100 } else { 10_000 };
    let output = Command::new(std::env::current_exe()?)
        .args(["--live", &count.to_string()])
        .output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let mut printed = printed.split_whitespace();
    let (Some(ratio), Some(bytes)) = (printed.next(), printed.next()) else {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    };
    let work = format!("{count} live segments");
    table.fact(
        &format!("{work}: the last creation"),
        "≤ 1.2 × the first",
        format!("{ratio} ×"),
    );
    table.fact(
        &format!("{work}: resident memory of each"),
        "≤ 160 B",
        format!("{bytes} B"),
    );
    Ok(())
}

/// Creates this many segments and prints how much slower the last ones were than the first, and the memory
/// of each. Runs in a separate process.
pub(crate) fn live(count: usize) -> Result {
    raise_descriptor_limit()?;
    let mut p = StdShMemProvider::new()?;
    let mut segments = Vec::with_capacity(count);
    let mut times = Vec::with_capacity(count);
    // The first segment also allocates what all of them share.
    drop(p.new_shmem(SIZE)?);
    // The pages of the vector of times exist before the measurement, so that they do not count.
    times.resize(count, 0.0);
    times.clear();
    let before = resident()?;
    for _ in 0..count {
        let start = Instant::now();
        segments.push(p.new_shmem(SIZE)?);
        times.push(start.elapsed().as_secs_f64());
    }
    let bytes = resident()?.saturating_sub(before) / count;
    let part = (count / 10).max(1);
    let first = median(times.iter().take(part).copied());
    let last = median(times.iter().rev().take(part).copied());
    println!("{:.2} {bytes}", last / first);
    Ok(())
}

/// Returns the resident anonymous memory of this process, in bytes.
fn resident() -> Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .ok_or("no RssAnon")?;
    Ok(line.trim_matches([' ', '\t', 'k', 'B']).parse::<usize>()? << 10)
}

fn clearing(table: &mut Table) -> Result {
    let mut p = MemfdShMemProvider::new()?;
    let (mut map, mut other) = (p.new_shmem(64 * MIB)?, p.new_shmem(64 * MIB)?);
    for page in 0..16 {
        map[page * 4 * MIB] = 1;
    }
    other.fill(1);
    table.row(
        "clear a map of 64 MiB, 16 pages touched",
        "memset",
        Target::Faster(40.0),
        (30, 1),
        || {
            black_box(&mut map).clear();
            Ok(())
        },
        || {
            black_box(&mut other).fill(0);
            Ok(())
        },
    );
    map.fill(1);
    table.row(
        "clear a map of 64 MiB, all of it touched",
        "memset",
        Target::None,
        LONG,
        || {
            black_box(&mut map).clear();
            Ok(())
        },
        || {
            black_box(&mut other).fill(0);
            Ok(())
        },
    );
    Ok(())
}

fn snapshots(table: &mut Table) -> Result {
    let mut p = MemfdShMemProvider::new()?;
    let mut segment = p.new_shmem(64 * MIB)?;
    segment.fill(1);
    let snapshot = p.snapshot(&segment)?;
    let mut view = snapshot.view()?;
    let image = vec![1; 64 * MIB];
    let work = "reset a snapshot's view of 64 MiB, 100 pages written";
    if !table.wants(work) {
        return Ok(());
    }
    let mut pairs = Pairs::default();
    for _ in 0..if table.once { 1 } else { 25 } {
        for page in 0..100 {
            view[page * 150 * 4096] = 2;
        }
        let start = Instant::now();
        view.reset()?;
        let ours = start.elapsed().as_secs_f64();
        let start = Instant::now();
        black_box(&mut segment).copy_from_slice(&image);
        pairs.push(ours, start.elapsed().as_secs_f64());
    }
    table.add(work, "copying all of it", Target::Faster(100.0), Ok(pairs));
    let mut pairs = Pairs::default();
    for _ in 0..if table.once { 1 } else { 25 } {
        let start = Instant::now();
        view.reset()?;
        for page in 0..100 {
            view[page * 150 * 4096] = 2;
        }
        let ours = start.elapsed().as_secs_f64();
        let start = Instant::now();
        black_box(&mut segment).copy_from_slice(&image);
        pairs.push(ours, start.elapsed().as_secs_f64());
    }
    let work = "the same, and the 100 pages written again";
    table.add(work, "copying all of it", Target::None, Ok(pairs));
    Ok(())
}

fn forks(table: &mut Table) -> Result {
    let work = "fork with 10 000 small objects, in a slab";
    if !table.wants(work) {
        return Ok(());
    }
    let count = if table.once { 100 } else { 10_000 };
    raise_descriptor_limit()?;
    let mut p = StdShMemProvider::new()?;
    let count_of_pairs = if table.once { 1 } else { 15 };
    let time = || -> Result<f64> {
        let start = Instant::now();
        two::fork()?;
        Ok(start.elapsed().as_secs_f64())
    };
    let mut slab_times = Vec::new();
    let mut single_times = Vec::new();
    {
        let slab = Slab::new(&mut p, 64, count)?;
        let objects: Vec<_> = std::iter::from_fn(|| slab.allocate()).collect();
        for _ in 0..count_of_pairs {
            slab_times.push(time()?);
        }
        drop(objects);
    }
    {
        let objects: Result<Vec<_>, _> = (0..count).map(|_| p.new_shmem(64)).collect();
        let mut objects = objects?;
        objects.iter_mut().for_each(|object| object[0] = 1);
        for _ in 0..count_of_pairs {
            single_times.push(time()?);
        }
    }
    let mut pairs = Pairs::default();
    for (slab, single) in slab_times.into_iter().zip(single_times) {
        pairs.push(slab, single);
    }
    let against = "segments of their own";
    table.add(work, against, Target::Faster(20.0), Ok(pairs));
    Ok(())
}

fn two_processes(table: &mut Table) -> Result {
    for (work, against, by) in [
        (
            "round trip over a word, spinning",
            "spinning by hand",
            By::Spinning,
        ),
        (
            "round trip over a word, sleeping",
            "futex by hand",
            By::Sleeping,
        ),
    ] {
        if table.wants(work) && !table.once {
            let found = two::round_trip(by).map_err(|error| error.to_string());
            table.add(work, against, Target::AtMost(1.10), found);
        }
    }
    for (work, by) in [
        ("pass a turn and get it back, spinning", By::Spinning),
        ("pass a turn and get it back, sleeping", By::Sleeping),
    ] {
        if table.wants(work) && !table.once {
            let found = two::turns(by).map_err(|error| error.to_string());
            table.add(work, "turns by hand", Target::AtMost(1.10), found);
        }
    }
    Ok(())
}
