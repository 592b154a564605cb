//! [`Slab`]: many small objects in one segment.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use std::sync::{Mutex, PoisonError};

use crate::backend::Backend;
use crate::error::Error;
use crate::error::Result;
use crate::id::description::ShMemDescription;
use crate::memory::access::Access;
use crate::process::Owner;
use crate::provider::Provider;
use crate::segment::Segment;
use crate::traits::{ShMem, ShMemProvider};

/// Objects start at multiples of this, in bytes, so that none shares a cache line with another one.
const ALIGN: usize = 64;

/// Many objects of one size in a single segment.
///
/// It pays where there are hundreds or thousands of small objects: together they cost one
/// descriptor, one mapping and one id, whatever limits a host sets on these, and a `fork()` copies one
/// mapping. It hurts where objects live long and alone, because the segment lives as long as any.
///
/// Clones share the slab, also among threads.
///
/// # Lifetime
///
/// The segment lives as long as the slab, an object of it, or another process that attached to it. An
/// object that is dropped makes room for another one: who was told its [`SlabRef`] sees the next object
/// there, zeroed first. A child that is forked can use the objects that it inherits for as long as its
/// parent keeps them, and dropping them there frees nothing: only the process that made the slab
/// allocates.
///
/// # Examples
///
/// ```
/// use shmem_providers::{ShMemProvider, Slab, StdShMemProvider};
///
/// let mut provider = StdShMemProvider::new()?;
/// let slab = Slab::new(&mut provider, 100, 1000)?;
/// let object = slab.allocate().expect("there is room for a thousand");
/// object.access().write_at(0, b"hello")?;
///
/// let place = object.slab_ref(); // to be sent to any process of this user, which attaches once
/// let mut attached = provider.shmem_from_description(place.segment)?;
/// let mut said = [0; 5];
/// place.access_in(&mut attached)?.read_at(0, &mut said)?;
/// assert_eq!(&said, b"hello");
/// # Ok::<(), shmem_providers::Error>(())
/// ```
pub struct Slab<B: Backend> {
    shared: Arc<Shared<B>>,
}

/// An object of a [`Slab`].
pub struct SlabObject<B: Backend> {
    offset: usize,
    shared: Arc<Shared<B>>,
}

/// Where an object is: which segment, and where in it. It holds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SlabRef {
    /// The segment, all of it.
    pub segment: ShMemDescription,
    /// In bytes from the start of the segment, a multiple of 64.
    pub offset: usize,
    /// In bytes.
    pub len: usize,
}

struct Shared<B: Backend> {
    segment: Segment<B>,
    object_size: usize,
    owner: Owner,
    free: Mutex<Free>,
}

/// What is free. Its size goes with the number of objects that have been allocated, and not with
/// what there is room for.
struct Free {
    /// From one place to the next, in bytes.
    stride: usize,
    /// The offsets of the places that were freed, the next one last. Has room for every place before
    /// `unused`, so that to free one needs no memory.
    freed: Vec<usize>,
    /// Here and behind it no place was ever allocated.
    unused: usize,
    /// The size of the segment.
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
        // All places before are in use.
        let places = self.unused.checked_div(self.stride)?.checked_add(1)?;
        self.freed.try_reserve(places).ok()?;
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
    /// A slab with room for so many objects of this size, in bytes.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSize`] if that is nothing, or more than a segment can have; otherwise as
    /// [`new_shmem`](crate::ShMemProvider::new_shmem).
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

    /// A new object, all of its bytes zero, or `None` if there is no room, or no memory to note what
    /// becomes free, or if this is a child that was forked.
    #[must_use]
    pub fn allocate(&self) -> Option<SlabObject<B>> {
        let object = SlabObject {
            offset: self.shared.free(Free::allocate)??,
            shared: Arc::clone(&self.shared),
        };
        object.access().fill(0);
        Some(object)
    }

    /// For how many more objects there is backend: none in a child that was forked.
    #[must_use]
    pub fn available(&self) -> usize {
        self.shared.free(|free| free.available()).unwrap_or(0)
    }

    /// The segment, to attach to once.
    #[must_use]
    pub fn segment(&self) -> ShMemDescription {
        self.shared.segment.description()
    }
}

impl<B: Backend> Shared<B> {
    /// What `work` does with what is free; `None` in a child that was forked, whose copy of
    /// it says nothing of what its parent uses, and in which the lock may be held by a thread that does
    /// not exist.
    fn free<T>(&self, work: impl FnOnce(&mut Free) -> T) -> Option<T> {
        let is_owner = self.owner.is_current();
        is_owner.then(|| work(&mut self.free.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl<B: Backend> SlabObject<B> {
    /// The bytes of the object, and no others.
    #[must_use]
    pub fn access(&self) -> Access<'_> {
        // SAFETY: the segment is private to the slab, where nobody makes a slice of it.
        #[allow(unsafe_code)]
        let all = unsafe { self.shared.segment.shared_access() };
        // It was made with room for it.
        all.range(self.offset, self.shared.object_size)
            .unwrap_or(Access::new(&[]))
    }

    /// Where another process finds it.
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
    /// The bytes of the object in the segment that it is in.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidId`] if it is another segment, [`Error::OutOfBounds`] if it has no such bytes.
    pub fn access_in<'a>(&self, segment: &'a mut impl ShMem) -> Result<Access<'a>, Error> {
        if segment.id() != self.segment.id {
            return Err(segment.id().invalid("the object is in another segment"))?;
        }
        segment.access().range(self.offset, self.len)
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
