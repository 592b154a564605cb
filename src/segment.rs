//! [`Provider`] and [`Segment`]: both traits, implemented once over a [`Room`].

use core::fmt;
use core::ops::{Deref, DerefMut, Range};

use crate::error::{Error, Result};
use crate::id::ShMemId;
use crate::memory::access::Access;
use crate::memory::mapping::Mapping;
use crate::memory::size::check_size;
use crate::options::{CANNOT, Grants, ShMemOptions};
use crate::process::Owner;
use crate::traits::ShMem;
use crate::traits::ShMemProvider;

/// One mechanism of the operating system: all that the common code knows of it.
///
/// It is sealed: outside of the crate this trait cannot be named.
pub trait Room: Clone + fmt::Debug + Default {
    /// What keeps the segment alive in this process besides the mapping, and finds it again.
    type Handle: fmt::Debug;

    /// Makes a segment of `size` zero bytes, and maps it. After an error nothing is left.
    fn create(&self, size: usize) -> Result<Fresh<Self::Handle>>;

    /// Opens what the id names. What it leads to is believed nothing yet.
    fn open(&self, id: &ShMemId) -> Result<Self::Handle>;

    /// As [`open`](Self::open). Where several objects could be meant, the one that is expected.
    fn open_expecting(&self, id: &ShMemId, expected: Expected) -> Result<Self::Handle> {
        let _ = expected;
        self.open(id)
    }

    /// One more handle to the same segment.
    fn duplicate(&self, handle: &Self::Handle) -> Result<Self::Handle>;

    /// Maps the first `len` bytes, or all. Checks before that the handle leads to a segment which
    /// belongs to this user, has as many bytes, and cannot shrink if the mechanism can promise
    /// that.
    fn map(&self, handle: &Self::Handle, len: Option<usize>) -> Result<Mapping>;

    /// As [`create`](Self::create), with as much of the options as can be had.
    fn create_with(
        &self,
        size: usize,
        options: ShMemOptions,
    ) -> Result<(Fresh<Self::Handle>, Grants)> {
        let grants = options.refused(&CANNOT)?;
        Ok((self.create(size)?, grants))
    }

    /// Makes a segment of these bytes, of which there are some.
    fn create_from(&self, bytes: &[u8]) -> Result<Fresh<Self::Handle>> {
        let mut fresh = self.create(bytes.len())?;
        fresh.mapping.as_mut_slice().copy_from_slice(bytes);
        Ok(fresh)
    }

    /// As [`map`](Self::map), with as much of the options as can be had.
    fn map_with(
        &self,
        handle: &Self::Handle,
        len: Option<usize>,
        options: ShMemOptions,
    ) -> Result<(Mapping, Grants)> {
        let grants = options.refused(&CANNOT)?;
        Ok((self.map(handle, len)?, grants))
    }

    /// The first part from `from` on that has memory, of a segment of `len` bytes.
    fn next_touched(
        &self,
        handle: &Self::Handle,
        from: usize,
        len: usize,
    ) -> Result<Option<Range<usize>>> {
        let _ = (handle, from, len);
        Err(CANNOT)
    }

    /// Gives back the memory of these bytes, which are zeros from then on.
    fn trim(&self, handle: &Self::Handle, range: Range<usize>) -> Result<()> {
        let _ = (handle, range);
        Err(CANNOT)
    }

    /// As [`create`](Self::create), for who will ask whether others hold the segment. Its handle is
    /// not to be duplicated.
    fn create_countable(&self, size: usize) -> Result<Fresh<Self::Handle>> {
        self.create(size)
    }

    /// Whether there is an answer to [`seclude`](Self::seclude).
    fn is_countable(&self, handle: &Self::Handle) -> bool {
        let _ = handle;
        false
    }

    /// If no other process holds the segment, and this one holds it once, keeps others out where the
    /// mechanism can. Children that were forked need not be seen. `None` if somebody else holds it, or
    /// if it cannot be known.
    fn seclude(&self, handle: &Self::Handle) -> Option<Seclusion> {
        let _ = handle;
        None
    }

    /// Ends that. `false` if somebody else has had the segment since, even if it no longer does.
    fn end_seclusion(&self, handle: &Self::Handle, since: Seclusion) -> bool {
        let _ = (handle, since);
        false
    }

    /// Makes a copy of these bytes that nobody can change; those outside of the ranges are zeros.
    fn create_image(
        &self,
        bytes: &[u8],
        ranges: impl Iterator<Item = Range<usize>>,
    ) -> Result<(Self::Handle, ShMemId)> {
        let _ = (bytes, ranges);
        Err(CANNOT)
    }

    /// Maps all of what [`create_image`](Self::create_image) has made, so that what is written stays
    /// in this process.
    fn map_private(&self, handle: &Self::Handle) -> Result<Mapping> {
        let _ = handle;
        Err(CANNOT)
    }

    /// Forgets what was written to such a mapping.
    fn reset(&self, mapping: &mut Mapping) -> Result<()> {
        let _ = mapping;
        Err(CANNOT)
    }

    /// Takes away the name, so that the segment ends with its last holder.
    fn unlink(&self, handle: &Self::Handle, id: &ShMemId) -> Result<()>;

    /// Looks whether what the mechanism needs is there. Most need nothing.
    fn start(&self) -> Result<()> {
        Ok(())
    }

    /// A child will be forked.
    fn pre_fork(&self) -> Result<()> {
        Ok(())
    }

    /// A child was forked, and this may be it.
    fn post_fork(&self, is_child: bool) -> Result<()> {
        let _ = is_child;
        Ok(())
    }
}

/// What the object that an id names should be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected {
    /// How many bytes it has at least.
    pub(crate) len: Option<usize>,
    /// Whether it is a snapshot.
    pub(crate) is_snapshot: bool,
}

impl Expected {
    /// A segment that has this many bytes, or any.
    pub(crate) fn segment(len: Option<usize>) -> Self {
        Self {
            len,
            is_snapshot: false,
        }
    }

    /// A snapshot.
    pub(crate) fn snapshot() -> Self {
        Self {
            len: None,
            is_snapshot: true,
        }
    }
}

/// That nobody else held a segment at some moment: what the mechanism compares with later.
#[derive(Clone, Copy, Debug)]
pub struct Seclusion(pub(crate) u32);

/// A segment that has just been made.
#[derive(Debug)]
pub struct Fresh<Handle> {
    pub(crate) handle: Handle,
    pub(crate) id: ShMemId,
    pub(crate) mapping: Mapping,
    pub(crate) end: End,
}

impl<Handle> Fresh<Handle> {
    /// The same segment with its handle as another type.
    pub(crate) fn with_handle<Other>(self, handle: impl FnOnce(Handle) -> Other) -> Fresh<Other> {
        Fresh {
            handle: handle(self.handle),
            id: self.id,
            mapping: self.mapping,
            end: self.end,
        }
    }
}

/// How a segment comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The kernel frees it with its last holder.
    WithLastHolder,
    /// It has a name that lives by itself, to be unlinked by the process that made it.
    Unlinked,
}

/// How a segment came into this process, and with that, what is to be done when it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Another one made it, and ends it.
    Attached,
    /// Made here; the kernel ends it.
    Made,
    /// Made here, to be unlinked, but not by a child that this process forks.
    MadeBy(Owner),
}

/// Makes and opens the segments of one mechanism.
///
/// Which one, says the alias: [`StdShMemProvider`](crate::StdShMemProvider),
/// [`MemfdShMemProvider`](crate::MemfdShMemProvider), [`UnixShMemProvider`](crate::UnixShMemProvider),
/// [`MmapShMemProvider`](crate::MmapShMemProvider).
#[derive(Clone, Debug, Default)]
pub struct Provider<R> {
    pub(crate) room: R,
}

/// A segment of one mechanism, mapped into this process.
///
/// Dropping it gives up this process's hold. It dereferences to its bytes, under the contract that
/// [`ShMem`](ShMem#the-contract-of-the-slice) states; [`ShMem::access`] is the way without a contract.
pub struct Segment<R: Room> {
    mapping: Mapping,
    pub(crate) id: ShMemId,
    origin: Origin,
    /// `None` once released.
    pub(crate) handle: Option<R::Handle>,
    room: R,
}

impl<R: Room> Provider<R> {
    /// Takes a segment that the room has made.
    pub(crate) fn adopt(&self, fresh: Fresh<R::Handle>) -> Segment<R> {
        let origin = match fresh.end {
            End::WithLastHolder => Origin::Made,
            End::Unlinked => Origin::MadeBy(Owner::current()),
        };
        Segment {
            mapping: fresh.mapping,
            id: fresh.id,
            origin,
            handle: Some(fresh.handle),
            room: self.room.clone(),
        }
    }

    fn attach(&self, id: ShMemId, len: Option<usize>) -> Result<Segment<R>> {
        len.map_or(Ok(0), check_size)?;
        let handle = self.room.open_expecting(&id, Expected::segment(len))?;
        self.mapped(handle, id, len)
    }

    fn mapped(&self, handle: R::Handle, id: ShMemId, len: Option<usize>) -> Result<Segment<R>> {
        let mapping = self.room.map(&handle, len)?;
        Ok(self.attached(handle, id, mapping))
    }

    /// A segment that another one has made.
    pub(crate) fn attached(&self, handle: R::Handle, id: ShMemId, mapping: Mapping) -> Segment<R> {
        Segment {
            mapping,
            id,
            origin: Origin::Attached,
            handle: Some(handle),
            room: self.room.clone(),
        }
    }
}

impl<R: Room> ShMemProvider for Provider<R> {
    type ShMem = Segment<R>;

    fn new() -> Result<Self, crate::Error> {
        let provider = Self::default();
        provider.room.start()?;
        Ok(provider)
    }

    fn new_shmem(&mut self, map_size: usize) -> Result<Self::ShMem, crate::Error> {
        let fresh = self.room.create(check_size(map_size)?)?;
        Ok(self.adopt(fresh))
    }

    fn shmem_from_id(&mut self, id: ShMemId) -> Result<Self::ShMem, crate::Error> {
        let segment = self.attach(id, None)?;
        Ok(segment)
    }

    fn shmem_from_id_and_size(
        &mut self,
        id: ShMemId,
        size: usize,
    ) -> Result<Self::ShMem, crate::Error> {
        let segment = self.attach(id, Some(size))?;
        Ok(segment)
    }

    /// Maps the segment by the handle of `mapping`, so this works whatever has become of the id.
    fn clone_ref(&mut self, mapping: &Self::ShMem) -> Result<Self::ShMem, crate::Error> {
        let Some(handle) = &mapping.handle else {
            return Err(Error::Released { id: mapping.id })?;
        };
        let handle = self.room.duplicate(handle)?;
        let segment = self.mapped(handle, mapping.id, Some(mapping.len()))?;
        Ok(segment)
    }

    fn pre_fork(&mut self) -> Result<(), crate::Error> {
        self.room.pre_fork()?;
        Ok(())
    }

    fn post_fork(&mut self, is_child: bool) -> Result<(), crate::Error> {
        self.room.post_fork(is_child)?;
        Ok(())
    }

    fn release_shmem(&mut self, shmem: &mut Self::ShMem) {
        shmem.release();
    }
}

impl<R: Room> Segment<R> {
    /// Whether this process made the segment, rather than attached to it.
    #[must_use]
    pub fn is_owner(&self) -> bool {
        self.origin != Origin::Attached
    }

    /// The bytes, to be accessed by several at the same time, in this process too.
    ///
    /// # Safety
    ///
    /// While the access lives, nobody makes a slice of the segment.
    #[cfg(feature = "std")]
    #[allow(unsafe_code)]
    pub(crate) unsafe fn shared_access(&self) -> Access<'_> {
        // SAFETY: demanded from the caller.
        unsafe { self.mapping.shared_access() }
    }

    pub(crate) fn room(&self) -> &R {
        &self.room
    }

    /// Leaves the name alone from now on.
    pub(crate) fn keep_name(&mut self) {
        if let Origin::MadeBy(_) = self.origin {
            self.origin = Origin::Made;
        }
    }

    /// The segment, of which nothing is left here.
    #[cfg(feature = "std")]
    pub(crate) fn take(&mut self) -> Self {
        Self {
            mapping: core::mem::replace(&mut self.mapping, Mapping::empty()),
            id: self.id,
            origin: self.origin,
            handle: self.handle.take(),
            room: self.room.clone(),
        }
    }

    /// Whether it can be told if others hold it.
    #[cfg(feature = "std")]
    pub(crate) fn is_countable(&self) -> bool {
        self.handle
            .as_ref()
            .is_some_and(|handle| self.room.is_countable(handle))
    }

    /// Does the work if nobody else holds the segment, and says whether nobody did meanwhile.
    #[cfg(feature = "std")]
    pub(crate) fn is_secluded_while(&mut self, work: impl FnOnce(&mut Self)) -> bool {
        let handle = self.handle.as_ref();
        let Some(since) = handle.and_then(|handle| self.room.seclude(handle)) else {
            return false;
        };
        work(self);
        let handle = self.handle.as_ref();
        handle.is_some_and(|handle| self.room.end_seclusion(handle, since))
    }

    fn release(&mut self) {
        self.mapping = Mapping::empty();
        let Some(handle) = self.handle.take() else {
            return;
        };
        if matches!(self.origin, Origin::MadeBy(maker) if maker.is_current()) {
            // There is nobody to tell, and nothing else that could be done.
            let _ = self.room.unlink(&handle, &self.id);
        }
    }
}

impl<R: Room> Drop for Segment<R> {
    fn drop(&mut self) {
        self.release();
    }
}

// SAFETY: a segment has one mapping, which is aligned and stays until it is dropped or released,
// both of which need the segment unborrowed.
#[allow(unsafe_code)]
unsafe impl<R: Room> ShMem for Segment<R> {
    fn id(&self) -> ShMemId {
        self.id
    }

    fn len(&self) -> usize {
        self.mapping.len()
    }

    fn access(&mut self) -> Access<'_> {
        self.mapping.access()
    }

    fn as_ptr_of<T: Sized>(&self) -> Option<*const T> {
        self.mapping.start_as::<T>().map(<*mut T>::cast_const)
    }

    fn as_mut_ptr_of<T: Sized>(&mut self) -> Option<*mut T> {
        self.mapping.start_as()
    }
}

impl<R: Room> Deref for Segment<R> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.mapping.as_slice()
    }
}

impl<R: Room> DerefMut for Segment<R> {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.mapping.as_mut_slice()
    }
}

impl<R: Room> fmt::Debug for Segment<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("id", &self.id)
            .field("mapping", &self.mapping)
            .field("origin", &self.origin)
            .field("handle", &self.handle)
            .finish_non_exhaustive()
    }
}
