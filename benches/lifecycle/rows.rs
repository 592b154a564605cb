//! The rows of the table.

use core::cell::RefCell;
use core::ffi::CStr;
use core::hint::black_box;

use shmem_providers::{
    Access, Error, MemfdShMemProvider, MmapShMemProvider, ShMem, ShMemId, ShMemProvider,
    StdShMemProvider, UnixShMemProvider,
};

use crate::calls::{MECHANISMS, PARTS, between_marks, part_label};
use crate::compare::Bench;
use crate::holder::{Holder, descriptor};
use crate::{Result, raw};

/// The size of the segments, in bytes.
pub(crate) const SIZE: usize = 64 << 10;

/// How many operations make a batch. As many as the crate fetches random numbers at once, so that
/// each batch has its share of that.
const BATCH: u32 = 32;

/// All rows.
pub(crate) fn all(bench: &mut Bench<'_>) {
    creations::<StdShMemProvider>(bench, "default", raw::memfd);
    creations::<MemfdShMemProvider>(bench, "memfd", raw::memfd);
    creations::<UnixShMemProvider>(bench, "System V", raw::system_v);
    creations::<MmapShMemProvider>(bench, "POSIX", raw::posix);

    attempt(bench, "attach + drop, default", attach::<StdShMemProvider>);
    attempt(bench, "attach + drop, memfd", attach::<MemfdShMemProvider>);
    attempt(bench, "attach + drop, System V", attach_system_v);
    attempt(bench, "attach + drop, POSIX", attach_posix);
    attempt(bench, "attach + drop, another process's", attach_elsewhere);
    attempt(bench, "attach + drop, a dead process's", attach_orphan);
    attempt(bench, "clone_ref + drop, default", clone_ref);

    for (work, size) in [("4 KiB", 4 << 10), ("64 KiB", SIZE), ("1 MiB", 1 << 20)] {
        attempt(bench, work, |bench, work| copies(bench, work, size));
    }
    let new = || {
        black_box(StdShMemProvider::new()?);
        Ok(())
    };
    bench.row("new provider (raw: nothing)", 1000, new, || Ok(()));
}

/// The parts of a segment's life, one by one, for the second table.
pub(crate) fn splits() {
    let [default, memfd, system_v, posix] = MECHANISMS;
    // What fails is missing between the marks, and so in the table.
    let _ = split::<StdShMemProvider>(default);
    let _ = split::<MemfdShMemProvider>(memfd);
    let _ = split::<UnixShMemProvider>(system_v);
    let _ = split::<MmapShMemProvider>(posix);
}

fn split<P: ShMemProvider>(mechanism: &str) -> Result {
    let mut provider = P::new()?;
    let [create, attach, end] = PARTS.map(|part| part_label(part, mechanism));
    for _ in 0..4 {
        let segment = between_marks(&create, || provider.new_shmem(SIZE))?;
        let again = between_marks(&attach, || provider.shmem_from_id(segment.id()))?;
        drop(again);
        between_marks(&end, || drop(segment));
    }
    Ok(())
}

/// Prints the row as skipped if what it needs cannot be had.
fn attempt(bench: &mut Bench<'_>, work: &str, rows: impl FnOnce(&mut Bench<'_>, &str) -> Result) {
    if let Err(reason) = rows(bench, work) {
        bench.row(work, 1, || Err(reason.to_string().into()), || Ok(()));
    }
}

fn creations<P: ShMemProvider>(bench: &mut Bench<'_>, mechanism: &str, twin: fn(usize) -> Result) {
    for (work, written) in [("create + drop", 0), ("create + write all + drop", SIZE)] {
        let mut provider = P::default();
        let ours = || {
            let mut segment = provider.new_shmem(SIZE)?;
            black_box(&mut segment)[..written].fill(1);
            Ok(())
        };
        let raw = || twin(written);
        bench.row(&format!("{work}, {mechanism}"), BATCH, ours, raw);
    }
}

/// Attaching to the segment of this id, and dropping it.
fn by_id<P: ShMemProvider>(id: ShMemId) -> impl FnMut() -> Result {
    let mut provider = P::default();
    move || {
        black_box(provider.shmem_from_id(id)?);
        Ok(())
    }
}

/// To a segment of this process itself.
fn attach<P: ShMemProvider>(bench: &mut Bench<'_>, work: &str) -> Result {
    let segment = P::new()?.new_shmem(SIZE)?;
    let path = descriptor(std::process::id(), segment.id())?;
    let held = raw::open(&path)?;
    let [open, ask, dup] = ["open", "open, ask", "dup"].map(|twin| format!("{work} (raw: {twin})"));
    let ours = || by_id::<P>(segment.id());
    bench.row(&open, BATCH, ours(), || raw::attach(&path));
    bench.row(&ask, BATCH, ours(), || raw::attach_asking(&path));
    bench.row(&dup, BATCH, ours(), || raw::duplicate(&held));
    Ok(())
}

fn attach_system_v(bench: &mut Bench<'_>, work: &str) -> Result {
    let segment = UnixShMemProvider::new()?.new_shmem(SIZE)?;
    let shmid = segment.id().as_int().ok_or("the id is no shmid")?;
    let ours = by_id::<UnixShMemProvider>(segment.id());
    bench.row(work, BATCH, ours, || raw::attach_system_v(shmid));
    Ok(())
}

fn attach_posix(bench: &mut Bench<'_>, work: &str) -> Result {
    let segment = MmapShMemProvider::new()?.new_shmem(SIZE)?;
    let id = segment.id();
    let name = CStr::from_bytes_until_nul(id.as_array())?;
    let ours = by_id::<MmapShMemProvider>(id);
    bench.row(work, BATCH, ours, || raw::attach_posix(name));
    Ok(())
}

fn attach_elsewhere(bench: &mut Bench<'_>, work: &str) -> Result {
    let holder = Holder::start(None)?;
    let path = holder.descriptor()?;
    let ours = by_id::<StdShMemProvider>(holder.id);
    let work = format!("{work} (raw: open)");
    bench.row(&work, BATCH, ours, || raw::attach(&path));
    Ok(())
}

/// The crate has to look for the remaining holder; its twin is told where to look.
fn attach_orphan(bench: &mut Bench<'_>, work: &str) -> Result {
    let creator = Holder::start(None)?;
    let holder = Holder::start(Some(creator.id))?;
    drop(creator);
    let path = holder.descriptor()?;
    let ours = by_id::<StdShMemProvider>(holder.id);
    let work = format!("{work} (raw: told the holder)");
    bench.row(&work, 2, ours, || raw::attach(&path));
    Ok(())
}

fn clone_ref(bench: &mut Bench<'_>, work: &str) -> Result {
    let mut provider = StdShMemProvider::new()?;
    let segment = provider.new_shmem(SIZE)?;
    let held = raw::open(&descriptor(std::process::id(), segment.id())?)?;
    let ours = || {
        black_box(provider.clone_ref(&segment)?);
        Ok(())
    };
    bench.row(work, BATCH, ours, || raw::duplicate(&held));
    Ok(())
}

/// Bytes in and out by the way that has no contract, against `memcpy` and `memset`.
fn copies(bench: &mut Bench<'_>, work: &str, size: usize) -> Result {
    type Ours = fn(Access<'_>, &mut [u8]) -> Result<(), Error>;
    type Raw = fn(&mut [u8], &mut [u8]);
    let operations: [(&str, Ours, Raw); 3] = [
        (
            "read_at",
            |from, to| from.read_at(0, to),
            |from, to| to.copy_from_slice(from),
        ),
        (
            "write_at",
            |to, from| to.write_at(0, from),
            |to, from| to.copy_from_slice(from),
        ),
        (
            "fill",
            |to, _| {
                to.fill(1);
                Ok(())
            },
            |to, _| to.fill(1),
        ),
    ];
    // Both sides use the same memory, so that its place is no advantage.
    let memory = RefCell::new((StdShMemProvider::new()?.new_shmem(size)?, vec![1; size]));
    for (name, ours, raw) in operations {
        let ours = || {
            let (segment, bytes) = &mut *memory.borrow_mut();
            Ok(black_box(ours)(segment.access(), bytes)?)
        };
        let raw = || {
            let (segment, bytes) = &mut *memory.borrow_mut();
            black_box(raw)(segment, bytes);
            Ok(())
        };
        bench.row(&format!("{name}, {work}"), BATCH, ours, raw);
    }
    Ok(())
}
