//! [`Mapping`]: owns the pages of one segment in this process. The only place with a raw pointer.
#![allow(unsafe_code)]

use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU8;

use crate::memory::access::Access;

/// Gives the pages back. The first byte and the length are those the mapping was made of.
pub(crate) type Unmap = unsafe fn(NonNull<u8>, usize);

/// Owns readable and writable memory, and gives it back once when dropped.
///
/// Its slices obey the contract that [`ShMem`](crate::ShMem#the-contract-of-the-slice) states.
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
    unmap: Unmap,
}

// SAFETY: the memory is owned by this value, and no OS that we run on ties a mapping to a thread.
unsafe impl Send for Mapping {}

// SAFETY: through a shared reference the memory can only be read.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Takes over `len` bytes from `base` on.
    ///
    /// # Safety
    ///
    /// The bytes are initialised, readable and writable, and stay so until `unmap(base, len)` is
    /// called, which nobody else does; `base` is aligned to 8 bytes; `len` is at most `isize::MAX`.
    pub(crate) unsafe fn from_raw(base: NonNull<u8>, len: usize, unmap: Unmap) -> Self {
        Self { base, len, unmap }
    }

    /// A mapping of nothing.
    pub(crate) fn empty() -> Self {
        let base = NonNull::<u64>::dangling().cast();
        // SAFETY: no byte is claimed, the pointer is aligned, and there is nothing to unmap.
        unsafe { Self::from_raw(base, 0, |_, _| ()) }
    }

    /// The same mapping, of which only the first `len` bytes are used.
    ///
    /// # Safety
    ///
    /// As many bytes are mapped, and `unmap` does not depend on the length.
    pub(crate) unsafe fn with_len(mut self, len: usize) -> Self {
        self.len = len;
        self
    }

    /// Where the bytes are, for system calls that leave them as they are.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// How many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The first byte as a `T`, if one fits and is aligned there.
    pub(crate) fn start_as<T>(&self) -> Option<*mut T> {
        let start = self.base.as_ptr().cast::<T>();
        (size_of::<T>() <= self.len && start.is_aligned()).then_some(start)
    }

    /// The bytes.
    pub(crate) fn as_slice(&self) -> &[u8] {
        let base = self.base.as_ptr();
        // SAFETY: valid for reads of `len` bytes by the contract of `from_raw`; that no other
        // process writes them meanwhile is what `ShMem` demands of its users.
        unsafe { core::slice::from_raw_parts(base, self.len) }
    }

    /// The bytes, for writing.
    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        let base = self.base.as_ptr();
        // SAFETY: as above, for writes, and `&mut self` keeps other references of this process
        // away.
        unsafe { core::slice::from_raw_parts_mut(base, self.len) }
    }

    /// The bytes, to be accessed while other processes write them.
    pub(crate) fn access(&mut self) -> Access<'_> {
        let base = self.base.cast::<AtomicU8>().as_ptr();
        // SAFETY: valid by the contract of `from_raw`; atomics may be written by others, and `&mut
        // self` keeps plain references away for as long as this one lives.
        Access::new(unsafe { core::slice::from_raw_parts(base, self.len) })
    }
}

impl Mapping {
    /// As [`access`](Self::access), of a mapping that is shared within this process as well.
    ///
    /// # Safety
    ///
    /// While the access lives, nobody makes a slice of the mapping.
    #[cfg(all(any(unix, windows), feature = "std"))]
    pub(crate) unsafe fn shared_access(&self) -> Access<'_> {
        let base = self.base.cast::<AtomicU8>().as_ptr();
        // SAFETY: valid by the contract of `from_raw`; atomics may be written by others, and plain
        // references are kept away by the contract of this function.
        Access::new(unsafe { core::slice::from_raw_parts(base, self.len) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `from_raw` was promised that only we call this; a value is dropped once, and
        // references into the memory borrow from the value.
        unsafe { (self.unmap)(self.base, self.len) }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:p}+{:#x}", self.base, self.len)
    }
}
