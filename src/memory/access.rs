//! [`Access`]: reads and writes a segment while other processes write it, without undefined behaviour.
//!
//! A `&[u8]` promises the compiler that its bytes do not change while it lives, and a `&mut [u8]`
//! that nothing else reads or writes them. Another process keeps neither promise. Here every byte
//! is an atomic, which makes no such promise. `copy.rs` copies such bytes.
//!
//! The crate offers atomics of several sizes over the same bytes. Rust's memory model does not
//! define racing accesses of different sizes yet. LLVM's model defines them byte by byte, as all
//! supported hardware does: a value read during a race consists of bytes that were written, by one
//! or more writers.
#![allow(unsafe_code)]

use core::ops::Deref;
#[cfg(target_has_atomic = "64")]
use core::sync::atomic::AtomicU64;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32};

use crate::error::Error;
use crate::memory::copy;
use crate::memory::layout::SharedLayout;
use crate::memory::read_access::{ReadAccess, misaligned};

/// A view of the bytes of a segment that stays sound while other processes write them.
///
/// Created by [`ShMem::access`](crate::ShMem::access), which borrows the segment mutably: while the
/// access lives, safe code of this process cannot hold a `&[u8]` of the same segment. It is `Copy`,
/// `Send` and `Sync`, so threads can use it at the same time. Reading is in [`ReadAccess`], to which it
/// dereferences.
///
/// Copies are relaxed and bytewise: a copy that races with a writer can consist of old and new
/// bytes. Guard what must be seen together with an atomic of your own, which is written with
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
/// access.as_atomic_u32()?[0].store(9, Ordering::Release); // its length: a peer may read it now
///
/// // Words that belong together, each with a name:
/// if let [head, tail] = access.range(2048, 8)?.as_atomic_u32()? {
///     assert_eq!(head.swap(5, Ordering::AcqRel), tail.load(Ordering::Acquire));
/// }
/// # }
/// # Ok::<(), shmem_providers::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    read: ReadAccess<'a>,
}

/// Everything that only reads.
impl<'a> Deref for Access<'a> {
    type Target = ReadAccess<'a>;

    #[inline]
    fn deref(&self) -> &ReadAccess<'a> {
        &self.read
    }
}

impl<'a> Access<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [AtomicU8]) -> Self {
        Self {
            read: ReadAccess::new(bytes),
        }
    }

    #[inline]
    fn bytes(self) -> &'a [AtomicU8] {
        self.read.bytes()
    }

    /// Returns access to `len` bytes that start at `offset`.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if they reach beyond the end.
    #[inline]
    pub fn range(&self, offset: usize, len: usize) -> Result<Access<'a>, Error> {
        Ok(Access {
            read: self.read.range(offset, len)?,
        })
    }

    /// Copies all of `from` to `offset`.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if it does not fit; then nothing is written.
    #[inline]
    pub fn write_at(&self, offset: usize, from: &[u8]) -> Result<(), Error> {
        copy::store(self.range(offset, from.len())?.bytes(), from);
        Ok(())
    }

    /// Sets every byte to `value`.
    pub fn fill(&self, value: u8) {
        copy::fill(self.bytes(), value);
    }

    /// Writes to one byte of every `step`, without changing its value.
    pub(crate) fn touch_every(&self, step: usize) {
        for byte in self.bytes().iter().step_by(step) {
            byte.fetch_or(0, core::sync::atomic::Ordering::Relaxed);
        }
    }

    /// Returns the bytes as atomics.
    #[must_use]
    #[inline]
    pub fn as_atomic_u8(&self) -> &'a [AtomicU8] {
        self.bytes()
    }

    /// Returns as many 16-bit atomics as fit, in the byte order of the machine.
    ///
    /// # Errors
    ///
    /// [`Error::Misaligned`], which only a [`range`](Self::range) at an odd offset can cause.
    #[inline]
    pub fn as_atomic_u16(&self) -> Result<&'a [AtomicU16], Error> {
        // SAFETY: an `AtomicU16` is an atomic integer.
        unsafe { self.atomics() }
    }

    /// Returns as many 32-bit atomics as fit, in the byte order of the machine.
    ///
    /// # Errors
    ///
    /// [`Error::Misaligned`], which only a [`range`](Self::range) at an offset that is not a multiple of
    /// 4 can cause.
    #[inline]
    pub fn as_atomic_u32(&self) -> Result<&'a [AtomicU32], Error> {
        // SAFETY: an `AtomicU32` is an atomic integer.
        unsafe { self.atomics() }
    }

    /// Returns as many 64-bit atomics as fit, in the byte order of the machine.
    ///
    /// # Errors
    ///
    /// [`Error::Misaligned`], which only a [`range`](Self::range) at an offset that is not a multiple of
    /// 8 can cause.
    #[cfg(target_has_atomic = "64")]
    #[inline]
    pub fn as_atomic_u64(&self) -> Result<&'a [AtomicU64], Error> {
        // SAFETY: an `AtomicU64` is an atomic integer.
        unsafe { self.atomics() }
    }

    /// Returns a reference to the value at `offset`, in place.
    ///
    /// Other processes may change it at any time: a [`SharedLayout`] consists of atomics.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if it reaches beyond the end, [`Error::Misaligned`] if the type needs a
    /// larger alignment than it has at `offset`. Segments start at multiples of the page size, those of
    /// [`NopShMemProvider`](crate::NopShMemProvider) at multiples of 8.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::atomic::{AtomicI64, AtomicU16, Ordering};
    /// use shmem_providers::{NopShMemProvider, ShMem, ShMemProvider};
    ///
    /// let mut segment = NopShMemProvider.new_shmem(4096)?;
    /// let access = segment.access();
    /// let balance = access.view::<AtomicI64>(8)?;
    /// let buckets = access.view::<[AtomicU16; 100]>(16)?;
    /// balance.fetch_sub(5, Ordering::Relaxed);
    /// buckets[99].store(1, Ordering::Relaxed);
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    #[inline]
    pub fn view<T: SharedLayout>(&self, offset: usize) -> Result<&'a T, Error> {
        let bytes = self.range(offset, size_of::<T>())?.bytes();
        let value = aligned::<T>(bytes)?;
        // SAFETY: the bytes of the value are valid for `'a`, and aligned. Any bytes are a valid
        // `SharedLayout`, which consists of atomics, so that others may write them.
        Ok(unsafe { &*value })
    }

    /// Returns references to `count` values that start at `offset`, in place.
    ///
    /// # Errors
    ///
    /// As [`view`](Self::view).
    #[inline]
    pub fn view_slice<T: SharedLayout>(
        &self,
        offset: usize,
        count: usize,
    ) -> Result<&'a [T], Error> {
        // A length that overflows reaches beyond every end.
        let len = size_of::<T>().saturating_mul(count);
        let bytes = self.range(offset, len)?.bytes();
        let first = aligned::<T>(bytes)?;
        // SAFETY: the bytes of `count` values are valid for `'a`, and aligned. Any bytes are a valid
        // `SharedLayout`, which consists of atomics, so that others may write them.
        Ok(unsafe { core::slice::from_raw_parts(first, count) })
    }

    /// Copies the value to `offset`, which need not be aligned for its type.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if it does not fit; then nothing is written.
    #[cfg(feature = "zerocopy")]
    #[inline]
    pub fn write<T>(&self, offset: usize, value: &T) -> Result<(), Error>
    where
        T: zerocopy::IntoBytes + zerocopy::Immutable + ?Sized,
    {
        self.write_at(offset, value.as_bytes())
    }

    /// Returns all bytes that form whole values of `T`.
    ///
    /// # Safety
    ///
    /// `T` is an atomic integer.
    #[inline]
    unsafe fn atomics<T>(&self) -> Result<&'a [T], Error> {
        // SAFETY: the caller ensures that `T` is an atomic integer: any bytes are valid, and it is
        // only accessed atomically.
        let (head, values, _) = unsafe { self.bytes().align_to::<T>() };
        if head.is_empty() {
            Ok(values)
        } else {
            Err(misaligned::<T>())
        }
    }
}

/// Returns the address of the bytes as that of values of `T`, if it is aligned for them.
#[inline]
fn aligned<T>(bytes: &[AtomicU8]) -> Result<*const T, Error> {
    let start = bytes.as_ptr().cast::<T>();
    if start.is_aligned() {
        Ok(start)
    } else {
        Err(misaligned::<T>())
    }
}

/// Access to bytes in place, such as those in a structure with a [`SharedLayout`].
///
/// # Examples
///
/// ```
/// use std::sync::atomic::AtomicU8;
/// use shmem_providers::Access;
///
/// let bytes: [AtomicU8; 100] = std::array::from_fn(|_| AtomicU8::new(0));
/// Access::from(&bytes[..]).write_at(95, b"hello")?;
/// assert_eq!(bytes[99].load(std::sync::atomic::Ordering::Relaxed), b'o');
/// # Ok::<(), shmem_providers::Error>(())
/// ```
impl<'a> From<&'a [AtomicU8]> for Access<'a> {
    #[inline]
    fn from(bytes: &'a [AtomicU8]) -> Self {
        Self::new(bytes)
    }
}

/// Access to memory of this process. [`ShMem::access`](crate::ShMem::access) returns it for
/// segments that are only a slice.
impl<'a> From<&'a mut [u8]> for Access<'a> {
    fn from(bytes: &'a mut [u8]) -> Self {
        let bytes: *const [AtomicU8] = core::ptr::from_mut(bytes) as *const [AtomicU8];
        // SAFETY: a `u8` has the size and alignment of an `AtomicU8`. The bytes are borrowed
        // exclusively for `'a`, so that they may be accessed atomically instead.
        Self::new(unsafe { &*bytes })
    }
}
