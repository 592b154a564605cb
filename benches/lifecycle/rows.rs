//! The rows of the table.

use core::cell::RefCell;
use core::ffi::CStr;
use core::hint::black_box;

use bench::process::Holder;
use bench::raw::{open, path_of_memfd};
use bench::strace::between_marks;
use bench::{Result, SIZE};
use shmem_providers::{
    Access, Error, MemfdShMemProvider, MmapShMemProvider, ShMem, ShMemId, ShMemProvider,
    StdShMemProvider, UnixShMemProvider,
};

use crate::raw;
use crate::table::{MECHANISMS, PARTS, Table, part_label};

/// The number of operations in a batch. The crate fetches random numbers for 32 memfds at once, so each
/// batch includes the cost of that exactly once.
const BATCH: u32 = 32;

/// All rows.
pub(crate) fn all(table: &mut Table<'_>) {
    creations::<StdShMemProvider>(table, "default", raw::memfd);
    creations::<MemfdShMemProvider>(table, "memfd", raw::memfd);
    creations::<UnixShMemProvider>(table, "System V", raw::system_v);
    creations::<MmapShMemProvider>(table, "POSIX", raw::posix);

    attempt(table, "attach + drop, default", attach::<StdShMemProvider>);
    attempt(table, "attach + drop, memfd", attach::<MemfdShMemProvider>);
    attempt(table, "attach + drop, System V", attach_system_v);
    attempt(table, "attach + drop, POSIX", attach_posix);
    attempt(table, "attach + drop, another process's", attach_elsewhere);
    attempt(table, "attach + drop, a dead process's", attach_orphan);
    attempt(table, "clone_ref + drop, default", clone_ref);

    for (work, size) in [("4 KiB", 4 << 10), ("64 KiB", SIZE), ("1 MiB", 1 << 20)] {
        attempt(table, work, |table, work| copies(table, work, size));
    }
    let new = || {
        black_box(StdShMemProvider::new()?);
        Ok(())
    };
    table.row("new provider (raw: nothing)", 1000, new, || Ok(()));
}

/// Runs the parts of a segment's life one by one, for the second table.
pub(crate) fn splits() {
    let [default, memfd, system_v, posix] = MECHANISMS;
    // Where one fails there are no calls between the marks, and the table says so.
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

/// Runs the rows. If what they need is not available, prints a row that says so.
fn attempt(table: &mut Table<'_>, work: &str, rows: impl FnOnce(&mut Table<'_>, &str) -> Result) {
    if let Err(reason) = rows(table, work) {
        table.row(work, 1, || Err(reason.to_string().into()), || Ok(()));
    }
}

fn creations<P: ShMemProvider>(table: &mut Table<'_>, mechanism: &str, twin: fn(usize) -> Result) {
    for (work, written) in [("create + drop", 0), ("create + write all + drop", SIZE)] {
        let mut provider = P::default();
        let ours = || {
            let mut segment = provider.new_shmem(SIZE)?;
            black_box(&mut segment)[..written].fill(1);
            Ok(())
        };
        let raw = || twin(written);
        table.row(&format!("{work}, {mechanism}"), BATCH, ours, raw);
    }
}

/// Returns the operation that attaches to the segment with this id and drops it.
fn by_id<P: ShMemProvider>(id: ShMemId) -> impl FnMut() -> Result {
    let mut provider = P::default();
    move || {
        black_box(provider.shmem_from_id(id)?);
        Ok(())
    }
}

/// Attaches to a segment of this process.
fn attach<P: ShMemProvider>(table: &mut Table<'_>, work: &str) -> Result {
    let segment = P::new()?.new_shmem(SIZE)?;
    let path = path_of_memfd(std::process::id(), segment.id().as_str())?;
    let held = open(&path)?;
    let [plain, ask, dup] =
        ["open", "open, ask", "dup"].map(|twin| format!("{work} (raw: {twin})"));
    let ours = || by_id::<P>(segment.id());
    table.row(&plain, BATCH, ours(), || raw::attach(&path));
    table.row(&ask, BATCH, ours(), || raw::attach_asking(&path));
    table.row(&dup, BATCH, ours(), || raw::duplicate(&held));
    Ok(())
}

fn attach_system_v(table: &mut Table<'_>, work: &str) -> Result {
    let segment = UnixShMemProvider::new()?.new_shmem(SIZE)?;
    let shmid = segment.id().as_int().ok_or("the id is no shmid")?;
    let ours = by_id::<UnixShMemProvider>(segment.id());
    table.row(work, BATCH, ours, || raw::attach_system_v(shmid));
    Ok(())
}

fn attach_posix(table: &mut Table<'_>, work: &str) -> Result {
    let segment = MmapShMemProvider::new()?.new_shmem(SIZE)?;
    let id = segment.id();
    let name = CStr::from_bytes_until_nul(id.as_array())?;
    let ours = by_id::<MmapShMemProvider>(id);
    table.row(work, BATCH, ours, || raw::attach_posix(name));
    Ok(())
}

fn attach_elsewhere(table: &mut Table<'_>, work: &str) -> Result {
    let holder = Holder::start(None, 0)?;
    let path = holder.path()?;
    let ours = by_id::<StdShMemProvider>(holder.id());
    let work = format!("{work} (raw: open)");
    table.row(&work, BATCH, ours, || raw::attach(&path));
    Ok(())
}

/// Attaches to a segment whose creator has ended. The crate has to search for the remaining holder; its twin
/// is told the path.
fn attach_orphan(table: &mut Table<'_>, work: &str) -> Result {
    let creator = Holder::start(None, 0)?;
    let holder = Holder::start(Some(creator.id()), 0)?;
    drop(creator);
    let path = holder.path()?;
    let ours = by_id::<StdShMemProvider>(holder.id());
    let work = format!("{work} (raw: told the holder)");
    table.row(&work, 2, ours, || raw::attach(&path));
    Ok(())
}

fn clone_ref(table: &mut Table<'_>, work: &str) -> Result {
    let mut provider = StdShMemProvider::new()?;
    let segment = provider.new_shmem(SIZE)?;
    let held = open(&path_of_memfd(std::process::id(), segment.id().as_str())?)?;
    let ours = || {
        let _ = black_box(provider.clone_ref(&segment)?);
        Ok(())
    };
    table.row(work, BATCH, ours, || raw::duplicate(&held));
    Ok(())
}

/// Compares the copies of `Access` with `memcpy` and `memset`.
fn copies(table: &mut Table<'_>, work: &str, size: usize) -> Result {
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
    // Both sides use the same memory, so that its address is no advantage.
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
        table.row(&format!("{name}, {work}"), BATCH, ours, raw);
    }
    Ok(())
}
