//! [`Segment`]: a segment of one backend, mapped into this process.

use core::fmt;
use core::ops::{Deref, DerefMut};

#[cfg(feature = "std")]
use crate::backend::Exclusive;
use crate::backend::{Backend, Cleanup, Created};
#[cfg(feature = "std")]
use crate::error::Result;
use crate::id::ShMemId;
use crate::memory::access::Access;
use crate::memory::mapping::Mapping;
use crate::memory::read_only::ReadOnly;
use crate::process::Owner;
#[cfg(feature = "std")]
use crate::sys::BorrowedFd;
use crate::sys::WriteWitness;
use crate::traits::ShMem;

/// How a segment came into this process, and so what dropping it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ownership {
    /// Another process, or another segment in this one, created it.
    Attached,
    /// Created here. The kernel frees it.
    Created,
    /// Created here. The owner, but none of its forked children, removes the name.
    UnlinkBy(Owner),
}

/// A segment of one backend, mapped into this process.
///
/// Dropping it releases this process's hold. It dereferences to its bytes, under the contract of
/// [`ShMem`](ShMem#the-contract-of-the-slice); [`ShMem::access`] has no such contract.
#[must_use = "dropping a segment releases it: keep it until the other process has attached"]
pub struct Segment<B: Backend> {
    pub(crate) mapping: Mapping,
    pub(crate) id: ShMemId,
    ownership: Ownership,
    /// `None` once released.
    pub(crate) handle: Option<B::Handle>,
    /// Of a segment with a single writer: inherited by the processes that inherit the mapping.
    witness: Option<WriteWitness>,
    pub(crate) backend: B,
}

impl<B: Backend> Segment<B> {
    /// Returns `true` if this process created the segment, and `false` if it attached to it.
    #[must_use]
    pub fn is_owner(&self) -> bool {
        self.ownership != Ownership::Attached
    }

    /// Takes over a segment that the backend has just created.
    pub(crate) fn from_created(created: Created<B::Handle>, backend: &B) -> Self {
        let ownership = match created.cleanup {
            Cleanup::Kernel => Ownership::Created,
            Cleanup::Unlink => Ownership::UnlinkBy(Owner::current()),
        };
        Self {
            mapping: created.mapping,
            id: created.id,
            ownership,
            handle: Some(created.handle),
            witness: None,
            backend: backend.clone(),
        }
    }

    /// Takes over a segment that exists already.
    pub(crate) fn attached(handle: B::Handle, id: ShMemId, mapping: Mapping, backend: &B) -> Self {
        Self {
            mapping,
            id,
            ownership: Ownership::Attached,
            handle: Some(handle),
            witness: None,
            backend: backend.clone(),
        }
    }

    /// Returns access to the bytes that can be shared within this process as well.
    ///
    /// # Safety
    ///
    /// While the access lives, the caller creates no slice of the segment.
    #[cfg(feature = "std")]
    #[allow(unsafe_code)]
    pub(crate) unsafe fn shared_access(&self) -> Access<'_> {
        // SAFETY: the caller ensures that no slice exists while the access lives.
        unsafe { self.mapping.shared_access() }
    }

    pub(crate) fn backend(&self) -> &B {
        &self.backend
    }

    /// Returns the descriptor, unless the segment is released or its mechanism has none.
    #[cfg(feature = "std")]
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.backend.descriptor(self.handle.as_ref()?)
    }

    /// Returns the same segment, which can tell from now on whether a forked child has it mapped.
    pub(crate) fn with_witness(mut self) -> Self {
        self.witness = WriteWitness::new();
        self
    }

    /// Returns `false` if a forked child has the segment mapped. If it is not known, returns `true`.
    pub(crate) fn is_alone(&mut self) -> bool {
        self.witness.as_mut().is_none_or(WriteWitness::is_alone)
    }

    /// Replaces the mapping by one that can only be read, and returns the segment as what it is then.
    pub(crate) fn into_read_only(mut self, mapping: Mapping) -> ReadOnly<Self> {
        self.mapping = mapping;
        self.witness = None;
        ReadOnly::new(self)
    }

    /// Keeps the name when the segment is dropped.
    pub(crate) fn keep_name(&mut self) {
        if let Ownership::UnlinkBy(_) = self.ownership {
            self.ownership = Ownership::Created;
        }
    }

    /// Moves the segment out, and leaves a released one behind.
    #[cfg(feature = "std")]
    pub(crate) fn take(&mut self) -> Self {
        Self {
            mapping: core::mem::replace(&mut self.mapping, Mapping::empty()),
            id: self.id,
            ownership: self.ownership,
            handle: self.handle.take(),
            witness: self.witness.take(),
            backend: self.backend.clone(),
        }
    }

    /// Unmaps the segment, and removes its name if this process has to.
    pub(crate) fn release(&mut self) {
        self.mapping = Mapping::empty();
        self.witness = None;
        let Some(handle) = self.handle.take() else {
            return;
        };
        if matches!(self.ownership, Ownership::UnlinkBy(owner) if owner.is_current()) {
            // A failure cannot be reported from here.
            let _ = self.backend.unlink(&handle, &self.id);
        }
    }
}

#[cfg(feature = "std")]
impl<B: Exclusive> Segment<B> {
    /// Returns `true` if the backend can tell whether others hold this segment.
    pub(crate) fn supports_exclusive(&self) -> bool {
        self.handle
            .as_ref()
            .is_some_and(|handle| self.backend.supports_exclusive(handle))
    }

    /// Calls `work` if no other process holds the segment. Returns `true` if `work` was called, and
    /// if no other process opened the segment before it returned.
    pub(crate) fn with_exclusive(&mut self, work: impl FnOnce(&mut Self)) -> bool {
        let handle = self.handle.as_ref();
        let Some(lock) = handle.and_then(|handle| self.backend.try_lock_exclusive(handle)) else {
            return false;
        };
        work(self);
        let handle = self.handle.as_ref();
        handle.is_some_and(|handle| self.backend.unlock_exclusive(handle, lock))
    }
}

impl<B: Backend> Drop for Segment<B> {
    fn drop(&mut self) {
        self.release();
    }
}

// SAFETY: a segment has one mapping, which is aligned and stays until it is dropped or released,
// both of which need the segment unborrowed.
#[allow(unsafe_code)]
unsafe impl<B: Backend> ShMem for Segment<B> {
    fn id(&self) -> ShMemId {
        self.id
    }

    fn len(&self) -> usize {
        self.mapping.len()
    }

    fn access(&mut self) -> Access<'_> {
        self.mapping.access()
    }

    fn as_ptr_of<T: Sized>(&self) -> Option<*const T> {
        self.mapping.start_as::<T>().map(<*mut T>::cast_const)
    }

    fn as_mut_ptr_of<T: Sized>(&mut self) -> Option<*mut T> {
        self.mapping.start_as()
    }

    #[cfg(feature = "std")]
    fn inherit(&self, command: &mut std::process::Command, env_name: &str) -> Result<()> {
        self.hand_over(command, env_name)?;
        match self.descriptor() {
            Some(fd) => crate::inherit::pass(fd, self.id, command, env_name),
            None => Ok(()),
        }
    }

    #[cfg(feature = "std")]
    fn lock_descriptor(&self) -> Option<crate::sys::Descriptor<'_>> {
        let handle = self.handle.as_ref()?;
        let fd = self.backend.descriptor(handle)?;
        Some(crate::sys::Descriptor(fd, self.backend.locks(handle)))
    }
}

impl<B: Backend> Deref for Segment<B> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.mapping.as_slice()
    }
}

impl<B: Backend> DerefMut for Segment<B> {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.mapping.as_mut_slice()
    }
}

impl<B: Backend> fmt::Debug for Segment<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("id", &self.id)
            .field("mapping", &self.mapping)
            .field("ownership", &self.ownership)
            .field("handle", &self.handle)
            .finish_non_exhaustive()
    }
}
