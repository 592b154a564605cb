//! [`Typed`]: a value in a segment of its own, which opens only as the type that it has.
#![allow(unsafe_code)]

use core::fmt;
use core::ops::Deref;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use super::format::{Format, Prefix};
use super::{Shared, SharedRef};
use crate::error::{Error, Result, TypeMismatch};
use crate::id::ShMemId;
use crate::id::description::ShMemDescription;
use crate::memory::access::Access;
use crate::memory::layout::SharedLayout;
use crate::traits::{ShMem, ShMemProvider};

/// A value in a segment of its own, which opens only as the type that it has.
///
/// The segment starts with a header: a magic number, a version, and the size, the alignment and the
/// [fingerprint](SharedLayout::FINGERPRINT) of `T`. A process that opens it as another type gets an
/// error. The header is completed after the value is initialised, so that no process sees a value
/// that is not. A peer of the same user can change the header; this causes errors, but no undefined
/// behaviour, because any bytes are a valid [`SharedLayout`].
///
/// It dereferences to the value, and is `Clone`, `Send`, `Sync` and `'static`.
///
/// # Lifetime
///
/// This process holds the segment until the last clone is dropped.
///
/// # Examples
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use shmem_providers::{Error, StdShMemProvider, ShMemProvider, Typed};
///
/// let mut provider = StdShMemProvider::new()?;
/// let counter = Typed::<AtomicU64>::create(&mut provider, |counter| {
///     counter.store(100, Ordering::Relaxed);
/// })?;
///
/// // In any process of the same user that knows the id:
/// let opened = Typed::<AtomicU64>::open(&mut provider, counter.id())?;
/// assert_eq!(opened.fetch_add(1, Ordering::Relaxed), 100);
/// let error = Typed::<[AtomicU64; 2]>::open(&mut provider, counter.id()).unwrap_err();
/// assert!(matches!(error, Error::WrongType { .. }));
/// # }
/// # Ok::<(), shmem_providers::Error>(())
/// ```
pub struct Typed<T> {
    value: SharedRef<T>,
}

/// What the segment starts with. The numbers of 64 bits consist of two halves, the lower one first,
/// because not all systems have atomics of that size.
#[repr(C)]
struct Header {
    prefix: Prefix,
    size: [AtomicU32; 2],
    alignment: [AtomicU32; 2],
    fingerprint: [AtomicU32; 2],
}

// SAFETY: the structure is `repr(C)`, and all of its fields are atomic integers.
unsafe impl SharedLayout for Header {}

const FORMAT: Format = Format::new(*b"sTyp", 1);
/// Where the value starts in bytes, unless it needs a larger alignment: behind the header, in a cache
/// line of its own.
const OFFSET: usize = 64;
/// To how many bytes segments are aligned in every process.
const MAX_ALIGN: usize = 4096;

impl<T: SharedLayout> Typed<T> {
    /// Where the value starts in bytes.
    const START: usize = if align_of::<T>() > OFFSET {
        align_of::<T>()
    } else {
        OFFSET
    };

    /// The size of a segment that contains the header and a value, in bytes.
    pub const SIZE: usize = Self::START.saturating_add(size_of::<T>());

    /// Creates a segment that contains a value.
    ///
    /// All bytes of the value are zero at first. `initialise` changes it before any other process
    /// can open it.
    ///
    /// # Errors
    ///
    /// As [`new_shmem`](ShMemProvider::new_shmem), and [`Error::Misaligned`] if the type needs a
    /// larger alignment than the segments of the provider have, or than 4096 bytes, the smallest page.
    pub fn create<P: ShMemProvider>(provider: &mut P, initialise: impl FnOnce(&T)) -> Result<Self>
    where
        P::ShMem: Send + Sync + 'static,
    {
        let mut segment = provider.new_shmem(Self::SIZE)?;
        // The value may need a larger alignment than the segment has.
        write(segment.access(), initialise)?;
        let shared = segment.share();
        Ok(Self {
            value: shared.view(Self::START)?,
        })
    }

    /// Initialises a segment of [`SIZE`](Self::SIZE) bytes that no other process can open yet, such as that of a
    /// [`Named`](crate::Named). [`in_segment`](Self::in_segment) then finds the value.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if there are fewer bytes, and [`Error::Misaligned`] if the type needs a larger
    /// alignment than they have.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use shmem_providers::{NamedOptions, ShMem, Typed};
    ///
    /// type Counter = Typed<AtomicU64>;
    /// # let name = &format!("counter-{}", std::process::id());
    /// let named = NamedOptions::new().try_open_or_create(name, Counter::SIZE, |bytes| {
    ///     Counter::initialise(bytes, |counter| counter.store(100, Ordering::Relaxed))
    /// })?;
    /// let counter = Counter::in_segment(&named.share())?; // holds the name as well
    /// assert_eq!(counter.fetch_add(1, Ordering::Relaxed), 100);
    /// # }
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    pub fn initialise(bytes: &mut [u8], initialise: impl FnOnce(&T)) -> Result<()> {
        write(Access::from(bytes), initialise)
    }

    /// Opens the value in the segment with this id.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] if the segment does not contain a value of this type, otherwise as
    /// [`shmem_from_id`](ShMemProvider::shmem_from_id).
    pub fn open<P: ShMemProvider>(provider: &mut P, id: ShMemId) -> Result<Self>
    where
        P::ShMem: Send + Sync + 'static,
    {
        Self::in_segment(&provider.shmem_from_id(id)?.share())
    }

    /// Opens the value in the segment that [`hand_over`](Self::hand_over) has put into the
    /// environment under this name.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] if the segment does not contain a value of this type, otherwise as
    /// [`existing_from_env`](ShMemProvider::existing_from_env).
    #[cfg(feature = "std")]
    pub fn existing_from_env<P: ShMemProvider>(provider: &mut P, env_name: &str) -> Result<Self>
    where
        P::ShMem: Send + Sync + 'static,
    {
        Self::in_segment(&provider.existing_from_env(env_name)?.share())
    }

    /// Returns the value in a segment that this process has opened by other means.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] if the segment does not contain a value of this type.
    pub fn in_segment<S: ShMem + Send + Sync + 'static>(shared: &Shared<S>) -> Result<Self> {
        check::<T, S>(shared).map_err(|mismatch| Error::WrongType {
            id: shared.id(),
            mismatch,
        })?;
        Ok(Self {
            value: shared.view(Self::START)?,
        })
    }
}

/// Initialises a value, and then writes the header.
fn write<T: SharedLayout>(access: Access<'_>, initialise: impl FnOnce(&T)) -> Result<()> {
    let align = align_of::<T>();
    if align > MAX_ALIGN {
        return Err(Error::Misaligned { align });
    }
    let value = access.view::<T>(Typed::<T>::START)?;
    let header = access.view::<Header>(0)?;
    initialise(value);
    store(&header.size, size_of::<T>() as u64);
    store(&header.alignment, align_of::<T>() as u64);
    store(&header.fingerprint, T::FINGERPRINT);
    FORMAT.state(access)
}

/// Compares the header with the type.
fn check<T: SharedLayout, S: ShMem>(shared: &Shared<S>) -> Result<(), TypeMismatch> {
    let access = shared.access();
    FORMAT.check(access)?;
    let header = access.view::<Header>(0);
    let header = header.map_err(|_| TypeMismatch::NotTyped)?;
    let (found, expected) = (load(&header.size), size_of::<T>() as u64);
    if found != expected {
        return Err(TypeMismatch::Size { found, expected });
    }
    let (found, expected) = (load(&header.alignment), align_of::<T>() as u64);
    if found != expected {
        return Err(TypeMismatch::Alignment { found, expected });
    }
    if load(&header.fingerprint) != T::FINGERPRINT {
        return Err(TypeMismatch::Fields);
    }
    Ok(())
}

fn store([low, high]: &[AtomicU32; 2], value: u64) {
    for (half, shift) in [(low, 0), (high, 32)] {
        let bits = (value >> shift) & u64::from(u32::MAX);
        half.store(u32::try_from(bits).unwrap_or(u32::MAX), Relaxed);
    }
}

fn load([low, high]: &[AtomicU32; 2]) -> u64 {
    u64::from(high.load(Relaxed)) << 32 | u64::from(low.load(Relaxed))
}

impl<T> Typed<T> {
    /// Returns the id that opens the value in another process.
    #[must_use]
    pub fn id(&self) -> ShMemId {
        self.description().id
    }

    /// Returns the id and the size of the segment.
    #[must_use]
    pub fn description(&self) -> ShMemDescription {
        self.value.segment()
    }

    /// Puts the id and the size into the environment of a command: see [`ShMem::hand_over`].
    ///
    /// # Errors
    ///
    /// As [`ShMem::hand_over`].
    #[cfg(feature = "std")]
    pub fn hand_over(&self, command: &mut std::process::Command, env_name: &str) -> Result<()> {
        self.value.holder().hand_over(command, env_name)
    }

    /// As [`hand_over`](Self::hand_over), and passes the descriptor to the program: see
    /// [`ShMem::inherit`].
    ///
    /// # Errors
    ///
    /// As [`ShMem::inherit`].
    #[cfg(feature = "std")]
    pub fn inherit(&self, command: &mut std::process::Command, env_name: &str) -> Result<()> {
        self.value.holder().inherit(command, env_name)
    }

    /// Returns a reference to the value without the other abilities of this type.
    #[must_use]
    pub fn into_ref(self) -> SharedRef<T> {
        self.value
    }
}

impl<T> Deref for Typed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Clone for Typed<T> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Typed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Typed")
            .field("id", &self.id())
            .field("value", &self.value)
            .finish()
    }
}
