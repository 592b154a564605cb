//! The life of a segment that two clients share, in three parts: [`Life`].

use std::path::Path;

use bench::{Result, SIZE};
use shmem_providers::{
    MemfdBackend, MemfdShMemProvider, ServedShMemProvider, ShMem, ShMemProvider,
};

/// Two clients of a service in one process: one creates segments, the other attaches to them.
pub(crate) trait Life {
    /// A hold on a segment.
    type Hold;

    /// The first client creates a segment.
    fn create(&mut self) -> Result<Self::Hold>;

    /// The second client attaches to it.
    fn attach(&mut self, created: &Self::Hold) -> Result<Self::Hold>;

    /// Both release it.
    fn release(&mut self, created: Self::Hold, attached: Self::Hold) -> Result;

    /// Runs all three parts.
    fn whole(&mut self) -> Result {
        let created = self.create()?;
        let attached = self.attach(&created)?;
        self.release(created, attached)
    }
}

type Served = ServedShMemProvider<MemfdBackend>;

/// Two providers of the crate.
pub(crate) struct Ours<P: ShMemProvider> {
    creating: P,
    attaching: P,
}

impl Ours<Served> {
    /// Clients of the service at this address.
    pub(crate) fn served(address: &Path) -> Self {
        Self {
            creating: Served::at(address),
            attaching: Served::at(address),
        }
    }
}

impl Ours<MemfdShMemProvider> {
    /// The same memory, without a service.
    pub(crate) fn alone() -> Self {
        Self {
            creating: MemfdShMemProvider::default(),
            attaching: MemfdShMemProvider::default(),
        }
    }
}

impl<P: ShMemProvider> Life for Ours<P> {
    type Hold = P::ShMem;

    fn create(&mut self) -> Result<Self::Hold> {
        Ok(self.creating.new_shmem(SIZE)?)
    }

    fn attach(&mut self, created: &Self::Hold) -> Result<Self::Hold> {
        Ok(self.attaching.shmem_from_id(created.id())?)
    }

    fn release(&mut self, created: Self::Hold, attached: Self::Hold) -> Result {
        drop(attached);
        drop(created);
        Ok(())
    }
}
