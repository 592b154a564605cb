//! [`PooledShMem`]: a segment that returns to its pool.

use alloc::sync::Arc;
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::process::Command;

use crate::backend::{Exclusive, Sparse};
use crate::error::Result;
use crate::id::ShMemId;
use crate::memory::access::Access;
use crate::pool::Shared;
use crate::segment::Segment;
use crate::traits::ShMem;

/// A segment of a [`ShMemPool`](crate::ShMemPool).
#[must_use = "dropping a segment releases it: keep it until the other process has attached"]
pub struct PooledShMem<B: Exclusive + Sparse> {
    segment: Segment<B>,
    /// Whether this process created the segment through the pool, and passed its descriptor to no other
    /// one, so that it can be reused.
    is_reusable: AtomicBool,
    shared: Arc<Shared<B>>,
}

impl<B: Exclusive + Sparse> PooledShMem<B> {
    pub(super) fn new(segment: Segment<B>, is_reusable: bool, shared: &Arc<Shared<B>>) -> Self {
        Self {
            segment,
            is_reusable: AtomicBool::new(is_reusable),
            shared: Arc::clone(shared),
        }
    }

    /// Returns the segment to the pool.
    pub(super) fn release(&mut self) {
        let segment = self.segment.take();
        if !*self.is_reusable.get_mut() || !segment.supports_exclusive() {
            return;
        }
        self.shared
            .keep(segment, |idle, segment| idle.segments.push(segment));
    }
}

impl<B: Exclusive + Sparse> Drop for PooledShMem<B> {
    fn drop(&mut self) {
        self.release();
    }
}

// SAFETY: every method delegates to `Segment`, which upholds the contract.
#[allow(unsafe_code)]
unsafe impl<B: Exclusive + Sparse> ShMem for PooledShMem<B> {
    fn id(&self) -> ShMemId {
        self.segment.id()
    }

    fn len(&self) -> usize {
        self.segment.len()
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

    /// The segment is not reused afterwards: the kernel does not report holders of a descriptor that was
    /// passed on.
    fn inherit(&self, command: &mut Command, env_name: &str) -> Result<()> {
        self.is_reusable.store(false, Relaxed);
        self.segment.inherit(command, env_name)
    }

    fn lock_descriptor(&self) -> Option<crate::sys::Descriptor<'_>> {
        self.segment.lock_descriptor()
    }
}

impl<B: Exclusive + Sparse> Deref for PooledShMem<B> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.segment
    }
}

impl<B: Exclusive + Sparse> DerefMut for PooledShMem<B> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.segment
    }
}

impl<B: Exclusive + Sparse> fmt::Debug for PooledShMem<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PooledShMem").field(&self.segment).finish()
    }
}
