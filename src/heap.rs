//! [`NopShMemProvider`]: segments on the heap of this process, shared with no other process.
#![allow(unsafe_code)]

use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use crate::error::{Error, Result, Subject};
use crate::id::ShMemId;
use crate::memory::access::Access;
use crate::memory::mapping::Mapping;
use crate::memory::read_only::ReadOnly;
use crate::memory::size::check_size;
use crate::traits::ShMem;
use crate::traits::ShMemProvider;

/// What the C library calls it when memory runs out. The number is the same on every system.
const ENOMEM: i32 = 12;

/// The alignment of a segment in bytes, as `ShMem` demands it.
const ALIGN: usize = 8;

/// Segments on the heap of this process, shared with no other process.
///
/// Use it where code needs a provider and nothing is to be shared: in tests, in programs of a
/// single process, on systems without shared memory.
///
/// Ids have no effect: every segment that is created or opened is new and zeroed.
///
/// # Lifetime
///
/// The memory returns to the allocator when the segment is dropped.
///
/// # Examples
///
/// ```
/// use shmem_providers::{NopShMemProvider, ShMemProvider};
///
/// let segment = NopShMemProvider.new_shmem(3)?;
/// assert_eq!(segment[..], [0, 0, 0]);
/// # Ok::<(), shmem_providers::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct NopShMemProvider;

/// A segment on the heap of this process, exactly as long as asked for and aligned to 8 bytes.
#[derive(Debug)]
pub struct NopShMem {
    id: ShMemId,
    mapping: Mapping,
}

impl ShMemProvider for NopShMemProvider {
    type ShMem = NopShMem;

    fn new() -> Result<Self> {
        Ok(Self)
    }

    fn new_shmem(&mut self, map_size: usize) -> Result<Self::ShMem> {
        self.shmem_from_id_and_size(ShMemId::default(), map_size)
    }

    /// Always returns an error: nothing reports the size.
    fn shmem_from_id(&mut self, id: ShMemId) -> Result<Self::ShMem> {
        Err(Error::Gone { id })?
    }

    /// Creates a new zeroed segment of this size, which has the given id.
    fn shmem_from_id_and_size(&mut self, id: ShMemId, size: usize) -> Result<Self::ShMem> {
        let mapping = allocate(check_size(size)?)?;
        Ok(NopShMem { id, mapping })
    }

    /// Always returns an error: nothing reports the size.
    fn shmem_from_id_read_only(&mut self, id: ShMemId) -> Result<ReadOnly<Self::ShMem>> {
        self.shmem_from_id(id).map(ReadOnly::new)
    }

    /// Creates a new zeroed segment of this size, which has the given id and stays zeroed.
    fn shmem_from_id_and_size_read_only(
        &mut self,
        id: ShMemId,
        size: usize,
    ) -> Result<ReadOnly<Self::ShMem>> {
        self.shmem_from_id_and_size(id, size).map(ReadOnly::new)
    }

    fn release_shmem(&mut self, shmem: &mut Self::ShMem) {
        shmem.mapping = Mapping::empty();
    }
}

// SAFETY: a segment has one allocation, aligned to 8 bytes, which stays until the segment is
// dropped or released, both of which need the segment unborrowed.
unsafe impl ShMem for NopShMem {
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
}

impl Deref for NopShMem {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.mapping.as_slice()
    }
}

impl DerefMut for NopShMem {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.mapping.as_mut_slice()
    }
}

/// Allocates `size` zero bytes; `size` is not zero.
fn allocate(size: usize) -> Result<Mapping> {
    let layout = layout(size).ok_or(Error::InvalidSize { size })?;
    // SAFETY: the callers have checked that the size is not zero.
    let base = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(Error::Os {
        call: "alloc_zeroed",
        errno: ENOMEM,
        subject: Subject::Bytes(size),
        limit: None,
    })?;
    // SAFETY: the allocation is new, nothing else owns it, and it has `size` initialised bytes,
    // aligned to `ALIGN`.
    Ok(unsafe { Mapping::from_raw(base, size, free) })
}

/// Frees an allocation of [`allocate`].
///
/// # Safety
///
/// `base` and `size` are those of an allocation of [`allocate`], which nothing else frees or uses.
unsafe fn free(base: NonNull<u8>, size: usize) {
    let Some(layout) = layout(size) else { return };
    // SAFETY: the caller passes the pointer and the size of the allocation, from which the same
    // layout follows.
    unsafe { dealloc(base.as_ptr(), layout) }
}

fn layout(size: usize) -> Option<Layout> {
    Layout::from_size_align(size, ALIGN).ok()
}

#[cfg(test)]
mod tests {
    use super::allocate;
    use crate::error::Error;
    use crate::memory::size::check_size;

    #[test]
    fn what_no_allocator_has_is_an_error() {
        let max = isize::MAX as usize;
        for size in [0, max - 8, max - 7, max, max + 1, usize::MAX] {
            let refused = check_size(size).and_then(allocate).err();
            let is_size = matches!(refused, Some(Error::InvalidSize { .. }));
            let is_memory = matches!(refused, Some(Error::Os { errno: 12, .. }));
            // A large part of 2^32 addresses may be free.
            let may_succeed = cfg!(target_pointer_width = "32") && size <= max && refused.is_none();
            assert!(is_size || is_memory || may_succeed, "{size}: {refused:?}");
        }
    }
}
