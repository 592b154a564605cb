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
use crate::process::fork_lock::ForkLock;
use crate::traits::ShMem;
use crate::traits::ShMemProvider;

/// Shares one provider among its clones, among threads, and with all segments that it makes.
///
/// References to the provider are counted: it is dropped after the last clone and the last segment.
/// Each segment is released exactly once, by the provider that made it: when it is dropped, or
/// earlier by [`release_shmem`](ShMemProvider::release_shmem). Clones may be used from many
/// threads at once; requests wait for each other.
///
/// # Platform notes
///
/// It gets through `fork()`: call [`pre_fork`](ShMemProvider::pre_fork) before and
/// [`post_fork`](ShMemProvider::post_fork) after it on both sides, after a `fork()` that failed as
/// well; both reach the provider inside. Between the two, other threads wait, however long the fork
/// takes, and the thread that forks leaves the provider and its segments alone: what it does with
/// them counts as the end of the fork, and so does its own end. If neither comes, other threads get
/// [`Error::ForkPending`](crate::error::Error::ForkPending) after ten seconds.
///
/// A child that was forked without them can use it too, but where another thread was just using the
/// provider, the child starts with a new one, made by `default`.
///
/// # Examples
///
/// ```
/// use std::thread;
/// use shmem_providers::{NopShMemProvider, RcShMemProvider, ShMem, ShMemProvider};
///
/// let provider = RcShMemProvider::<NopShMemProvider>::new()?;
/// let segments = thread::scope(|scope| {
///     let make = || provider.clone().new_shmem(100);
///     let threads: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
///     threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Result<Vec<_>, _>>()
/// })?;
/// drop(provider); // the segments keep what they need of it
/// assert!(segments.iter().all(|segment| segment.len() == 100));
/// # Ok::<(), shmem_providers::Error>(())
/// ```
pub struct RcShMemProvider<P: ShMemProvider> {
    shared: Arc<ForkLock<P>>,
}

/// A segment of [`RcShMemProvider`].
pub struct RcShMem<P: ShMemProvider> {
    segment: P::ShMem,
    is_released: bool,
    shared: Arc<ForkLock<P>>,
}

impl<P: ShMemProvider> RcShMemProvider<P> {
    fn counted(&self, segment: Result<P::ShMem, Error>) -> Result<RcShMem<P>, Error> {
        Ok(RcShMem {
            segment: segment?,
            is_released: false,
            shared: Arc::clone(&self.shared),
        })
    }
}

/// Shares a provider that was made otherwise than by `new`.
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
        let made = self.shared.lock()?.new_shmem(map_size);
        self.counted(made)
    }

    fn shmem_from_id(&mut self, id: ShMemId) -> Result<Self::ShMem, Error> {
        let opened = self.shared.lock()?.shmem_from_id(id);
        self.counted(opened)
    }

    fn shmem_from_id_and_size(&mut self, id: ShMemId, size: usize) -> Result<Self::ShMem, Error> {
        let opened = self.shared.lock()?.shmem_from_id_and_size(id, size);
        self.counted(opened)
    }

    fn clone_ref(&mut self, mapping: &Self::ShMem) -> Result<Self::ShMem, Error> {
        let cloned = self.shared.lock()?.clone_ref(&mapping.segment);
        self.counted(cloned)
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
}

impl<P: ShMemProvider> RcShMem<P> {
    fn release(&mut self) {
        if !self.is_released {
            self.is_released = true;
            // If it cannot be asked, dropping the segment does the same.
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

// SAFETY: everything is left to a segment that keeps the contract.
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
