//! [`Kin`]: whether children that were forked by this process are about.
//!
//! A child inherits every mapping and descriptor, and nothing tells its parent. But it inherits what
//! is attached of System V shared memory as well, and there the kernel counts
//! (`shmctl(2)`, `shm_nattch`), until the child ends or executes another program. So a segment of
//! one byte that is attached once tells of everybody who could have inherited what was mapped since.

use crate::providers::sysv::{self, SystemV};
use crate::segment::{Fresh, Room};

/// Knows of the children that were forked since it was made.
#[derive(Debug)]
pub(crate) struct Kin {
    mark: Fresh<sysv::Shmid>,
}

impl Kin {
    /// `None` if there is no System V shared memory to be had, or if it does not end by itself.
    pub(crate) fn new() -> Option<Self> {
        let mark = SystemV.create(1).ok()?;
        (sysv::END == crate::segment::End::WithLastHolder).then_some(Self { mark })
    }

    /// Whether no such child has its parent's memory any more.
    pub(crate) fn is_alone(&self) -> bool {
        SystemV.seclude(&self.mark.handle)
    }
}
