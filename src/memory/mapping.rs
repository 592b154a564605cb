//! [`Mapping`]: owns the pages of one segment in this process. No other type holds a raw pointer to them.
#![allow(unsafe_code)]

use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::Ordering::{AcqRel, Acquire};
use core::sync::atomic::{AtomicU8, AtomicUsize};

use crate::memory::access::Access;

/// What the pages of a mapping permit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Protection {
    /// Reading and writing.
    #[default]
    ReadWrite,
    /// Reading. Only a [`ReadOnly`](crate::ReadOnly) owns such a mapping, and never writes to it.
    Read,
}

/// Unmaps the pages. The arguments are the first byte and the length that the mapping was created
/// with.
pub(crate) type Unmap = unsafe fn(NonNull<u8>, usize);

/// Owns memory that can be read and, unless it belongs to a [`ReadOnly`](crate::ReadOnly), written, and
/// unmaps it once, when it is dropped.
///
/// Its slices are subject to the contract that [`ShMem`](crate::ShMem#the-contract-of-the-slice)
/// states.
pub struct Mapping {
    base: NonNull<u8>,
    /// How many bytes slices and accesses cover.
    len: usize,
    /// How many bytes `len` can grow to.
    reserved: usize,
    /// How many bytes are mapped: more than `reserved` if the mapping is growable.
    mapped: usize,
    unmap: Unmap,
}

// SAFETY: this value owns the memory, and no supported system ties a mapping to a thread.
unsafe impl Send for Mapping {}

// SAFETY: through a shared reference the memory is only read, or accessed atomically.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Takes ownership of `len` bytes at `base`.
    ///
    /// # Safety
    ///
    /// The bytes are initialised, readable and, unless the caller passes the mapping to a
    /// [`ReadOnly`](crate::ReadOnly), writable, and stay so until `unmap(base, len)` is
    /// called, which nothing but this value calls. `base` is aligned to 8 bytes. `len` is at most
    /// `isize::MAX`.
    pub(crate) unsafe fn from_raw(base: NonNull<u8>, len: usize, unmap: Unmap) -> Self {
        Self {
            base,
            len,
            reserved: len,
            mapped: len,
            unmap,
        }
    }

    /// Creates a mapping without bytes.
    pub(crate) fn empty() -> Self {
        let base = NonNull::<u64>::dangling().cast();
        // SAFETY: the mapping has no bytes, the pointer is aligned, and there is nothing to unmap.
        unsafe { Self::from_raw(base, 0, |_, _| ()) }
    }

    /// Returns the same mapping, limited to its first `len` bytes.
    ///
    /// # Safety
    ///
    /// At least `len` bytes are mapped, and `unmap` does not depend on the length.
    pub(crate) unsafe fn with_len(mut self, len: usize) -> Self {
        (self.len, self.reserved, self.mapped) = (len, len, len);
        self
    }

    /// Returns the same mapping, without bytes at first, and growable to `reserved` bytes. It ends with the
    /// number of bytes that are committed.
    ///
    /// # Safety
    ///
    /// The mapping consists of whole pages, the last of which is committed and behind the `reserved` bytes.
    /// Nothing else accesses that page, except processes that may not be trusted.
    pub(crate) unsafe fn growable(mut self, reserved: usize) -> Self {
        (self.len, self.reserved) = (0, reserved);
        self
    }

    /// Makes slices and accesses cover the first `len` bytes.
    ///
    /// # Safety
    ///
    /// `len` is at most [`reserved`](Self::reserved), and the memory of these bytes is committed, so that
    /// no access to them fails.
    pub(crate) unsafe fn show(&mut self, len: usize) {
        self.len = len;
    }

    /// Returns the address of the bytes, for system calls that do not change them.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Returns the number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns how many bytes this mapping can have: [`len`](Self::len), unless it is growable.
    pub(crate) fn reserved(&self) -> usize {
        self.reserved
    }

    /// Returns how many bytes are mapped, including those that are not committed.
    pub(crate) fn mapped(&self) -> usize {
        self.mapped
    }

    /// Returns the number of bytes that are committed, as the holders of the object state it. It is not
    /// lower than [`len`](Self::len), nor larger than [`reserved`](Self::reserved), whatever they state.
    pub(crate) fn committed(&self) -> usize {
        let stated = self.commitment().map_or(0, |cell| cell.load(Acquire));
        stated.min(self.reserved).max(self.len)
    }

    /// States that `len` bytes are committed, unless more are.
    pub(crate) fn publish(&self, len: usize) {
        if let Some(cell) = self.commitment() {
            cell.fetch_max(len, AcqRel);
        }
    }

    /// Returns the number of committed bytes in memory that all holders share, if the mapping is growable.
    fn commitment(&self) -> Option<&AtomicUsize> {
        if self.reserved == self.mapped {
            return None;
        }
        // A number of 64 bits for all, of which a program of 32 bits uses the lower half: what it can map
        // has no more bytes.
        let place = if cfg!(target_endian = "little") {
            size_of::<u64>()
        } else {
            size_of::<usize>()
        };
        let offset = self.mapped.saturating_sub(place);
        let cell = self.base.as_ptr().wrapping_add(offset);
        // SAFETY: by the contract of `growable` the mapping ends with a page that is only accessed
        // atomically, and no slice covers it, as `show` demands.
        Some(unsafe { AtomicUsize::from_ptr(cell.cast()) })
    }

    /// Returns the first byte as a pointer to `T`, if `T` fits and is aligned there.
    pub(crate) fn start_as<T>(&self) -> Option<*mut T> {
        let start = self.base.as_ptr().cast::<T>();
        (size_of::<T>() <= self.len && start.is_aligned()).then_some(start)
    }

    /// Returns the bytes.
    pub(crate) fn as_slice(&self) -> &[u8] {
        let base = self.base.as_ptr();
        // SAFETY: `len` bytes are readable by the contract of `from_raw`. The user of the segment
        // ensures that no other process writes them, as `ShMem` demands.
        unsafe { core::slice::from_raw_parts(base, self.len) }
    }

    /// Returns the bytes for writing.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        let base = self.base.as_ptr();
        // SAFETY: as in `as_slice`, and `&mut self` excludes other references of this process.
        unsafe { core::slice::from_raw_parts_mut(base, self.len) }
    }

    /// Returns access to the bytes that is sound while other processes write them.
    pub(crate) fn access(&mut self) -> Access<'_> {
        let base = self.base.cast::<AtomicU8>().as_ptr();
        // SAFETY: `len` bytes are valid by the contract of `from_raw`. Others may write atomics,
        // and `&mut self` excludes plain references for as long as the access lives.
        Access::new(unsafe { core::slice::from_raw_parts(base, self.len) })
    }
}

impl Mapping {
    /// As [`access`](Self::access), for a mapping that is also shared within this process.
    ///
    /// # Safety
    ///
    /// While the access lives, nothing creates a slice of the mapping.
    #[cfg(all(any(unix, windows), feature = "std"))]
    pub(crate) unsafe fn shared_access(&self) -> Access<'_> {
        let base = self.base.cast::<AtomicU8>().as_ptr();
        // SAFETY: `len` bytes are valid by the contract of `from_raw`. Others may write atomics,
        // and the caller ensures that there are no plain references.
        Access::new(unsafe { core::slice::from_raw_parts(base, self.len) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: by the contract of `from_raw` only this value calls `unmap`. A value is dropped
        // once, and references into the memory borrow from it.
        unsafe { (self.unmap)(self.base, self.mapped) }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:p}+{:#x}", self.base, self.len)
    }
}

#[cfg(test)]
mod tests {
    use core::ptr::NonNull;
    use core::sync::atomic::Ordering::SeqCst;

    use super::Mapping;

    #[test]
    fn the_committed_length_never_shrinks_nor_leaves_the_reservation() {
        #[repr(align(16))]
        struct Pages([u8; 128]);

        let mut pages = Pages([0; 128]);
        let base = NonNull::from(&mut pages.0).cast();
        // SAFETY: the bytes are valid and borrowed as long as the mapping exists, and stay when it ends.
        let mapping = unsafe { Mapping::from_raw(base, 128, |_, _| ()) };
        assert_eq!((mapping.committed(), mapping.reserved()), (128, 128));
        mapping.publish(7);
        assert_eq!(mapping.committed(), 128);

        // SAFETY: the second half is used for nothing else.
        let mut mapping = unsafe { mapping.growable(64) };
        assert_eq!((mapping.len(), mapping.committed()), (0, 0));
        for (published, committed) in [(20, 20), (10, 20), (30, 30)] {
            mapping.publish(published);
            assert_eq!(mapping.committed(), committed);
        }
        // Programs of 32 and of 64 bits find it in the same place.
        let shared = pages.0.last_chunk().map(|bytes| u64::from_ne_bytes(*bytes));
        assert_eq!(shared, Some(30));
        // SAFETY: the first half has memory.
        unsafe { mapping.show(30) };
        for (stated, committed) in [(0, 30), (31, 31), (65, 64), (usize::MAX, 64)] {
            if let Some(cell) = mapping.commitment() {
                cell.store(stated, SeqCst);
            }
            assert_eq!(mapping.committed(), committed);
        }
        assert_eq!((mapping.len(), mapping.mapped()), (30, 128));
    }
}
