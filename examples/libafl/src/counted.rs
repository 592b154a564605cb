//! A provider that a program implements, as it was written for 0.16: it delegates the methods that 0.16
//! required, and no others. `libafl/tests/written_for_0_16.rs` tests the same type without LLMP.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use libafl::Error;
use libafl_bolts::shmem::{ShMemId, ShMemProvider};

/// Counts the segments that are created.
#[derive(Clone, Debug, Default)]
pub struct Counted<SP> {
    inner: SP,
    created: Arc<AtomicUsize>,
}

impl<SP> Counted<SP> {
    /// Returns the number of segments that this provider and its clones have created.
    pub fn created(&self) -> usize {
        self.created.load(Ordering::Relaxed)
    }
}

impl<SP: ShMemProvider> ShMemProvider for Counted<SP> {
    type ShMem = SP::ShMem;

    fn new() -> Result<Self, Error> {
        Ok(Self {
            inner: SP::new()?,
            created: Arc::default(),
        })
    }

    fn new_shmem(&mut self, map_size: usize) -> Result<Self::ShMem, Error> {
        self.created.fetch_add(1, Ordering::Relaxed);
        self.inner.new_shmem(map_size)
    }

    fn shmem_from_id_and_size(&mut self, id: ShMemId, size: usize) -> Result<Self::ShMem, Error> {
        self.inner.shmem_from_id_and_size(id, size)
    }
}
