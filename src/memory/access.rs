//! [`Access`]: to a segment that other processes write at the same time, without undefined behaviour.
//!
//! A `&[u8]` promises the compiler that its bytes stay as they are while it lives, a `&mut [u8]`
//! that nobody else looks at them. Another process knows nothing of either. Here every byte is an
//! atomic, which promises nothing of the kind. How such bytes are copied stands in `copy.rs`.
//!
//! The crate offers atomics of several sizes over the same bytes. Rust's memory model says nothing
//! yet about racing accesses of different sizes; LLVM's defines them byte by byte, as all hardware
//! that we run on does: a value read during a race is made of bytes that were written, by one
//! writer or more.
#![allow(unsafe_code)]

#[cfg(feature = "zerocopy")]
use core::mem::MaybeUninit;
#[cfg(target_has_atomic = "64")]
use core::sync::atomic::AtomicU64;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32};

use crate::error::Error;
use crate::memory::copy;

/// A view of a segment's bytes that stays sound while other processes write them.
///
/// Made by [`ShMem::access`](crate::ShMem::access), from which it borrows the segment mutably:
/// while it lives, safe code of this process cannot hold a `&[u8]` of the same segment. It is
/// `Copy`, `Send` and `Sync`, so threads can work on it side by side.
///
/// The copies are relaxed, byte by byte: one that races with a writer can be made of old and new
/// bytes. Put what must be seen together behind an atomic of your own, written with
/// [`Release`](core::sync::atomic::Ordering::Release) and read with
/// [`Acquire`](core::sync::atomic::Ordering::Acquire).
///
/// # Examples
///
/// ```
/// # #[cfg(all(target_os = "linux", feature = "std"))] {
/// use std::sync::atomic::Ordering;
/// use shmem_providers::{ShMem, ShMemProvider, StdShMemProvider};
///
/// let mut provider = StdShMemProvider::new()?;
/// let mut segment = provider.new_shmem(4096)?;
/// let access = segment.access();
/// access.write_at(8, b"a message")?;
/// access.as_atomic_u32()?[0].store(9, Ordering::Release); // its length: now it may be read
///
/// // Words that belong together, each by its name:
/// if let [head, tail] = access.range(2048, 8)?.as_atomic_u32()? {
///     assert_eq!(head.swap(5, Ordering::AcqRel), tail.load(Ordering::Acquire));
/// }
/// # }
/// # Ok::<(), shmem_providers::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    bytes: &'a [AtomicU8],
}

impl<'a> Access<'a> {
    pub(crate) fn new(bytes: &'a [AtomicU8]) -> Self {
        Self { bytes }
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The same for `len` bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if there are not as many.
    pub fn range(&self, offset: usize, len: usize) -> Result<Access<'a>, Error> {
        let bytes = self.bytes.get(offset..).and_then(|rest| rest.get(..len));
        let bytes = bytes.ok_or(Error::OutOfBounds {
            offset,
            len,
            size: self.len(),
        })?;
        Ok(Access::new(bytes))
    }

    /// Copies bytes from `offset` on into `into`, as many as it has.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if there are not as many; `into` is then as before.
    pub fn read_at(&self, offset: usize, into: &mut [u8]) -> Result<(), Error> {
        copy::load(self.range(offset, into.len())?.bytes, into);
        Ok(())
    }

    /// Copies all of `from` to `offset`.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if it does not fit; then nothing is written.
    pub fn write_at(&self, offset: usize, from: &[u8]) -> Result<(), Error> {
        copy::store(self.range(offset, from.len())?.bytes, from);
        Ok(())
    }

    /// Sets every byte to `value`.
    pub fn fill(&self, value: u8) {
        copy::fill(self.bytes, value);
    }

    /// Touches one byte of every `step` for writing, and leaves it as it is.
    pub(crate) fn touch_every(&self, step: usize) {
        for byte in self.bytes.iter().step_by(step) {
            byte.fetch_or(0, core::sync::atomic::Ordering::Relaxed);
        }
    }

    /// The bytes as atomics.
    #[must_use]
    pub fn as_atomic_u8(&self) -> &'a [AtomicU8] {
        self.bytes
    }

    /// As many 16-bit atomics as fit, in the byte order of the machine.
    ///
    /// # Errors
    ///
    /// [`Error::Misaligned`], which only a [`range`](Self::range) at an odd offset can cause.
    pub fn as_atomic_u16(&self) -> Result<&'a [AtomicU16], Error> {
        // SAFETY: of `atomics`: made of bytes, any of which may be anything, and written
        // atomically.
        unsafe { self.atomics() }
    }

    /// As many 32-bit atomics as fit, in the byte order of the machine.
    ///
    /// # Errors
    ///
    /// [`Error::Misaligned`], which only a [`range`](Self::range) at an offset that is not a multiple of
    /// 4 can cause.
    pub fn as_atomic_u32(&self) -> Result<&'a [AtomicU32], Error> {
        // SAFETY: as for 16 bits.
        unsafe { self.atomics() }
    }

    /// As many 64-bit atomics as fit, in the byte order of the machine.
    ///
    /// # Errors
    ///
    /// [`Error::Misaligned`], which only a [`range`](Self::range) at an offset that is not a multiple of
    /// 8 can cause.
    #[cfg(target_has_atomic = "64")]
    pub fn as_atomic_u64(&self) -> Result<&'a [AtomicU64], Error> {
        // SAFETY: as for 16 bits.
        unsafe { self.atomics() }
    }

    /// The value at `offset`, as a copy. It need not be aligned there.
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
    pub fn read<T: zerocopy::FromBytes>(&self, offset: usize) -> Result<T, Error> {
        let mut copy = MaybeUninit::uninit();
        self.fetch(offset, &mut copy)?;
        // SAFETY: all of its bytes were written, and `FromBytes` says that any bytes are a value.
        Ok(unsafe { copy.assume_init() })
    }

    /// The value at `offset`, as a copy, if the bytes there are one.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if it reaches beyond the end, [`Error::InvalidValue`] if the bytes are no
    /// value of the type.
    #[cfg(feature = "zerocopy")]
    pub fn try_read<T: zerocopy::TryFromBytes>(&self, offset: usize) -> Result<T, Error> {
        let mut copy = MaybeUninit::<T>::uninit();
        let bytes = &*self.fetch(offset, &mut copy)?;
        T::try_read_from_bytes(bytes).map_err(|_| Error::InvalidValue)
    }

    /// Copies the value to `offset`. It need not be aligned there.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if it does not fit; then nothing is written.
    #[cfg(feature = "zerocopy")]
    pub fn write<T>(&self, offset: usize, value: &T) -> Result<(), Error>
    where
        T: zerocopy::IntoBytes + zerocopy::Immutable + ?Sized,
    {
        self.write_at(offset, value.as_bytes())
    }

    /// Copies the bytes at `offset` into `copy`, and lends them.
    #[cfg(feature = "zerocopy")]
    fn fetch<'b, T>(
        &self,
        offset: usize,
        copy: &'b mut MaybeUninit<T>,
    ) -> Result<&'b mut [u8], Error> {
        let place = copy.as_mut_ptr();
        // SAFETY: `copy` has room for one `T`, padding included.
        unsafe { place.write_bytes(0, 1) };
        // SAFETY: all of its bytes have just been written, in place, so that padding counts as
        // well, and `copy` stays borrowed for as long as the slice lives.
        let bytes = unsafe { core::slice::from_raw_parts_mut(place.cast::<u8>(), size_of::<T>()) };
        self.read_at(offset, bytes)?;
        Ok(bytes)
    }

    /// All bytes that make up whole values of `T`.
    ///
    /// # Safety
    ///
    /// `T` is an atomic integer.
    unsafe fn atomics<T>(&self) -> Result<&'a [T], Error> {
        // SAFETY: by the contract of this function.
        let (head, values, _) = unsafe { self.bytes.align_to::<T>() };
        if head.is_empty() {
            Ok(values)
        } else {
            Err(Error::Misaligned {
                align: align_of::<T>(),
            })?
        }
    }
}

/// Access to memory of this process: what [`ShMem::access`](crate::ShMem::access) returns for segments
/// that are nothing but a slice.
impl<'a> From<&'a mut [u8]> for Access<'a> {
    fn from(bytes: &'a mut [u8]) -> Self {
        let bytes: *const [AtomicU8] = core::ptr::from_mut(bytes) as *const [AtomicU8];
        // SAFETY: a `u8` has the size and alignment of an `AtomicU8`, the bytes are borrowed
        // exclusively, and what is borrowed so may be accessed atomically instead.
        Self::new(unsafe { &*bytes })
    }
}
