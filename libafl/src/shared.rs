//! [`RcShMemProvider`] over the traits of this package, so that it also accepts providers that a program
//! implements.
#![allow(unsafe_code)]

use core::fmt;
use core::ops::{Deref, DerefMut};
use std::sync::Arc;

use libafl_core::Error;
use shmem::facade::ForkLock;
use shmem::{Access, ShMemDescription, ShMemId};

use crate::traits::{ShMem, ShMemProvider};

/// Shares one provider among its clones, among threads, and with all of its segments.
///
/// [`RcShMemProvider`](shmem::RcShMemProvider) of the core documents it.
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

/// Shares a provider that was not created by `new`.
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
        self.counted(created)
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
            // If the lock is not available, dropping the segment does the same.
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

// SAFETY: every method is that of `P::ShMem`, which keeps the contract.
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
