//! [`ReadAccess`]: reads a segment, which may be mapped without the permission to write, while other
//! processes write it.
//!
//! Rust permits only relaxed loads of at most a word in memory that cannot be written
//! ([`core::sync::atomic`], "Atomic accesses to read-only memory"): other accesses may be implemented
//! by instructions that write. Stronger orderings are fences next to such a load, and no reference
//! to an atomic leaves this type, because safe code could store through it.
#![allow(unsafe_code)]

#[cfg(feature = "zerocopy")]
use core::mem::MaybeUninit;
#[cfg(target_pointer_width = "64")]
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{self, AcqRel, Acquire, Relaxed, SeqCst};
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, fence};

use crate::error::Error;
use crate::memory::copy;

/// A view of the bytes of a segment that only reads, and stays sound while other processes write them.
///
/// Created by [`ReadOnly::access`](crate::ReadOnly::access); the [`Access`](crate::Access) of a writable
/// segment dereferences to it. It is `Copy`, `Send` and `Sync`.
///
/// Copies are relaxed and bytewise: a copy that races with a writer can consist of old and new
/// bytes. Guard what must be seen together with a word that the writer stores with
/// [`Release`](Ordering::Release) and that this side loads with [`Acquire`].
///
/// # Examples
///
/// ```
/// use std::sync::atomic::Ordering;
/// use shmem_providers::{NopShMemProvider, ReadAccess, ShMem, ShMemProvider};
///
/// /// Returns the message of a writer that stores its length last.
/// fn message(access: ReadAccess<'_>) -> shmem_providers::Result<Vec<u8>> {
///     let len = access.load_u32(0, Ordering::Acquire)?;
///     let mut message = vec![0; len as usize];
///     access.read_at(8, &mut message)?;
///     Ok(message)
/// }
///
/// let mut segment = NopShMemProvider.new_shmem(4096)?;
/// let access = segment.access();
/// access.write_at(8, b"hello")?;
/// access.as_atomic_u32()?[0].store(5, Ordering::Release);
/// assert_eq!(message(*access)?, b"hello");
/// # Ok::<(), shmem_providers::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ReadAccess<'a> {
    bytes: &'a [AtomicU8],
}

impl<'a> ReadAccess<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [AtomicU8]) -> Self {
        Self { bytes }
    }

    /// Returns the bytes. Storing to them is for the creator of the view, which knows whether they can
    /// be written.
    #[inline]
    pub(crate) fn bytes(self) -> &'a [AtomicU8] {
        self.bytes
    }

    /// Returns the number of bytes.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns `true` if there are no bytes.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns access to `len` bytes that start at `offset`.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if they reach beyond the end.
    #[inline]
    pub fn range(&self, offset: usize, len: usize) -> Result<ReadAccess<'a>, Error> {
        let bytes = self.bytes.get(offset..).and_then(|rest| rest.get(..len));
        let bytes = bytes.ok_or_else(|| out_of_bounds(offset, len, self.len()))?;
        Ok(ReadAccess::new(bytes))
    }

    /// Fills `into` with the bytes that start at `offset`.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if they reach beyond the end; then `into` is unchanged.
    #[inline]
    pub fn read_at(&self, offset: usize, into: &mut [u8]) -> Result<(), Error> {
        copy::load(self.range(offset, into.len())?.bytes, into);
        Ok(())
    }

    /// Loads the byte at `offset` atomically.
    ///
    /// `Release`, which loads cannot have, has no effect: `AcqRel` acts as `Acquire`, and `Release` as
    /// `Relaxed`.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if there is no such byte.
    #[inline]
    pub fn load_u8(&self, offset: usize, ordering: Ordering) -> Result<u8, Error> {
        // SAFETY: an `AtomicU8` is an atomic integer of at most a word.
        let byte = unsafe { self.atomic::<AtomicU8>(offset) }?;
        Ok(fenced(ordering, || byte.load(Relaxed)))
    }

    /// Loads the 16 bits at `offset` atomically, in the byte order of the machine. The ordering is that
    /// of [`load_u8`](Self::load_u8).
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if they reach beyond the end, [`Error::Misaligned`] if their address is
    /// not a multiple of 2.
    #[inline]
    pub fn load_u16(&self, offset: usize, ordering: Ordering) -> Result<u16, Error> {
        // SAFETY: an `AtomicU16` is an atomic integer of at most a word.
        let value = unsafe { self.atomic::<AtomicU16>(offset) }?;
        Ok(fenced(ordering, || value.load(Relaxed)))
    }

    /// Loads the 32 bits at `offset` atomically, in the byte order of the machine. The ordering is that
    /// of [`load_u8`](Self::load_u8).
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if they reach beyond the end, [`Error::Misaligned`] if their address is
    /// not a multiple of 4.
    #[inline]
    pub fn load_u32(&self, offset: usize, ordering: Ordering) -> Result<u32, Error> {
        // SAFETY: an `AtomicU32` is an atomic integer of at most a word.
        let value = unsafe { self.atomic::<AtomicU32>(offset) }?;
        Ok(fenced(ordering, || value.load(Relaxed)))
    }

    /// Loads the 64 bits at `offset` atomically, in the byte order of the machine. The ordering is that
    /// of [`load_u8`](Self::load_u8).
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if they reach beyond the end, [`Error::Misaligned`] if their address is
    /// not a multiple of 8.
    ///
    /// # Platform notes
    ///
    /// Machines of 64 bits. Others load 64 bits by an instruction that also writes them, which raises
    /// SIGSEGV in memory that is mapped for reading.
    #[cfg(target_pointer_width = "64")]
    #[inline]
    pub fn load_u64(&self, offset: usize, ordering: Ordering) -> Result<u64, Error> {
        // SAFETY: an `AtomicU64` is an atomic integer, and a word has 64 bits here.
        let value = unsafe { self.atomic::<AtomicU64>(offset) }?;
        Ok(fenced(ordering, || value.load(Relaxed)))
    }

    /// Returns a copy of the value at `offset`, which need not be aligned there.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if it reaches beyond the end.
    ///
    /// # Examples
    ///
    /// ```
    /// use shmem_providers::{NopShMemProvider, ShMem, ShMemProvider};
    ///
    /// let mut segment = NopShMemProvider.new_shmem(16)?;
    /// segment[3] = 7;
    /// assert_eq!(segment.access().read::<[u16; 2]>(2)?.map(u16::to_le), [7 << 8, 0]);
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    #[cfg(feature = "zerocopy")]
    #[inline]
    pub fn read<T: zerocopy::FromBytes>(&self, offset: usize) -> Result<T, Error> {
        let mut copy = MaybeUninit::uninit();
        self.fetch(offset, &mut copy)?;
        // SAFETY: `fetch` has written all bytes, and `FromBytes` states that any bytes are a valid
        // value.
        Ok(unsafe { copy.assume_init() })
    }

    /// Returns a copy of the value at `offset`, if the bytes there are a valid value of the type.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if it reaches beyond the end, [`Error::InvalidValue`] if the bytes
    /// are not a valid value of the type.
    #[cfg(feature = "zerocopy")]
    #[inline]
    pub fn try_read<T: zerocopy::TryFromBytes>(&self, offset: usize) -> Result<T, Error> {
        let mut copy = MaybeUninit::<T>::uninit();
        let bytes = &*self.fetch(offset, &mut copy)?;
        T::try_read_from_bytes(bytes).map_err(|_| Error::InvalidValue)
    }

    /// Copies the bytes at `offset` into `copy`, and returns them.
    #[cfg(feature = "zerocopy")]
    #[inline]
    fn fetch<'b, T>(
        &self,
        offset: usize,
        copy: &'b mut MaybeUninit<T>,
    ) -> Result<&'b mut [u8], Error> {
        let dst = copy.as_mut_ptr();
        // SAFETY: `copy` has space for one `T`, padding included.
        unsafe { dst.write_bytes(0, 1) };
        // SAFETY: all bytes were initialised just now, in place, so that this includes padding, and
        // `copy` stays borrowed for as long as the slice lives.
        let bytes = unsafe { core::slice::from_raw_parts_mut(dst.cast::<u8>(), size_of::<T>()) };
        self.read_at(offset, bytes)?;
        Ok(bytes)
    }

    /// Returns the value at `offset`, for relaxed loads.
    ///
    /// # Safety
    ///
    /// `T` is an atomic integer of at most a word.
    #[inline]
    unsafe fn atomic<T>(&self, offset: usize) -> Result<&'a T, Error> {
        let bytes = self.range(offset, size_of::<T>())?.bytes;
        // SAFETY: the caller ensures that `T` is an atomic integer: any bytes are valid, and it is
        // only accessed atomically.
        let (_, values, _) = unsafe { bytes.align_to::<T>() };
        values.first().ok_or_else(misaligned::<T>)
    }
}

/// The error of a range that reaches beyond the end. It is created where it is needed: to drop one takes more time than
/// an access.
#[cold]
fn out_of_bounds(offset: usize, len: usize, size: usize) -> Error {
    Error::OutOfBounds { offset, len, size }
}

/// The error of an address that is not aligned for a `T`.
#[cold]
pub(crate) fn misaligned<T>() -> Error {
    Error::Misaligned {
        align: align_of::<T>(),
    }
}

/// Calls a function that loads a value with relaxed ordering, and adds the fences that give it this one.
#[inline]
fn fenced<T>(ordering: Ordering, load: impl FnOnce() -> T) -> T {
    if ordering == SeqCst {
        fence(SeqCst);
    }
    let value = load();
    if matches!(ordering, Acquire | AcqRel | SeqCst) {
        fence(Acquire);
    }
    value
}
