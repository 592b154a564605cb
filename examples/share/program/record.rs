//! [`Record`]: the part of the segment of results that a worker and the parent access at the same time.
//!
//! They use atomics and copies only, never a slice.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use shmem_providers::Access;

use super::Result;
use super::digest::{Digest, MAP};

/// The number of steps in which a part of any size is done: the unit of progress.
pub(super) const STEPS: u32 = 256;

const CONTROL: usize = 3 * size_of::<u32>();

/// The record of one worker. It starts as zeros, as a new segment does.
pub(super) struct Record<'a> {
    /// The number of steps whose result is in the record.
    stored: &'a AtomicU32,
    /// The number of steps done, for the progress bar only: it is not ordered with the result.
    progress: &'a AtomicU32,
    crc: &'a AtomicU32,
    map: Access<'a>,
}

impl<'a> Record<'a> {
    /// The size of a record in bytes.
    pub(super) const SIZE: usize = CONTROL + MAP;

    /// Returns the record at `index` of the segment of results.
    pub(super) fn of(results: Access<'a>, index: usize) -> Result<Self> {
        let record = results.range(index.saturating_mul(Self::SIZE), Self::SIZE)?;
        let control: &[AtomicU32; 3] = record.range(0, CONTROL)?.as_atomic_u32()?.try_into()?;
        let [stored, progress, crc] = control;
        Ok(Self {
            stored,
            progress,
            crc,
            map: record.range(CONTROL, MAP)?,
        })
    }

    pub(super) fn progress(&self) -> u32 {
        self.progress.load(Relaxed)
    }

    pub(super) fn set_progress(&self, steps: u32) {
        self.progress.store(steps, Relaxed);
    }

    /// Returns the number of steps whose result is in the record.
    pub(super) fn stored(&self) -> u32 {
        // Another process has written the number, so it may be anything.
        self.stored.load(Acquire).min(STEPS)
    }

    /// Stores the result of the first `steps` steps. A process that reads this number from `stored` also sees the
    /// result.
    pub(super) fn store(&self, steps: u32, digest: &Digest) -> Result<()> {
        self.map.write_at(0, &digest.map)?;
        self.crc.store(digest.crc(), Relaxed);
        self.stored.store(steps, Release);
        Ok(())
    }

    /// Returns the stored result, which is that of the first `len` bytes of the part.
    pub(super) fn result(&self, len: usize) -> Result<Digest> {
        let mut digest = Digest::with_crc(self.crc.load(Relaxed), len);
        self.map.read_at(0, &mut digest.map)?;
        Ok(digest)
    }
}
