//! [`Shared`]: a segment that several owners in this process use at the same time.
#![allow(unsafe_code)]

pub(crate) mod format;
mod reference;
mod typed;

use alloc::sync::Arc;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU8;
#[cfg(feature = "std")]
use std::process::Command;

pub use self::reference::SharedRef;
pub use self::typed::Typed;
use crate::error::Result;
use crate::id::ShMemId;
use crate::id::description::ShMemDescription;
use crate::memory::access::Access;
use crate::memory::layout::SharedLayout;
use crate::traits::ShMem;

/// A segment that is used by several owners at the same time: structures, threads, tasks, and other
/// processes.
///
/// [`ShMem::share`] converts any segment into one. It never gives out a slice, so that no safe code
/// can cause undefined behaviour with it, whatever other processes and other mappings of the same
/// segment do.
///
/// # Lifetime
///
/// This process holds the segment until the last clone and the last [`SharedRef`] are dropped.
///
/// # Examples
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use std::thread;
/// use shmem_providers::{ShMem, ShMemProvider, StdShMemProvider};
///
/// let shared = StdShMemProvider::new()?.new_shmem(4096)?.share();
/// let counter = shared.view::<AtomicU64>(0)?; // keeps the segment mapped
/// let worker = thread::spawn(move || counter.fetch_add(1, Ordering::Relaxed));
/// shared.access().write_at(64, b"meanwhile")?;
/// worker.join().unwrap();
/// assert_eq!(shared.access().as_atomic_u64()?[0].load(Ordering::Relaxed), 1);
///
/// // The only owner can have its slice back.
/// let segment = shared.try_into_segment().unwrap();
/// assert_eq!(&segment[64..73], b"meanwhile");
/// # }
/// # Ok::<(), shmem_providers::Error>(())
/// ```
pub struct Shared<S> {
    inner: Arc<Inner<S>>,
}

struct Inner<S> {
    /// The bytes of `segment`.
    bytes: NonNull<[AtomicU8]>,
    segment: S,
}

// SAFETY: `bytes` belong to `segment` and are accessed atomically only; everything else about the
// value is that of `segment`.
unsafe impl<S: Send> Send for Inner<S> {}

// SAFETY: as above.
unsafe impl<S: Sync> Sync for Inner<S> {}

impl<S: ShMem> Inner<S> {
    fn access(&self) -> Access<'_> {
        // SAFETY: the bytes stay valid while `segment` exists and nothing borrows it mutably, as
        // `ShMem` demands. Nothing in this file does so, or creates a slice, until the value is
        // taken apart, which borrows of `self` exclude.
        Access::new(unsafe { self.bytes.as_ref() })
    }
}

/// What a [`SharedRef`] keeps alive: a segment of any type.
pub(crate) trait Holder: Send + Sync {
    fn description(&self) -> ShMemDescription;

    /// Returns how many bytes after the start of the segment this address is, or `None` if it is elsewhere.
    #[cfg(all(any(unix, windows), feature = "std"))]
    fn offset_of(&self, address: *const u8) -> Option<usize>;

    #[cfg(all(any(unix, windows), feature = "std"))]
    fn lock_descriptor(&self) -> Option<crate::sys::Descriptor<'_>>;

    #[cfg(feature = "std")]
    fn hand_over(&self, command: &mut Command, env_name: &str) -> Result<()>;

    #[cfg(feature = "std")]
    fn inherit(&self, command: &mut Command, env_name: &str) -> Result<()>;
}

impl<S: ShMem + Send + Sync> Holder for Inner<S> {
    fn description(&self) -> ShMemDescription {
        describe(self)
    }

    #[cfg(all(any(unix, windows), feature = "std"))]
    fn offset_of(&self, address: *const u8) -> Option<usize> {
        let offset = address.addr().checked_sub(self.bytes.addr().get())?;
        (offset < self.bytes.len()).then_some(offset)
    }

    #[cfg(all(any(unix, windows), feature = "std"))]
    fn lock_descriptor(&self) -> Option<crate::sys::Descriptor<'_>> {
        self.segment.lock_descriptor()
    }

    #[cfg(feature = "std")]
    fn hand_over(&self, command: &mut Command, env_name: &str) -> Result<()> {
        self.segment.hand_over(command, env_name)
    }

    #[cfg(feature = "std")]
    fn inherit(&self, command: &mut Command, env_name: &str) -> Result<()> {
        self.segment.inherit(command, env_name)
    }
}

fn describe<S: ShMem>(inner: &Inner<S>) -> ShMemDescription {
    ShMemDescription {
        size: inner.bytes.len(),
        id: inner.segment.id(),
    }
}

impl<S: ShMem> Shared<S> {
    pub(crate) fn new(segment: S) -> Self {
        let mut inner = Arc::new(Inner {
            bytes: NonNull::from(&[]),
            segment,
        });
        // There is only one reference so far.
        if let Some(inner) = Arc::get_mut(&mut inner) {
            inner.bytes = NonNull::from(inner.segment.access().as_atomic_u8());
        }
        Self { inner }
    }

    /// Returns the segment, to ask it for what does not touch its bytes.
    #[cfg(feature = "std")]
    pub(crate) fn segment(&self) -> &S {
        &self.inner.segment
    }

    /// Returns access to the bytes: bounds-checked copies, and atomics in place.
    #[must_use]
    pub fn access(&self) -> Access<'_> {
        self.inner.access()
    }

    /// Returns a reference to the value at `offset`, which keeps the segment mapped and has no
    /// lifetime.
    ///
    /// # Errors
    ///
    /// As [`Access::view`].
    pub fn view<T: SharedLayout>(&self, offset: usize) -> Result<SharedRef<T>>
    where
        S: Send + Sync + 'static,
    {
        let value = NonNull::from(self.access().view::<T>(offset)?);
        Ok(SharedRef::new(value, self.inner.clone()))
    }

    /// Returns a reference to `count` values that start at `offset`, which keeps the segment mapped
    /// and has no lifetime.
    ///
    /// # Errors
    ///
    /// As [`Access::view_slice`].
    pub fn view_slice<T: SharedLayout>(&self, offset: usize, count: usize) -> Result<SharedRef<[T]>>
    where
        S: Send + Sync + 'static,
    {
        let values = NonNull::from(self.access().view_slice::<T>(offset, count)?);
        Ok(SharedRef::new(values, self.inner.clone()))
    }

    /// Returns the id that opens this segment in another process.
    #[must_use]
    pub fn id(&self) -> ShMemId {
        self.inner.segment.id()
    }

    /// Returns the size of the segment in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.bytes.len()
    }

    /// Returns `true` if the segment has no bytes, because it was released before it was shared.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the id and the size, to send to a process that is to attach.
    #[must_use]
    pub fn description(&self) -> ShMemDescription {
        describe(&self.inner)
    }

    /// Puts the id and the size into the environment of a command: see [`ShMem::hand_over`].
    ///
    /// # Errors
    ///
    /// As [`ShMem::hand_over`].
    #[cfg(feature = "std")]
    pub fn hand_over(&self, command: &mut Command, env_name: &str) -> Result<()> {
        self.segment().hand_over(command, env_name)
    }

    /// As [`hand_over`](Self::hand_over), and passes the descriptor to the program: see
    /// [`ShMem::inherit`].
    ///
    /// # Errors
    ///
    /// As [`ShMem::inherit`].
    #[cfg(feature = "std")]
    pub fn inherit(&self, command: &mut Command, env_name: &str) -> Result<()> {
        self.segment().inherit(command, env_name)
    }

    /// Returns the segment, whose bytes are a slice again.
    ///
    /// The [contract of the slice](ShMem#the-contract-of-the-slice) then applies to other processes.
    ///
    /// # Errors
    ///
    /// Returns `self` if it is not the only one: there are clones or references.
    pub fn try_into_segment(self) -> Result<S, Self> {
        match Arc::try_unwrap(self.inner) {
            Ok(inner) => Ok(inner.segment),
            Err(inner) => Err(Self { inner }),
        }
    }
}

impl<S> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<S: ShMem> From<S> for Shared<S> {
    fn from(segment: S) -> Self {
        Self::new(segment)
    }
}

impl<S: fmt::Debug> fmt::Debug for Shared<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shared").field(&self.inner.segment).finish()
    }
}
