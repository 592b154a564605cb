//! What a worker and the parent have in common while both run: a record in the segment of results.
//!
//! Both touch it at once, so it is accessed by atomics and copies only, and never as a slice.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use shmem_providers::Access;

use super::Result;
use super::digest::{Digest, MAP};

/// In how many steps a part is done, however large it is: the unit of progress.
pub(super) const STEPS: u32 = 256;

const CONTROL: usize = 3 * size_of::<u32>();

/// The record of one worker. New segments are zero, and so is a record to begin with.
pub(super) struct Record<'a> {
    /// For how many steps the result is in the record.
    kept: &'a AtomicU32,
    /// How many steps are done, for the eye: nothing may be concluded from it.
    progress: &'a AtomicU32,
    crc: &'a AtomicU32,
    map: Access<'a>,
}

impl<'a> Record<'a> {
    /// In bytes.
    pub(super) const SIZE: usize = CONTROL + MAP;

    /// The record at `index` of the segment of results.
    pub(super) fn of(results: Access<'a>, index: usize) -> Result<Self> {
        let record = results.range(index.saturating_mul(Self::SIZE), Self::SIZE)?;
        let control: &[AtomicU32; 3] = record.range(0, CONTROL)?.as_atomic_u32()?.try_into()?;
        let [kept, progress, crc] = control;
        Ok(Self {
            kept,
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

    pub(super) fn kept(&self) -> u32 {
        // A peer wrote it: it is believed no more than it can be.
        self.kept.load(Acquire).min(STEPS)
    }

    /// Puts the result for the first `steps` into the record. Who then finds `kept` to be as many
    /// finds all of it.
    pub(super) fn keep(&self, steps: u32, digest: &Digest) -> Result<()> {
        self.map.write_at(0, &digest.map)?;
        self.crc.store(digest.crc(), Relaxed);
        self.kept.store(steps, Release);
        Ok(())
    }

    /// The result for the steps kept, which are the first `len` bytes of the part.
    pub(super) fn result(&self, len: usize) -> Result<Digest> {
        let mut digest = Digest::with_crc(self.crc.load(Relaxed), len);
        self.map.read_at(0, &mut digest.map)?;
        Ok(digest)
    }
}
