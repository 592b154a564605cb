//! [`Slab`]: many small objects in one segment.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use std::sync::{Mutex, PoisonError};

use crate::backend::Backend;
use crate::error::Error;
use crate::error::Result;
use crate::id::ShMemId;
use crate::id::description::ShMemDescription;
use crate::memory::access::Access;
use crate::process::Owner;
use crate::provider::Provider;
use crate::segment::Segment;
use crate::sharing;
use crate::traits::{ShMem, ShMemProvider};

/// Objects start at multiples of this, in bytes, so that no two of them share a cache line.
const ALIGN: usize = 64;

/// Many objects of one size in a single segment.
///
/// [`StdSlab`](crate::StdSlab) is the slab of the default provider.
///
/// A slab is worth it for hundreds or thousands of small objects: together they take one
/// descriptor, one mapping and one id, which the system limits, and `fork()` copies one mapping. It
/// is a bad fit for a few long-lived objects, because the segment lives as long as any of them.
///
/// Clones share the slab, also between threads.
///
/// # Lifetime
///
/// The segment lives until the slab, all of its objects, and the segments of other processes that
/// attached to it are dropped. Dropping an object frees its slot for another object: a process that
/// still uses the old [`SlabRef`] sees the new object there, which was zeroed first. A forked child
/// can use the objects that it inherits for as long as its parent keeps them. Dropping them in the
/// child frees nothing: only the process that created the slab allocates and frees.
///
/// # Examples
///
/// ```
/// use shmem_providers::{ShMem, ShMemProvider, StdShMemProvider, StdSlab};
///
/// let mut provider = StdShMemProvider::new()?;
/// let slab = StdSlab::new(&mut provider, 100, 1000)?;
/// let object = slab.allocate().expect("the slab has 1000 slots");
/// object.access().write_at(0, b"hello")?;
///
/// // In any process of this user, which attaches once and receives a `SlabRef` for each object:
/// let slab_ref = object.slab_ref();
/// let attached = provider.shmem_from_description(slab_ref.segment)?.share();
/// let mut text = [0; 5];
/// slab_ref.access_in_shared(&attached)?.read_at(0, &mut text)?;
/// assert_eq!(&text, b"hello");
/// # Ok::<(), shmem_providers::Error>(())
/// ```
pub struct Slab<B: Backend> {
    shared: Arc<Shared<B>>,
}

/// An object of a [`Slab`]. [`StdSlabObject`](crate::StdSlabObject) is that of a
/// [`StdSlab`](crate::StdSlab).
pub struct SlabObject<B: Backend> {
    offset: usize,
    shared: Arc<Shared<B>>,
}

/// Where another process finds an object: the segment, and the position in it. It keeps nothing
/// alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SlabRef {
    /// The whole segment.
    pub segment: ShMemDescription,
    /// The start of the object in bytes from the start of the segment, a multiple of 64.
    pub offset: usize,
    /// The size of the object in bytes.
    pub len: usize,
}

struct Shared<B: Backend> {
    segment: Segment<B>,
    object_size: usize,
    owner: Owner,
    free: Mutex<Free>,
}

/// The free slots. The memory that this takes grows with the number of objects that were allocated,
/// not with the capacity of the slab.
struct Free {
    /// The distance between two slots, in bytes.
    stride: usize,
    /// The offsets of slots that were freed; the last one is used first. Has capacity for every
    /// slot before `unused`, so that freeing allocates no memory.
    freed: Vec<usize>,
    /// The offset of the first slot that was never allocated.
    unused: usize,
    /// The size of the segment in bytes.
    end: usize,
}

impl Free {
    fn allocate(&mut self) -> Option<usize> {
        if let Some(offset) = self.freed.pop() {
            return Some(offset);
        }
        if self.unused >= self.end {
            return None;
        }
        // All slots before `unused` are in use.
        let slots = self.unused.checked_div(self.stride)?.checked_add(1)?;
        self.freed.try_reserve(slots).ok()?;
        let offset = self.unused;
        self.unused = offset.saturating_add(self.stride);
        Some(offset)
    }

    fn free(&mut self, offset: usize) {
        self.freed.push(offset);
    }

    fn available(&self) -> usize {
        let unused = self.end.saturating_sub(self.unused);
        unused.checked_div(self.stride).unwrap_or(0) + self.freed.len()
    }
}

impl<B: Backend> Slab<B> {
    /// Creates a slab for `count` objects of `object_size` bytes each.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSize`] if the size or the count is zero, or if the segment would be too
    /// large; otherwise as [`new_shmem`](crate::ShMemProvider::new_shmem).
    pub fn new(
        provider: &mut Provider<B>,
        object_size: usize,
        count: usize,
    ) -> Result<Self, Error> {
        let stride = object_size
            .checked_next_multiple_of(ALIGN)
            .unwrap_or(usize::MAX);
        let size = stride.saturating_mul(count);
        let segment = provider.new_shmem(size)?;
        Ok(Self {
            shared: Arc::new(Shared {
                segment,
                object_size,
                owner: Owner::current(),
                free: Mutex::new(Free {
                    stride,
                    freed: Vec::new(),
                    unused: 0,
                    end: size,
                }),
            }),
        })
    }

    /// Allocates an object, all bytes of which are zero.
    ///
    /// Returns `None` if the slab is full, if there is no memory for the list of free slots, or in
    /// a forked child.
    #[must_use]
    pub fn allocate(&self) -> Option<SlabObject<B>> {
        let object = SlabObject {
            offset: self.shared.free(Free::allocate)??,
            shared: Arc::clone(&self.shared),
        };
        object.access().fill(0);
        Some(object)
    }

    /// Returns how many more objects can be allocated: none in a forked child.
    #[must_use]
    pub fn available(&self) -> usize {
        self.shared.free(|free| free.available()).unwrap_or(0)
    }

    /// Returns the id and the size of the segment, for processes that are to attach.
    #[must_use]
    pub fn segment(&self) -> ShMemDescription {
        self.shared.segment.description()
    }
}

impl<B: Backend> Shared<B> {
    /// Calls `work` with the free slots. Returns `None` in a forked child: its copy of the list
    /// does not follow what the parent allocates, and the lock may have been copied while another
    /// thread held it.
    fn free<T>(&self, work: impl FnOnce(&mut Free) -> T) -> Option<T> {
        let is_owner = self.owner.is_current();
        is_owner.then(|| work(&mut self.free.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl<B: Backend> SlabObject<B> {
    /// Returns access to the bytes of this object.
    #[must_use]
    pub fn access(&self) -> Access<'_> {
        // SAFETY: the segment is private to the slab, which creates no slice of it.
        #[allow(unsafe_code)]
        let all = unsafe { self.shared.segment.shared_access() };
        // The object lies within the segment: `Slab::new` sized it so.
        all.range(self.offset, self.shared.object_size)
            .unwrap_or(Access::new(&[]))
    }

    /// Returns where another process finds the object.
    #[must_use]
    pub fn slab_ref(&self) -> SlabRef {
        SlabRef {
            segment: self.shared.segment.description(),
            offset: self.offset,
            len: self.shared.object_size,
        }
    }
}

impl<B: Backend> Drop for SlabObject<B> {
    fn drop(&mut self) {
        self.shared.free(|free| free.free(self.offset));
    }
}

impl SlabRef {
    /// Returns access to the bytes of the object in `segment`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidId`] if the object is in another segment, [`Error::OutOfBounds`] if it
    /// reaches beyond the end of this one.
    pub fn access_in<'a>(&self, segment: &'a mut impl ShMem) -> Result<Access<'a>, Error> {
        self.check(segment.id())?;
        segment.access().range(self.offset, self.len)
    }

    /// Returns access to the bytes of the object in a segment that several owners use.
    ///
    /// # Errors
    ///
    /// As [`access_in`](Self::access_in).
    pub fn access_in_shared<'a>(
        &self,
        segment: &'a sharing::Shared<impl ShMem>,
    ) -> Result<Access<'a>, Error> {
        self.check(segment.id())?;
        segment.access().range(self.offset, self.len)
    }

    fn check(&self, id: ShMemId) -> Result<()> {
        if id == self.segment.id {
            Ok(())
        } else {
            Err(id.invalid("the object is in another segment"))
        }
    }
}

impl<B: Backend> Clone for Slab<B> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<B: Backend> fmt::Debug for Slab<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slab")
            .field("segment", &self.shared.segment)
            .field("object_size", &self.shared.object_size)
            .finish_non_exhaustive()
    }
}

impl<B: Backend> fmt::Debug for SlabObject<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SlabObject").field(&self.slab_ref()).finish()
    }
}
