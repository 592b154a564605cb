//! [`Snapshot`]: an image of a segment that nobody can change any more, and [`View`]s of it, which
//! everybody can change for himself.

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

/// The content of a segment at one moment, which nobody can change any more.
///
/// Any process of the same user opens a [`View`] of it by its id.
///
/// # Lifetime
///
/// Until the last process drops the snapshot and its views of it, or ends.
///
/// # Security
///
/// Nobody can write it, whoever opens it: the kernel sees to that.
///
/// # Platform notes
///
/// Linux, where segments are memfds: a copy sealed with `F_SEAL_WRITE` (`fcntl(2)`). With other mechanisms
/// it is [`Error::Unsupported`]; there, keep a copy on the heap, and to reset a segment copy it back.
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

/// A snapshot, mapped so that what is written to it is seen by this process alone.
///
/// A page takes memory of its own from when it is first written until [`reset`](Self::reset). No other
/// process reads or writes what a view shows, so it dereferences to its bytes without a contract. A
/// child that is forked gets a view of its own.
pub struct View<B: Snapshots> {
    mapping: Mapping,
    /// Keeps the snapshot for others to open.
    handle: B::Handle,
    id: ShMemId,
    backend: B,
}

impl<B: Snapshots> Provider<B> {
    /// Takes a snapshot of a segment: copies those parts of it that have memory, and seals the copy.
    ///
    /// It is under the [contract of the slice](ShMem#the-contract-of-the-slice): nobody else may write
    /// the segment meanwhile. It pays where a state is restored again and again, because
    /// [`View::reset`] takes time for the pages that were written, and none for the rest. It hurts
    /// where most pages are written each time: every first write to a page then copies it, by way of
    /// a page fault.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if the mechanism cannot do it, [`Error::Released`] if the segment was released,
    /// otherwise as [`new_shmem`](crate::ShMemProvider::new_shmem).
    pub fn snapshot(&mut self, segment: &Segment<B>) -> Result<Snapshot<B>> {
        if segment.is_empty() {
            return Err(Error::Released { id: segment.id() })?;
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
    /// As [`shmem_from_id`](crate::ShMemProvider::shmem_from_id), and [`Error::Foreign`] if it is no
    /// snapshot that the id names, or [`Error::Unsupported`] if the mechanism has none.
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
    /// The id that opens a view in any process of this user. It opens nothing else.
    #[must_use]
    pub fn id(&self) -> ShMemId {
        self.id
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: there is always a byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A view in this process.
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
    /// The id of the snapshot.
    #[must_use]
    pub fn id(&self) -> ShMemId {
        self.id
    }

    /// Returns another view of the same snapshot, without what was written to this one.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if the system refuses.
    pub fn duplicate(&self) -> Result<Self> {
        let handle = self.backend.duplicate(&self.handle)?;
        view(&self.backend, handle, self.id)
    }

    /// Forgets what was written: the bytes are those of the snapshot again.
    ///
    /// Its time goes with the number of pages that were touched since the last time, whatever the
    /// size of the view; each of them costs a page fault when it is touched next.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if the system refuses. Then nothing is certain but that the bytes are those of the
    /// snapshot or those written.
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
