//! Allocates the memory of objects before it is used: `fallocate(2)`.

use core::ops::Range;

use rustix::fd::AsFd;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{self, Errno};

use super::limits;
use crate::error::limit::Limit;
use crate::error::{Error, Result, Subject};

/// How much memory is allocated by one call. A signal undoes a whole call, so in a program with a
/// fast timer a large one would never succeed.
pub(super) const STEP: u64 = 4 << 20;

/// How much is allocated by one call after signals interrupted others: one page of any machine.
const SMALLEST_STEP: u64 = 64 << 10;

/// Returns an error for more memory than the machine has. Trying to allocate it would use up all
/// there is.
pub(super) fn check_memory(size: usize) -> Result<()> {
    // Every machine has memory for one step, so the total need not be queried.
    if size as u64 <= STEP {
        return Ok(());
    }
    let total = limits::ram_and_swap();
    if size as u64 > total {
        return Err(no_memory(size, Limit::Memory { total }));
    }
    Ok(())
}

/// As [`check_memory`], for memory that is free now.
pub(super) fn check_free_memory(size: usize) -> Result<()> {
    check_memory(size)?;
    match limits::free_memory() {
        Some(free) if size as u64 > STEP.max(free) => {
            let total = limits::ram_and_swap();
            Err(no_memory(size, Limit::FreeMemory { free, total }))
        }
        _ => Ok(()),
    }
}

fn no_memory(size: usize, limit: Limit) -> Error {
    Error::Os {
        call: "fallocate",
        errno: Errno::NOSPC.raw_os_error(),
        subject: Subject::Bytes(size),
        limit: Some(limit),
    }
}

/// Allocates the memory of a range, which may be beyond the end of the object, with at most `step`
/// bytes in a call. The content does not change.
pub(super) fn allocate(fd: impl AsFd, range: Range<u64>, mut step: u64) -> io::Result<()> {
    let mut start = range.start;
    while start < range.end {
        let len = step.min(range.end - start);
        match fallocate(&fd, FallocateFlags::KEEP_SIZE, start, len) {
            Ok(()) => start += len,
            // A call that takes longer than the time between two signals never completes.
            Err(Errno::INTR) => step = (step.min(2 * STEP) / 2).max(SMALLEST_STEP),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
