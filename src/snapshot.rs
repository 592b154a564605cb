//! [`Snapshot`]: an immutable copy of a segment, and [`View`]: a private copy-on-write mapping of it.

use core::fmt;
use core::ops::{Deref, DerefMut};

use crate::backend::Expected;
use crate::backend::Snapshots;
use crate::error::{Error, Result};
use crate::id::ShMemId;
use crate::memory::mapping::Mapping;
use crate::provider::Provider;
use crate::segment::Segment;
use crate::sparse::DataOrAll;
use crate::traits::ShMem;

/// An immutable copy of a segment. [`StdSnapshot`](crate::StdSnapshot) is that of the default
/// provider.
///
/// Any process of the same user opens a [`View`] of it by its id.
///
/// # Lifetime
///
/// Until the last process that holds the snapshot or a view of it drops them or ends.
///
/// # Security
///
/// No process can write to it: the kernel refuses that.
///
/// # Platform notes
///
/// Linux, where segments are memfds: the copy is sealed with `F_SEAL_WRITE` (`fcntl(2)`). Other
/// mechanisms return [`Error::Unsupported`]; there, keep a copy on the heap, and copy it back to
/// reset a segment.
///
/// # Examples
///
/// ```
/// use shmem_providers::{MemfdShMemProvider, ShMem, ShMemProvider};
///
/// let mut provider = MemfdShMemProvider::new()?;
/// let state = provider.shmem_from_bytes(b"before")?;
/// let snapshot = provider.snapshot(&state)?;
///
/// let mut view = provider.view_from_id(snapshot.id())?; // in any process of this user
/// view.copy_from_slice(b"change");
/// assert_eq!(&snapshot.view()?[..], b"before");
/// view.reset()?;
/// assert_eq!(&view[..], b"before");
/// # Ok::<(), shmem_providers::Error>(())
/// ```
pub struct Snapshot<B: Snapshots> {
    handle: B::Handle,
    id: ShMemId,
    len: usize,
    backend: B,
}

/// A snapshot, mapped copy-on-write: only this process sees what it writes.
/// [`StdView`](crate::StdView) is that of a [`StdSnapshot`](crate::StdSnapshot).
///
/// A page takes memory of its own from the first write to it until [`reset`](Self::reset). No other
/// process reads or writes the bytes of a view, so it dereferences to them without a contract. A
/// forked child gets a view of its own.
pub struct View<B: Snapshots> {
    mapping: Mapping,
    /// Keeps the snapshot alive, so that others can open it.
    handle: B::Handle,
    id: ShMemId,
    backend: B,
}

impl<B: Snapshots> Provider<B> {
    /// Takes a snapshot of a segment: copies the parts that have memory, and seals the copy.
    ///
    /// The [contract of the slice](ShMem#the-contract-of-the-slice) applies: no other process may
    /// write to the segment during the call. Snapshots are worth it where a state is restored many
    /// times, because [`View::reset`] takes time only for the pages that were written. They are
    /// slow where most pages are written each time: the first write to a page causes a page fault
    /// that copies it.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if the mechanism has no snapshots, [`Error::Released`] if the segment
    /// was released, otherwise as [`new_shmem`](crate::ShMemProvider::new_shmem).
    pub fn snapshot(&mut self, segment: &Segment<B>) -> Result<Snapshot<B>> {
        if segment.is_empty() {
            return Err(Error::Released { id: segment.id() });
        }
        let (handle, id) = self
            .backend
            .create_snapshot(segment, DataOrAll::of(segment))?;
        Ok(Snapshot {
            handle,
            id,
            len: segment.len(),
            backend: self.backend.clone(),
        })
    }

    /// Opens a view of the snapshot with this id.
    ///
    /// # Errors
    ///
    /// As [`shmem_from_id`](crate::ShMemProvider::shmem_from_id), [`Error::Foreign`] if the id
    /// names something else than a snapshot, [`Error::Unsupported`] if the mechanism has no
    /// snapshots.
    pub fn view_from_id(&mut self, id: ShMemId) -> Result<View<B>> {
        let handle = self.backend.open(&id, Expected::snapshot())?;
        view(&self.backend, handle, id)
    }
}

fn view<B: Snapshots>(backend: &B, handle: B::Handle, id: ShMemId) -> Result<View<B>> {
    Ok(View {
        mapping: backend.map_private(&handle)?,
        handle,
        id,
        backend: backend.clone(),
    })
}

impl<B: Snapshots> Snapshot<B> {
    /// Returns the id that opens a view in any process of this user. It opens nothing else.
    #[must_use]
    pub fn id(&self) -> ShMemId {
        self.id
    }

    /// Returns the size in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Always `false`: a snapshot is never empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Opens a view in this process.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if the system refuses.
    pub fn view(&self) -> Result<View<B>> {
        let handle = self.backend.duplicate(&self.handle)?;
        view(&self.backend, handle, self.id)
    }
}

impl<B: Snapshots> View<B> {
    /// Returns the id of the snapshot.
    #[must_use]
    pub fn id(&self) -> ShMemId {
        self.id
    }

    /// Opens another view of the same snapshot, without what was written to this one.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if the system refuses.
    pub fn duplicate(&self) -> Result<Self> {
        let handle = self.backend.duplicate(&self.handle)?;
        view(&self.backend, handle, self.id)
    }

    /// Discards what was written: the bytes are those of the snapshot again.
    ///
    /// This takes time for the pages that were touched since the last reset, independently of the
    /// size of the view. The next access to each of these pages causes a page fault.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if the system refuses. Then each page contains either the bytes of the
    /// snapshot or those that were written.
    pub fn reset(&mut self) -> Result<()> {
        self.backend.reset(&mut self.mapping)?;
        Ok(())
    }
}

impl<B: Snapshots> Deref for View<B> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.mapping.as_slice()
    }
}

impl<B: Snapshots> DerefMut for View<B> {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.mapping.as_mut_slice()
    }
}

impl<B: Snapshots> fmt::Debug for Snapshot<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("id", &self.id)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl<B: Snapshots> fmt::Debug for View<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("id", &self.id)
            .field("mapping", &self.mapping)
            .finish_non_exhaustive()
    }
}
