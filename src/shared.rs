//! [`RcShMemProvider`] and [`RcShMem`]: any provider, shared by threads, with segments that keep it
//! alive.
#![allow(unsafe_code)]

use alloc::sync::Arc;
use core::fmt;
use core::ops::{Deref, DerefMut};

use crate::error::Error;
use crate::id::ShMemId;
use crate::id::description::ShMemDescription;
use crate::memory::access::Access;
use crate::memory::read_only::ReadOnly;
use crate::process::fork_lock::ForkLock;
use crate::traits::ShMem;
use crate::traits::ShMemProvider;

/// Shares one provider between its clones, between threads, and with all segments that it creates.
///
/// References to the provider are counted: it is dropped after the last clone and the last segment.
/// Each segment is released exactly once, by the provider that created it: when the segment is
/// dropped, or earlier by [`release_shmem`](ShMemProvider::release_shmem). Threads may use clones
/// at the same time; their requests wait for each other.
///
/// # Platform notes
///
/// It works across `fork()`: call [`pre_fork`](ShMemProvider::pre_fork) before and
/// [`post_fork`](ShMemProvider::post_fork) after it, in the parent and in the child, even if
/// `fork()` failed. Both call the inner provider. Between the two calls, other threads wait,
/// however long the fork takes. The thread that forks must not use the provider or its segments in
/// between: if it does, or if it ends, the fork counts as finished. If neither happens, other
/// threads get [`Error::ForkPending`] after ten seconds.
///
/// A child that was forked without these calls can use the provider too. But if another thread was
/// using the provider during the fork, the child starts with a new one, created by `default`.
///
/// # Examples
///
/// ```
/// use std::thread;
/// use shmem_providers::{NopShMemProvider, RcShMemProvider, ShMem, ShMemProvider};
///
/// let provider = RcShMemProvider::<NopShMemProvider>::new()?;
/// let segments = thread::scope(|scope| {
///     let create = || provider.clone().new_shmem(100);
///     let threads: Vec<_> = (0..4).map(|_| scope.spawn(create)).collect();
///     threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Result<Vec<_>, _>>()
/// })?;
/// drop(provider); // the segments keep the inner provider alive
/// assert!(segments.iter().all(|segment| segment.len() == 100));
/// # Ok::<(), shmem_providers::Error>(())
/// ```
pub struct RcShMemProvider<P: ShMemProvider> {
    shared: Arc<ForkLock<P>>,
}

/// A segment of [`RcShMemProvider`].
#[must_use = "dropping a segment releases it: keep it until the other process has attached"]
pub struct RcShMem<P: ShMemProvider> {
    pub(crate) segment: P::ShMem,
    is_released: bool,
    shared: Arc<ForkLock<P>>,
}

impl<P: ShMemProvider> RcShMemProvider<P> {
    fn counted(&self, segment: P::ShMem) -> RcShMem<P> {
        RcShMem {
            segment,
            is_released: false,
            shared: Arc::clone(&self.shared),
        }
    }
}

/// Shares an existing provider.
impl<P: ShMemProvider> From<P> for RcShMemProvider<P> {
    fn from(provider: P) -> Self {
        Self {
            shared: Arc::new(ForkLock::new(provider)),
        }
    }
}

impl<P: ShMemProvider> Clone for RcShMemProvider<P> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<P: ShMemProvider> Default for RcShMemProvider<P> {
    fn default() -> Self {
        P::default().into()
    }
}

impl<P: ShMemProvider> ShMemProvider for RcShMemProvider<P> {
    type ShMem = RcShMem<P>;

    fn new() -> Result<Self, Error> {
        Ok(P::new()?.into())
    }

    fn new_shmem(&mut self, map_size: usize) -> Result<Self::ShMem, Error> {
        let created = self.shared.lock()?.new_shmem(map_size);
        Ok(self.counted(created?))
    }

    fn shmem_from_id(&mut self, id: ShMemId) -> Result<Self::ShMem, Error> {
        let opened = self.shared.lock()?.shmem_from_id(id);
        Ok(self.counted(opened?))
    }

    fn shmem_from_id_and_size(&mut self, id: ShMemId, size: usize) -> Result<Self::ShMem, Error> {
        let opened = self.shared.lock()?.shmem_from_id_and_size(id, size);
        Ok(self.counted(opened?))
    }

    fn shmem_from_id_read_only(&mut self, id: ShMemId) -> Result<ReadOnly<Self::ShMem>, Error> {
        let opened = self.shared.lock()?.shmem_from_id_read_only(id)?;
        Ok(opened.map(|segment| self.counted(segment)))
    }

    fn shmem_from_id_and_size_read_only(
        &mut self,
        id: ShMemId,
        size: usize,
    ) -> Result<ReadOnly<Self::ShMem>, Error> {
        let mut provider = self.shared.lock()?;
        let opened = provider.shmem_from_id_and_size_read_only(id, size)?;
        Ok(opened.map(|segment| self.counted(segment)))
    }

    fn clone_ref(&mut self, mapping: &Self::ShMem) -> Result<Self::ShMem, Error> {
        let cloned = self.shared.lock()?.clone_ref(&mapping.segment);
        Ok(self.counted(cloned?))
    }

    fn existing_from_env(&mut self, env_name: &str) -> Result<Self::ShMem, Error> {
        let attached = self.shared.lock()?.existing_from_env(env_name);
        Ok(self.counted(attached?))
    }

    fn existing_from_env_read_only(
        &mut self,
        env_name: &str,
    ) -> Result<ReadOnly<Self::ShMem>, Error> {
        let attached = self.shared.lock()?.existing_from_env_read_only(env_name)?;
        Ok(attached.map(|segment| self.counted(segment)))
    }

    fn pre_fork(&mut self) -> Result<(), Error> {
        let mut provider = self.shared.lock()?;
        provider.pre_fork()?;
        provider.hold();
        Ok(())
    }

    fn post_fork(&mut self, is_child: bool) -> Result<(), Error> {
        self.shared.lock()?.post_fork(is_child)
    }

    fn release_shmem(&mut self, shmem: &mut Self::ShMem) {
        shmem.release();
    }

    fn new_for_name(&mut self, map_size: usize, persistent: bool) -> Result<Self::ShMem, Error> {
        let created = self.shared.lock()?.new_for_name(map_size, persistent);
        Ok(self.counted(created?))
    }

    fn keep_for_name(&mut self, shmem: &mut Self::ShMem, persistent: bool) -> Result<(), Error> {
        let mut provider = self.shared.lock()?;
        provider.keep_for_name(&mut shmem.segment, persistent)
    }

    fn forget_for_name(id: ShMemId, if_unused: bool) {
        P::forget_for_name(id, if_unused);
    }
}

impl<P: ShMemProvider> RcShMem<P> {
    fn release(&mut self) {
        if !self.is_released {
            self.is_released = true;
            // If the provider is locked for a fork, dropping the segment has the same effect.
            if let Ok(mut provider) = self.shared.lock() {
                provider.release_shmem(&mut self.segment);
            }
        }
    }
}

impl<P: ShMemProvider> Drop for RcShMem<P> {
    fn drop(&mut self) {
        self.release();
    }
}

// SAFETY: every method delegates to a segment, which upholds the contract.
unsafe impl<P: ShMemProvider> ShMem for RcShMem<P> {
    fn id(&self) -> ShMemId {
        self.segment.id()
    }

    fn len(&self) -> usize {
        self.segment.len()
    }

    fn description(&self) -> ShMemDescription {
        self.segment.description()
    }

    fn access(&mut self) -> Access<'_> {
        self.segment.access()
    }

    fn as_ptr_of<T: Sized>(&self) -> Option<*const T> {
        self.segment.as_ptr_of()
    }

    fn as_mut_ptr_of<T: Sized>(&mut self) -> Option<*mut T> {
        self.segment.as_mut_ptr_of()
    }

    fn inherit(&self, command: &mut std::process::Command, env_name: &str) -> Result<(), Error> {
        self.segment.inherit(command, env_name)
    }

    #[cfg(all(any(unix, windows), feature = "std"))]
    fn lock_descriptor(&self) -> Option<crate::sys::Descriptor<'_>> {
        self.segment.lock_descriptor()
    }
}

impl<P: ShMemProvider> Deref for RcShMem<P> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.segment
    }
}

impl<P: ShMemProvider> DerefMut for RcShMem<P> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.segment
    }
}

impl<P: ShMemProvider> fmt::Debug for RcShMemProvider<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RcShMemProvider").finish_non_exhaustive()
    }
}

impl<P: ShMemProvider> fmt::Debug for RcShMem<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RcShMem").field(&self.segment).finish()
    }
}
