//! [`ForkWitness`]: whether children that were forked by this process are about.
//!
//! A child inherits every mapping and descriptor, and nothing tells its parent. But it inherits what
//! is attached of System V shared memory as well, and there the kernel counts
//! (`shmctl(2)`, `shm_nattch`), until the child ends or executes another program. So a small segment
//! that is attached once tells of everybody who could have inherited what was mapped since.
//!
//! The answer is true of the moment of the question. A child that is forked later has what is mapped
//! then, so whoever asks has to make sure before that nobody else in this process uses what it asks
//! for. While a `fork()` copies the memory, the child is counted before it can run, and a thread
//! of the parent that writes what was copied already waits until all of it is.

use crate::backend::{Backend, Cleanup, Created, Request};
use crate::backends::sysv::{self, SystemVBackend};
use crate::sys::attachments::{Identity, identify};

/// Knows of the children that were forked since it was made.
#[derive(Debug)]
pub(crate) struct ForkWitness {
    mark: Created<sysv::Shmid>,
    /// In another IPC namespace, to which this process may move, the number of the mark is that of
    /// another segment, which says nothing about children.
    identity: Identity,
}

impl ForkWitness {
    /// `None` if there is no System V shared memory to be had, or if it does not end by itself.
    pub(crate) fn new() -> Option<Self> {
        /// As large as the smallest page, so that the size costs nothing and can be anything.
        const LARGEST: u64 = 4096;

        let size = 1 + crate::sys::nonce().ok()? % LARGEST;
        let mark = SystemVBackend
            .create(Request::zeroed(usize::try_from(size).ok()?))
            .ok()?;
        let (identity, _) = identify(mark.handle.number())?;
        (sysv::CLEANUP == Cleanup::Kernel).then_some(Self { mark, identity })
    }

    /// Whether no such child has its parent's memory at this moment.
    pub(crate) fn no_children_alive(&self) -> bool {
        identify(self.mark.handle.number()) == Some((self.identity, 1))
    }
}
