//! [`WriteWitness`]: whether a forked child has inherited the mappings of this process.
//!
//! The kernel tells whether a file is mapped for writing only by refusing to seal it, and whoever asks
//! must have given up the own mapping. A segment with a single writer cannot be mapped again. So another
//! file, which nobody else uses, is mapped and unmapped together with it, and is asked first.

use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use crate::memory::mapping::Mapping;
use crate::sys::{above_stdio_quietly, map_fd};

/// A mapping for writing that every forked child inherits, until it drops the witness, executes another
/// program or ends. No memory is ever allocated for it.
#[derive(Debug)]
pub(crate) struct WriteWitness {
    /// `None` if it could not be mapped again.
    mapping: Option<Mapping>,
    fd: OwnedFd,
}

impl WriteWitness {
    /// Returns `None` if the system refuses.
    pub(crate) fn new() -> Option<Self> {
        const FLAGS: MemfdFlags = MemfdFlags::CLOEXEC.union(MemfdFlags::ALLOW_SEALING);

        let create = |flags| memfd_create("shmem-witness", flags);
        let fd = create(FLAGS | MemfdFlags::NOEXEC_SEAL).or_else(|_| create(FLAGS));
        let fd = fd.and_then(above_stdio_quietly).ok()?;
        ftruncate(&fd, 1).ok()?;
        let mapping = map_fd(&fd, 1).ok();
        mapping.is_some().then_some(Self { mapping, fd })
    }

    /// Returns `true` if no child has the witness. It has done its duty then.
    pub(crate) fn is_alone(&mut self) -> bool {
        self.mapping = None;
        let is_alone = fcntl_add_seals(&self.fd, SealFlags::WRITE).is_ok();
        if !is_alone {
            self.mapping = map_fd(&self.fd, 1).ok();
        }
        is_alone
    }
}
