//! [`ForkWitness`]: finds out whether children that this process has forked are alive.
//!
//! A forked child inherits every mapping and descriptor, which the parent cannot see. But it also
//! inherits attached System V segments, and for these the kernel counts the processes (`shmctl(2)`,
//! `shm_nattch`) until the child ends or executes another program. A small segment that is attached
//! once therefore counts every child that could have inherited what was mapped after it.
//!
//! The answer is valid for the moment of the call. A child that is forked later inherits what is
//! mapped then, so the caller first ensures that nothing else in this process uses the segment in
//! question. While a `fork()` copies the memory, the child is counted before it can run, and a
//! thread of the parent that writes to memory that was already copied waits until the copy is
//! complete.

use crate::backend::{Backend, Cleanup, Created, Request};
use crate::backends::sysv::{self, SystemVBackend};
use crate::options::OptionReport;
use crate::sys::attachments::{Identity, identify};

/// Counts the children that were forked since it was created.
#[derive(Debug)]
pub(crate) struct ForkWitness {
    mark: Created<sysv::Shmid>,
    /// Detects that this process has moved to another IPC namespace, where the number of the mark
    /// is that of another segment, which says nothing about children.
    identity: Identity,
}

impl ForkWitness {
    /// Returns `None` if System V shared memory is not available, or if it is not freed with its
    /// last process.
    pub(crate) fn new() -> Option<Self> {
        /// At most the size of the smallest page, so that a random size costs nothing.
        const MAX_SIZE: u64 = 4096;

        let size = 1 + crate::sys::nonce().ok()? % MAX_SIZE;
        let request = Request::zeroed(usize::try_from(size).ok()?);
        let mark = SystemVBackend
            .create(request, &mut OptionReport::default())
            .ok()?;
        let (identity, _) = identify(mark.handle.number())?;
        (sysv::CLEANUP == Cleanup::Kernel).then_some(Self { mark, identity })
    }

    /// Returns `true` if no child has the memory of this process at this moment.
    pub(crate) fn no_children_alive(&self) -> bool {
        identify(self.mark.handle.number()) == Some((self.identity, 1))
    }
}
