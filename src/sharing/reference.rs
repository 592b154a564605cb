//! [`SharedRef`]: a reference into a shared segment that keeps the segment mapped.
#![allow(unsafe_code)]

use alloc::sync::Arc;
use core::fmt;
use core::ops::Deref;
use core::ptr::NonNull;

use super::Holder;
use crate::id::description::ShMemDescription;
use crate::memory::layout::SharedLayout;

/// A reference to a value in a segment that keeps the segment mapped, and so has no lifetime.
///
/// Created by [`Shared::view`](crate::Shared::view). It dereferences to the value and is `Clone`,
/// `Send`, `Sync` and `'static`: a structure, a thread or a task can keep it.
///
/// # Examples
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use shmem_providers::{Error, ShMem, ShMemProvider, SharedRef, StdShMemProvider};
///
/// struct Progress {
///     done: SharedRef<AtomicU32>,
/// }
///
/// fn progress() -> Result<Progress, Error> {
///     let shared = StdShMemProvider::new()?.new_shmem(4096)?.share();
///     Ok(Progress { done: shared.view(0)? }) // the segment lives as long as `done`
/// }
///
/// assert_eq!(progress()?.done.fetch_add(1, Ordering::Relaxed), 0);
/// # }
/// # Ok::<(), shmem_providers::Error>(())
/// ```
pub struct SharedRef<T: ?Sized> {
    value: NonNull<T>,
    holder: Arc<dyn Holder>,
}

// SAFETY: it is a reference to a `T`, and a count of a holder that is `Send` and `Sync`.
unsafe impl<T: Sync + ?Sized> Send for SharedRef<T> {}

// SAFETY: as above.
unsafe impl<T: Sync + ?Sized> Sync for SharedRef<T> {}

impl<T: ?Sized> SharedRef<T> {
    /// Takes a value that lies in the bytes of the holder.
    pub(super) fn new(value: NonNull<T>, holder: Arc<dyn Holder>) -> Self {
        Self { value, holder }
    }

    /// Returns what keeps the segment mapped.
    #[cfg(feature = "std")]
    pub(crate) fn holder(&self) -> &dyn Holder {
        &*self.holder
    }

    /// Returns a reference to a part of the value, such as a field.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU8, Ordering};
    /// use shmem_providers::{NopShMemProvider, ShMem, ShMemProvider};
    ///
    /// let shared = NopShMemProvider.new_shmem(64)?.share();
    /// let bytes = shared.view::<[AtomicU8; 64]>(0)?;
    /// let last = bytes.map(|bytes| &bytes[63]);
    /// last.store(1, Ordering::Relaxed);
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    ///
    /// The part must be one of the segment, or live forever:
    ///
    /// ```compile_fail,E0521
    /// use std::sync::atomic::AtomicU64;
    /// use shmem_providers::{SharedLayout, SharedRef};
    ///
    /// #[repr(C)]
    /// struct Limited<'a>(AtomicU64, [&'a AtomicU64; 0]);
    ///
    /// // SAFETY: the structure is `repr(C)`, and all of its bytes are an atomic integer.
    /// unsafe impl SharedLayout for Limited<'_> {}
    ///
    /// fn escape<'a>(value: SharedRef<Limited<'a>>, other: &'a AtomicU64) -> SharedRef<AtomicU64> {
    ///     value.map(move |_: &Limited<'a>| other)
    /// }
    /// ```
    #[must_use]
    pub fn map<U: SharedLayout>(self, part: impl FnOnce(&T) -> &U) -> SharedRef<U>
    where
        // Otherwise the function could return a reference of its own, which lives as long as what `T`
        // borrows.
        T: 'static,
    {
        let value = NonNull::from(part(&self));
        SharedRef::new(value, self.holder)
    }

    /// Returns references to values that are a part of this one.
    #[cfg(all(any(unix, windows), feature = "std"))]
    pub(crate) fn map_to_slice<U: SharedLayout>(
        self,
        part: impl FnOnce(&T) -> &[U],
    ) -> SharedRef<[U]>
    where
        T: 'static,
    {
        let values = NonNull::from(part(&self));
        SharedRef::new(values, self.holder)
    }

    /// Returns the id and the size of the segment.
    #[must_use]
    pub fn segment(&self) -> ShMemDescription {
        self.holder.description()
    }
}

impl<T: ?Sized> Deref for SharedRef<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the value lies in the bytes of the holder, which stay valid while it lives, or is
        // a constant. It consists of atomics, and nothing creates other references to the bytes.
        unsafe { self.value.as_ref() }
    }
}

impl<T: ?Sized> Clone for SharedRef<T> {
    fn clone(&self) -> Self {
        Self::new(self.value, Arc::clone(&self.holder))
    }
}

impl<T: fmt::Debug + ?Sized> fmt::Debug for SharedRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
