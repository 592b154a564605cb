//! [`ShMemPool`]: reuses segments instead of creating new ones.
//!
//! A dropped segment is zeroed and handed out again if it is certain that no other process has it.
//! A process that received the id has opened the file, which the kernel reports (see [`Exclusive`]
//! and `sys/linux/lease.rs`). A forked child has inherited the segment, which the kernel reports
//! too (see [`ForkWitness`]). A segment that was passed on in another way, by
//! [`inherit`](crate::ShMem::inherit), is not reused. For System V segments
//! the kernel counts the attached processes. If the answer is not certain, a new segment is
//! created.

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
mod segment;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::backend::{Exclusive, Request, Sparse};
use crate::error::Error;
use crate::error::Result;
use crate::id::ShMemId;
use crate::memory::read_only::ReadOnly;
use crate::memory::size::check_size;
use crate::pool::fork_witness::ForkWitness;
pub use crate::pool::segment::PooledShMem;
use crate::process::Owner;
use crate::provider::Provider;
use crate::segment::Segment;
use crate::traits::ShMem;
use crate::traits::ShMemProvider;

/// Creates the segments of another provider, and reuses those that were dropped.
///
/// [`StdShMemPool`](crate::StdShMemPool) is the pool of the default provider.
///
/// Creating a segment and writing all of it costs a page fault and a new page for every 4 KiB.
/// Reusing one costs zeroing it, and six system calls whatever its size. A pool is worth it where
/// segments of the same size come and go, as the inputs and maps of a fuzzer do. It is a bad fit
/// where sizes do not repeat: each idle segment takes memory and a descriptor.
///
/// The pool reuses only what no other process holds, and asks the kernel each time. Clones share
/// the pool, also between threads.
///
/// **Ids repeat**: a reused segment has the id that it had before. A process that received the id
/// during an earlier use, and attaches only now, gets the present use. If ids go to processes that
/// may be late, use the provider itself.
///
/// # Lifetime
///
/// That of the segments of the provider, while a segment is in use. Idle segments, whose number is
/// limited, are freed when the last clone of the pool and the last of its segments is dropped, or
/// when the process ends.
///
/// # Platform notes
///
/// Segments are reused on Linux if they are memfds or System V segments, and if System V shared
/// memory is available. A process that opened a memfd without write access, which this crate never
/// does, is noticed only by kernels with `CONFIG_IMA`. A process that duplicated the descriptor
/// like a debugger (`pidfd_getfd(2)`) is never noticed. System V segments have no lock: a process
/// that attaches by an old id while the segment is being zeroed is noticed, and the segment is not
/// reused, but the process has seen zeros.
///
/// While a forked child lives that has not executed another program, nothing is reused. In the
/// child itself all segments are created. While a memfd is being zeroed, an attempt to open it by
/// its old id fails, and sends SIGURG to this process, which is ignored unless there is a handler.
///
/// # Examples
///
/// ```
/// use shmem_providers::{ShMemProvider, StdShMemPool};
///
/// let mut pool = StdShMemPool::new()?;
/// for round in 0..100 {
///     let mut input = pool.new_shmem(65536)?; // created in the first round, then reused
///     assert_eq!(input[0], 0);
///     input.fill(round);
/// }
/// # Ok::<(), shmem_providers::Error>(())
/// ```
pub struct ShMemPool<B: Exclusive + Sparse> {
    shared: Arc<Shared<B>>,
}

struct Shared<B: Exclusive + Sparse> {
    provider: Provider<B>,
    owner: Owner,
    max_segments: usize,
    max_bytes: usize,
    /// `None` if forked children cannot be noticed. Created before the first segment, so that a child
    /// that inherits a segment inherits the witness too.
    witness: OnceLock<Option<ForkWitness>>,
    idle: Mutex<Idle<B>>,
}

/// The segments that are not in use; the last one was dropped last.
struct Idle<B: Exclusive + Sparse> {
    segments: Vec<Segment<B>>,
    bytes: usize,
}

/// How many idle segments are tried before a segment is created.
const MAX_CANDIDATES: usize = 4;

impl<B: Exclusive + Sparse> ShMemPool<B> {
    /// Creates a pool over this provider that keeps at most `max_segments` idle segments, which have
    /// at most `max_bytes` bytes together.
    #[must_use]
    pub fn over(provider: Provider<B>, max_segments: usize, max_bytes: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                provider,
                owner: Owner::current(),
                max_segments,
                max_bytes,
                witness: OnceLock::new(),
                idle: Mutex::new(Idle {
                    segments: Vec::new(),
                    bytes: 0,
                }),
            }),
        }
    }

    /// Returns how many idle segments the pool keeps.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.shared.idle(|idle| idle.segments.len()).unwrap_or(0)
    }

    fn pooled(&self, segment: Segment<B>, is_reusable: bool) -> PooledShMem<B> {
        PooledShMem::new(segment, is_reusable, &self.shared)
    }
}

impl<B: Exclusive + Sparse> Shared<B> {
    /// Calls `work` with the idle segments. Returns `None` in a forked child: the segments are not
    /// the child's, and the lock may have been copied while another thread held it.
    fn idle<T>(&self, work: impl FnOnce(&mut Idle<B>) -> T) -> Option<T> {
        self.owner.is_current().then(|| work(&mut self.lock()))
    }

    /// Locks the idle segments. Only for the owner.
    fn lock(&self) -> MutexGuard<'_, Idle<B>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns an idle segment of this size that no other process has, zeroed. Only for the owner.
    ///
    /// The order of the steps matters. Once a candidate is taken, nothing in this process uses it,
    /// so a child that is forked from then on does not use it either. A child that was forked
    /// earlier, while the segment was in use, is counted when `no_children_alive` is called. An
    /// answer from before the candidate was taken proves nothing: since then, another thread could
    /// have forked a child and dropped the segment. `tests/model/pool.rs` checks all orders of events.
    fn reuse(&self, size: usize, witness: &ForkWitness) -> Option<Segment<B>> {
        for _ in 0..MAX_CANDIDATES {
            let mut segment = self.lock().take(size)?;
            let no_children_alive = witness.no_children_alive();
            if no_children_alive && segment.with_exclusive(Segment::clear) {
                return Some(segment);
            }
            // A segment that another process has goes to the end, so that it is not tried each
            // time.
            self.keep(segment, |idle, segment| idle.segments.insert(0, segment));
            if !no_children_alive {
                return None;
            }
        }
        None
    }

    /// Keeps a segment that is no longer in use, if the limits allow it. Not in a forked child.
    fn keep(&self, segment: Segment<B>, put: impl FnOnce(&mut Idle<B>, Segment<B>)) {
        let mut segment = Some(segment);
        self.idle(|idle| {
            let len = segment.as_ref().map_or(0, ShMem::len);
            let bytes = idle.bytes.saturating_add(len);
            let fits = idle.segments.len() < self.max_segments
                && bytes <= self.max_bytes
                && idle.segments.try_reserve(1).is_ok();
            if let Some(segment) = segment.take_if(|_| fits) {
                idle.bytes = bytes;
                put(idle, segment);
            }
        });
        // If the segment was not kept, it is dropped here, after the lock was released.
    }
}

impl<B: Exclusive + Sparse> Idle<B> {
    fn take(&mut self, size: usize) -> Option<Segment<B>> {
        let index = self.segments.iter().rposition(|s| s.len() == size)?;
        self.bytes = self.bytes.saturating_sub(size);
        Some(self.segments.remove(index))
    }
}

impl<B: Exclusive + Sparse> ShMemProvider for ShMemPool<B> {
    type ShMem = PooledShMem<B>;

    /// Creates a pool that keeps at most 32 idle segments, which have at most 64 MiB together.
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
            return Ok(self.pooled(segment, false));
        };
        if let Some(segment) = self.shared.reuse(size, witness) {
            return Ok(self.pooled(segment, true));
        }
        let segment = self.shared.provider.create(Request {
            exclusive_check: true,
            ..Request::zeroed(size)
        })?;
        Ok(self.pooled(segment, true))
    }

    fn shmem_from_id(&mut self, id: ShMemId) -> Result<PooledShMem<B>, Error> {
        let segment = self.shared.provider.clone().shmem_from_id(id)?;
        Ok(self.pooled(segment, false))
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
        Ok(self.pooled(segment, false))
    }

    fn existing_from_env(&mut self, env_name: &str) -> Result<PooledShMem<B>, Error> {
        let segment = self.shared.provider.clone().existing_from_env(env_name)?;
        Ok(self.pooled(segment, false))
    }

    fn existing_from_env_read_only(
        &mut self,
        env_name: &str,
    ) -> Result<ReadOnly<PooledShMem<B>>, Error> {
        let mut provider = self.shared.provider.clone();
        let segment = provider.existing_from_env_read_only(env_name)?;
        Ok(segment.map(|segment| self.pooled(segment, false)))
    }

    fn shmem_from_id_read_only(&mut self, id: ShMemId) -> Result<ReadOnly<PooledShMem<B>>, Error> {
        let segment = self.shared.provider.clone().shmem_from_id_read_only(id)?;
        Ok(segment.map(|segment| self.pooled(segment, false)))
    }

    fn shmem_from_id_and_size_read_only(
        &mut self,
        id: ShMemId,
        size: usize,
    ) -> Result<ReadOnly<PooledShMem<B>>, Error> {
        let mut provider = self.shared.provider.clone();
        let segment = provider.shmem_from_id_and_size_read_only(id, size)?;
        Ok(segment.map(|segment| self.pooled(segment, false)))
    }

    // `clone_ref` is the default, which opens the segment by its id: a duplicated handle would not
    // be noticed.

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
