//! [`ShMemPool`]: segments that are used again instead of being made anew.
//!
//! What has been dropped is handed out again, zeroed, if it can be proved that nobody else has it. Who
//! could? A process that was told the id has opened the file anew, and the kernel knows: `sys/lease.rs`.
//! A child that was forked has inherited it, and the kernel knows as well: `sys/witness.rs`. Nothing else
//! of this crate passes a segment on. System V segments are counted by the kernel outright. What
//! cannot be proved is not assumed: then a segment is made anew.

#[cfg(all(
    unix,
    not(any(target_os = "android", target_os = "haiku", shmem_android_rules))
))]
mod fork_witness;
#[cfg(any(
    windows,
    target_os = "android",
    target_os = "haiku",
    shmem_android_rules
))]
#[path = "fork_witness_none.rs"]
mod fork_witness;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::backend::{Exclusive, Request, Sparse};
use crate::error::Error;
use crate::error::Result;
use crate::id::ShMemId;
use crate::memory::access::Access;
use crate::memory::size::check_size;
use crate::pool::fork_witness::ForkWitness;
use crate::process::Owner;
use crate::provider::Provider;
use crate::segment::Segment;
use crate::traits::ShMem;
use crate::traits::ShMemProvider;

/// Makes the segments of another provider, and uses those again that were dropped.
///
/// To make a segment and to write all of it costs a page fault and a created page for every 4 KiB; to
/// use one again costs setting it to zero, and six system calls, however large it is. It pays
/// where segments of the same size come and go, as the inputs and maps of a fuzzer do. It hurts
/// where they do not come again: what is kept takes memory and a descriptor each.
///
/// Only what nobody else holds is used again, and that is asked of the kernel each time. Clones share
/// the pool, also among threads.
///
/// **Ids repeat**: a segment that is used again has the id it had. Who was told that id for an earlier
/// use, and attaches only now, gets the present one. Where ids go to processes that may be late, take
/// the provider itself.
///
/// # Lifetime
///
/// As that of the provider inside, while a segment is in use. What the pool keeps, a limited number,
/// goes when the last clone of the pool and the last of its segments is dropped, or the process ends.
///
/// # Platform notes
///
/// Segments are used again on Linux, if they are memfds or System V segments and System V shared memory
/// is to be had; if another process has opened a memfd without write access, which this crate never
/// does, that is seen only by kernels with `CONFIG_IMA`; if it has taken the descriptor by means of a
/// debugger (`pidfd_getfd(2)`), by none. System V segments have no lock: a process that attaches by an
/// old id while one is being zeroed is noticed, and the segment is not handed out, but it has seen
/// zeros. While a child lives that was forked and has executed no other
/// program, nothing is used again, and in the child itself all segments are made anew. At the moment
/// in which a memfd is zeroed, an attempt to open it by its old id fails, and sends this process a
/// SIGURG, which is ignored unless there is a handler.
///
/// # Examples
///
/// ```
/// use shmem_providers::{ShMem, ShMemPool, ShMemProvider, StdShMemProvider};
///
/// let mut pool = StdShMemPool::new()?;
/// for round in 0..100 {
///     let mut input = pool.new_shmem(65536)?; // made once
///     assert_eq!(input[0], 0);
///     input.fill(round);
/// }
/// # Ok::<(), shmem_providers::Error>(())
/// ```
pub struct ShMemPool<B: Exclusive + Sparse> {
    shared: Arc<Shared<B>>,
}

/// A segment of a [`ShMemPool`].
pub struct PooledShMem<B: Exclusive + Sparse> {
    segment: Segment<B>,
    /// Whether the pool has made it, in this process.
    returns: bool,
    shared: Arc<Shared<B>>,
}

struct Shared<B: Exclusive + Sparse> {
    provider: Provider<B>,
    owner: Owner,
    most_segments: usize,
    most_bytes: usize,
    /// `None` if it cannot be known. Made before the first segment is, so that who inherits a segment
    /// inherits this.
    witness: OnceLock<Option<ForkWitness>>,
    idle: Mutex<Idle<B>>,
}

/// What nobody uses, the last dropped last.
struct Idle<B: Exclusive + Sparse> {
    segments: Vec<Segment<B>>,
    bytes: usize,
}

/// How many segments are looked at, before one is made.
const TRIES: usize = 4;

impl<B: Exclusive + Sparse> ShMemPool<B> {
    /// A pool over this provider that keeps so many segments at most, and so many bytes in all, of
    /// what is not in use.
    #[must_use]
    pub fn over(provider: Provider<B>, most_segments: usize, most_bytes: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                provider,
                owner: Owner::current(),
                most_segments,
                most_bytes,
                witness: OnceLock::new(),
                idle: Mutex::new(Idle {
                    segments: Vec::new(),
                    bytes: 0,
                }),
            }),
        }
    }

    /// How many segments are kept that nobody uses.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.shared.idle(|idle| idle.segments.len()).unwrap_or(0)
    }

    fn holding(&self, segment: Segment<B>, returns: bool) -> PooledShMem<B> {
        PooledShMem {
            segment,
            returns,
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<B: Exclusive + Sparse> Shared<B> {
    /// What `work` says of what is idle; `None` in a child that was forked, to which none of it
    /// belongs, and in which the lock may be held by a thread that does not exist.
    fn idle<T>(&self, work: impl FnOnce(&mut Idle<B>) -> T) -> Option<T> {
        self.owner.is_current().then(|| work(&mut self.lock()))
    }

    /// For the owner.
    fn lock(&self) -> MutexGuard<'_, Idle<B>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the owner: a segment of this size that nobody else has, zeroed.
    ///
    /// The order is what makes it safe. Once a candidate is taken, nobody in this process uses it, so
    /// a child that is forked from then on has no use of it either. Whoever was forked before, while
    /// it was in use, is counted when `no_children_alive` asks. An answer from before it was taken says nothing:
    /// another thread may have forked and dropped it since. `tests/model.rs` goes through all orders
    /// of events.
    fn reuse(&self, size: usize, witness: &ForkWitness) -> Option<Segment<B>> {
        for _ in 0..TRIES {
            let mut segment = self.lock().take(size)?;
            let no_children_alive = witness.no_children_alive();
            if no_children_alive && segment.with_exclusive(Segment::clear) {
                return Some(segment);
            }
            // One that somebody else has goes to the end, so that it is not asked for each time.
            self.keep(segment, |idle, segment| idle.segments.insert(0, segment));
            if !no_children_alive {
                return None;
            }
        }
        None
    }

    /// Keeps a segment that nobody uses any more, if there is room for it; not in a child that was
    /// forked.
    fn keep(&self, segment: Segment<B>, put: impl FnOnce(&mut Idle<B>, Segment<B>)) {
        let mut segment = Some(segment);
        self.idle(|idle| {
            let len = segment.as_ref().map_or(0, ShMem::len);
            let bytes = idle.bytes.saturating_add(len);
            let fits = idle.segments.len() < self.most_segments
                && bytes <= self.most_bytes
                && idle.segments.try_reserve(1).is_ok();
            if let Some(segment) = segment.take_if(|_| fits) {
                idle.bytes = bytes;
                put(idle, segment);
            }
        });
        // What is left of it is dropped here, when nothing is locked.
    }
}

impl<B: Exclusive + Sparse> Idle<B> {
    fn take(&mut self, size: usize) -> Option<Segment<B>> {
        let place = self.segments.iter().rposition(|s| s.len() == size)?;
        self.bytes = self.bytes.saturating_sub(size);
        Some(self.segments.remove(place))
    }
}

impl<B: Exclusive + Sparse> ShMemProvider for ShMemPool<B> {
    type ShMem = PooledShMem<B>;

    /// A pool that keeps up to 32 segments and 64 MiB of what is not in use.
    fn new() -> Result<Self, Error> {
        Ok(Self::over(Provider::new()?, 32, 64 << 20))
    }

    fn new_shmem(&mut self, map_size: usize) -> Result<PooledShMem<B>, Error> {
        let size = check_size(map_size)?;
        let witness = if self.shared.owner.is_current() {
            self.shared.witness.get_or_init(ForkWitness::new).as_ref()
        } else {
            None
        };
        let Some(witness) = witness else {
            let segment = self.shared.provider.clone().new_shmem(size)?;
            return Ok(self.holding(segment, false));
        };
        if let Some(segment) = self.shared.reuse(size, witness) {
            return Ok(self.holding(segment, true));
        }
        let backend = &self.shared.provider.backend;
        let created = backend.create(Request {
            exclusive_check: true,
            ..Request::zeroed(size)
        })?;
        Ok(self.holding(Segment::from_created(created, backend), true))
    }

    fn shmem_from_id(&mut self, id: ShMemId) -> Result<PooledShMem<B>, Error> {
        let segment = self.shared.provider.clone().shmem_from_id(id)?;
        Ok(self.holding(segment, false))
    }

    fn shmem_from_id_and_size(
        &mut self,
        id: ShMemId,
        size: usize,
    ) -> Result<PooledShMem<B>, Error> {
        let segment = self
            .shared
            .provider
            .clone()
            .shmem_from_id_and_size(id, size)?;
        Ok(self.holding(segment, false))
    }

    // `clone_ref` opens the segment anew by its id, as its default does: what is duplicated would
    // not be counted.

    fn pre_fork(&mut self) -> Result<(), Error> {
        self.shared.provider.clone().pre_fork()
    }

    fn post_fork(&mut self, is_child: bool) -> Result<(), Error> {
        self.shared.provider.clone().post_fork(is_child)
    }

    fn release_shmem(&mut self, shmem: &mut PooledShMem<B>) {
        shmem.release();
    }
}

impl<B: Exclusive + Sparse> PooledShMem<B> {
    fn release(&mut self) {
        let segment = self.segment.take();
        if !self.returns || !segment.supports_exclusive() {
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

// SAFETY: everything is left to a segment that keeps the contract.
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

impl<B: Exclusive + Sparse> Clone for ShMemPool<B> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

/// As [`new`](ShMemProvider::new).
impl<B: Exclusive + Sparse> Default for ShMemPool<B> {
    fn default() -> Self {
        Self::over(Provider::default(), 32, 64 << 20)
    }
}

impl<B: Exclusive + Sparse> fmt::Debug for ShMemPool<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShMemPool")
            .field("provider", &self.shared.provider)
            .finish_non_exhaustive()
    }
}

impl<B: Exclusive + Sparse> fmt::Debug for PooledShMem<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PooledShMem").field(&self.segment).finish()
    }
}
