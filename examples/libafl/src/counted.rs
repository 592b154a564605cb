//! A provider of a program's own, as it was written for 0.16 of the original: it delegates what that
//! demanded, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use libafl::Error;
use libafl_bolts::shmem::{ShMemId, ShMemProvider};

/// Counts the segments that are made.
#[derive(Clone, Debug, Default)]
pub struct Counted<SP> {
    inner: SP,
    made: Arc<AtomicUsize>,
}

impl<SP> Counted<SP> {
    /// How many its clones have made, together with it.
    pub fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }
}

impl<SP: ShMemProvider> ShMemProvider for Counted<SP> {
    type ShMem = SP::ShMem;

    fn new() -> Result<Self, Error> {
        Ok(Self {
            inner: SP::new()?,
            made: Arc::default(),
        })
    }

    fn new_shmem(&mut self, map_size: usize) -> Result<Self::ShMem, Error> {
        self.made.fetch_add(1, Ordering::Relaxed);
        self.inner.new_shmem(map_size)
    }

    fn shmem_from_id_and_size(&mut self, id: ShMemId, size: usize) -> Result<Self::ShMem, Error> {
        self.inner.shmem_from_id_and_size(id, size)
    }
}
