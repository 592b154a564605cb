//! [`Backend`]: what the common code knows of one mechanism of the operating system.
//!
//! A backend implements five methods of [`Backend`]; those about descriptors and persistent segments
//! have defaults. What else only some mechanisms can do is in [`Exclusive`], [`Sparse`], [`Growable`] and
//! [`Snapshots`], whose default methods return [`Unsupported`](crate::Error::Unsupported); the start and
//! the forks of a connection are in [`Lifecycle`]. All of these traits are sealed: [`Lifecycle`] cannot be named outside of the crate.

use core::fmt;
use core::ops::Range;

use crate::error::{Error, Result};
use crate::id::ShMemId;
use crate::memory::mapping::{Mapping, Protection};
use crate::options::{NO_GROWTH, OptionReport, ShMemOptions, UNSUPPORTED};
use crate::sys::{BorrowedFd, OwnedFd};

/// A mechanism of the operating system that provides shared memory.
///
/// Use it as a bound in functions that accept the segments or the provider of every mechanism. The
/// trait is sealed: its methods are internal, and other crates cannot implement it.
///
/// # Examples
///
/// ```
/// use shmem_providers::{Backend, Provider, Segment, ShMemProvider, StdShMemProvider};
///
/// fn filled<B: Backend>(provider: &mut Provider<B>, byte: u8) -> shmem_providers::Result<Segment<B>> {
///     let mut segment = provider.new_shmem(4096)?;
///     segment.fill(byte);
///     Ok(segment)
/// }
///
/// let segment = filled(&mut StdShMemProvider::new()?, 7)?;
/// assert_eq!(segment[4095], 7);
/// # Ok::<(), shmem_providers::Error>(())
/// ```
pub trait Backend: Lifecycle + Clone + fmt::Debug + Default {
    /// Keeps the segment alive in this process, besides the mapping, and duplicates it.
    #[doc(hidden)]
    type Handle: fmt::Debug;

    /// Creates a segment and maps it. After an error nothing is left behind.
    ///
    /// Sets the status of every option that was asked for in `report`. The report is not part of the
    /// result because it is large, and rarely asked for.
    #[doc(hidden)]
    fn create(
        &self,
        request: Request<'_>,
        report: &mut OptionReport,
    ) -> Result<Created<Self::Handle>>;

    /// Creates a segment for a service, which hands out its descriptor: as [`create`](Self::create), but if
    /// it has a single writer, the descriptor can be one that permits reading only.
    #[doc(hidden)]
    fn create_served(
        &self,
        request: Request<'_>,
        report: &mut OptionReport,
    ) -> Result<Created<Self::Handle>> {
        self.create(request, report)
    }

    /// Opens the object named by `id`. Nothing about it is trusted until [`map`](Self::map) has
    /// checked it. If several objects could be meant, opens the one that is expected.
    #[doc(hidden)]
    fn open(&self, id: &ShMemId, expected: Expected) -> Result<Self::Handle>;

    /// Returns another handle to the same segment.
    #[doc(hidden)]
    fn duplicate(&self, handle: &Self::Handle) -> Result<Self::Handle>;

    /// Maps the segment. Before that, checks that it belongs to this user, is large enough, and, where
    /// the mechanism can promise it, cannot shrink. If it is mapped for reading, this process cannot
    /// make the mapping writable, where the mechanism can promise that.
    ///
    /// Sets the status of every option that was asked for in `report`.
    #[doc(hidden)]
    fn map(
        &self,
        handle: &Self::Handle,
        attach: Attach,
        report: &mut OptionReport,
    ) -> Result<Mapping>;

    /// Removes the name, so that the segment ends with its last holder.
    #[doc(hidden)]
    fn unlink(&self, handle: &Self::Handle, id: &ShMemId) -> Result<()>;

    /// Returns the descriptor of the segment, if the mechanism has descriptors.
    #[doc(hidden)]
    fn descriptor<'a>(&self, handle: &'a Self::Handle) -> Option<BorrowedFd<'a>> {
        let _ = handle;
        None
    }

    /// Returns the locks that the service of the segment keeps, if it has a service.
    #[cfg(feature = "std")]
    #[doc(hidden)]
    fn locks<'a>(&self, handle: &'a Self::Handle) -> Option<&'a dyn crate::sys::locks::Locks> {
        let _ = handle;
        None
    }

    /// Converts a descriptor that came from another process, and may refer to anything, to a handle.
    /// As after [`open`](Self::open), nothing is trusted until [`map`](Self::map) has checked it; what
    /// `map` does not check is checked here.
    ///
    /// Also returns the id of the segment: `known`, if the backend has ids of that kind and the object can
    /// have that id. Otherwise an id that opens the segment, or the empty id if none is known to.
    #[doc(hidden)]
    fn adopt(&self, fd: OwnedFd, known: Option<ShMemId>) -> Result<(Self::Handle, ShMemId)> {
        let _ = (fd, known);
        Err(NO_DESCRIPTORS)
    }

    /// Creates a segment that [`persist`](Self::persist) can keep, as [`create`](Self::create) does.
    #[doc(hidden)]
    fn create_persistable(
        &self,
        request: Request<'_>,
        report: &mut OptionReport,
    ) -> Result<Created<Self::Handle>> {
        let _ = (request, report);
        Err(NOT_PERSISTENT)
    }

    /// Keeps the segment after its last holder, until its name is removed.
    #[doc(hidden)]
    fn persist(&self, handle: &Self::Handle) -> Result<()> {
        let _ = handle;
        Err(NOT_PERSISTENT)
    }

    /// Removes the name of a segment with a random name, if there is one: always, or only if no process is
    /// known to hold it. The kernel frees all other segments by itself.
    #[doc(hidden)]
    fn forget(id: &ShMemId, if_unused: bool) {
        let _ = (id, if_unused);
    }
}

/// Why a descriptor is not that of the segment with a known id.
pub(crate) const NOT_THE_ONE: Error = Error::Foreign {
    found: "it is another segment than the one that the id names",
};

/// Returned where a mechanism has no descriptors.
pub(crate) const NO_DESCRIPTORS: Error = Error::Unsupported {
    what: "segments of this kind have no descriptor: hand on the id",
};

/// Why a segment cannot outlive its holders.
const NOT_PERSISTENT: Error = Error::Unsupported {
    what: "the segments of this provider end with their last holder, so that none can stay until it is \
           removed: use MmapShMemProvider, whose segments can",
};

/// What a backend with a connection does at the start and around a `fork()`. Most do nothing.
pub trait Lifecycle {
    /// Checks that what the mechanism needs is available.
    fn start(&self) -> Result<()> {
        Ok(())
    }

    /// Called before this process forks.
    fn pre_fork(&self) -> Result<()> {
        Ok(())
    }

    /// Called after a `fork()`, in the parent and in the child.
    fn post_fork(&self, is_child: bool) -> Result<()> {
        let _ = is_child;
        Ok(())
    }
}

/// Backends that can tell whether this process is the only holder of a segment.
///
/// By default they cannot. The trait is sealed.
pub trait Exclusive: Backend {
    /// Returns `true` if [`try_lock_exclusive`](Self::try_lock_exclusive) can succeed.
    #[doc(hidden)]
    fn supports_exclusive(&self, handle: &Self::Handle) -> bool {
        let _ = handle;
        false
    }

    /// Returns a lock if this handle is the only reference to the segment, and blocks new openers
    /// where the mechanism can. Forked children are not counted. Returns `None` if there are other
    /// references, or if that is unknown.
    #[doc(hidden)]
    fn try_lock_exclusive(&self, handle: &Self::Handle) -> Option<ExclusiveLock> {
        let _ = handle;
        None
    }

    /// Releases the lock. Returns `false` if another process had the segment open meanwhile, even if
    /// it no longer does.
    #[doc(hidden)]
    fn unlock_exclusive(&self, handle: &Self::Handle, lock: ExclusiveLock) -> bool {
        let _ = (handle, lock);
        false
    }
}

/// Backends that know which parts of a segment have memory.
///
/// By default they do not, and return [`Unsupported`](crate::Error::Unsupported). The trait is sealed.
pub trait Sparse: Backend {
    /// Returns the first part at or after `from` that has memory, in a segment of `len` bytes.
    #[doc(hidden)]
    fn next_data(
        &self,
        handle: &Self::Handle,
        from: usize,
        len: usize,
    ) -> Result<Option<Range<usize>>> {
        let _ = (handle, from, len);
        Err(UNSUPPORTED)
    }

    /// Frees the memory of these bytes, which become zero.
    #[doc(hidden)]
    fn trim(&self, handle: &Self::Handle, range: Range<usize>) -> Result<()> {
        let _ = (handle, range);
        Err(UNSUPPORTED)
    }
}

/// Backends whose segments can grow.
///
/// By default they cannot, and return [`Unsupported`](crate::Error::Unsupported). The trait is sealed.
///
/// # Examples
///
/// ```
/// use shmem_providers::{Growable, MemfdShMemProvider, Segment, ShMem, ShMemOptions, ShMemProvider};
///
/// fn double<B: Growable>(segment: &mut Segment<B>) -> shmem_providers::Result<()> {
///     segment.grow_to(2 * segment.len())
/// }
///
/// let options = ShMemOptions::new().reserve(1 << 20);
/// let (mut segment, _) = MemfdShMemProvider::new()?.new_shmem_with(100, options)?;
/// double(&mut segment)?;
/// assert_eq!(segment.len(), 200);
/// # Ok::<(), shmem_providers::Error>(())
/// ```
pub trait Growable: Backend {
    /// Commits `len` bytes, unless as many are committed already, and makes the mapping cover them.
    /// `len` is not lower than that of the mapping, and at most what it has reserved.
    #[doc(hidden)]
    fn grow(&self, handle: &Self::Handle, mapping: &mut Mapping, len: usize) -> Result<()> {
        let _ = (handle, mapping, len);
        Err(NO_GROWTH)
    }
}

/// Backends that can create immutable copies of segments, and make segments immutable.
///
/// By default they cannot, and return [`Unsupported`](crate::Error::Unsupported). The trait is sealed.
pub trait Snapshots: Sparse {
    /// Creates an immutable copy of these bytes. Bytes outside of the ranges are zero in the copy.
    #[doc(hidden)]
    fn create_snapshot(
        &self,
        bytes: &[u8],
        ranges: impl Iterator<Item = Range<usize>>,
    ) -> Result<(Self::Handle, ShMemId)> {
        let _ = (bytes, ranges);
        Err(UNSUPPORTED)
    }

    /// Maps a whole snapshot copy-on-write: this process alone sees what it writes.
    #[doc(hidden)]
    fn map_private(&self, handle: &Self::Handle) -> Result<Mapping> {
        let _ = handle;
        Err(UNSUPPORTED)
    }

    /// Discards what was written to a mapping of [`map_private`](Self::map_private).
    #[doc(hidden)]
    fn reset(&self, mapping: &mut Mapping) -> Result<()> {
        let _ = mapping;
        Err(UNSUPPORTED)
    }

    /// Returns `Ok` if [`freeze`](Self::freeze) will succeed unless the segment is mapped for writing.
    #[doc(hidden)]
    fn check_freezable(&self, handle: &Self::Handle) -> Result<()> {
        let _ = handle;
        Err(NOT_FREEZABLE)
    }

    /// Makes the segment immutable. Fails as long as any process has it mapped for writing.
    #[doc(hidden)]
    fn freeze(&self, handle: &Self::Handle) -> Result<()> {
        let _ = handle;
        Err(NOT_FREEZABLE)
    }

    /// Does the same for the single writer, which has given up its mapping.
    #[doc(hidden)]
    fn freeze_own(&self, handle: &Self::Handle) -> Result<()> {
        self.freeze(handle)
    }

    /// Returns `true` if it is certain that no process can write to the object any more.
    #[doc(hidden)]
    fn is_frozen(&self, handle: &Self::Handle) -> bool {
        let _ = handle;
        false
    }
}

/// Why a segment cannot be frozen.
pub(crate) const NOT_FREEZABLE: Error = Error::Unsupported {
    what: "only a segment that was created with `ShMemOptions::single_writer` can be frozen",
};

/// Why a segment cannot be frozen yet.
pub(crate) const STILL_WRITABLE: Error = Error::Unsupported {
    what: "a process still has the segment mapped for writing: its creator, or a child that the creator \
           has forked; freeze it once that process has dropped it, executed another program or ended",
};

/// What [`Backend::create`] is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// In bytes, at least 1 and at most `isize::MAX`.
    pub(crate) size: usize,
    /// What the segment contains, exactly `size` bytes, or zeros.
    pub(crate) content: Option<&'a [u8]>,
    pub(crate) options: ShMemOptions,
    /// Whether [`Exclusive::try_lock_exclusive`] will be called for it. Then its handle must not be
    /// duplicated.
    pub(crate) exclusive_check: bool,
}

impl<'a> Request<'a> {
    /// A segment of `size` zero bytes, without options.
    pub(crate) fn zeroed(size: usize) -> Self {
        Self {
            size,
            content: None,
            options: ShMemOptions::new(),
            exclusive_check: false,
        }
    }

    /// A segment that contains `bytes`, which is not empty.
    pub(crate) fn with_content(bytes: &'a [u8]) -> Self {
        Self {
            content: Some(bytes),
            ..Self::zeroed(bytes.len())
        }
    }
}

/// What an id is expected to name.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The least size in bytes, if there is one.
    pub(crate) len: Option<usize>,
    /// Whether it is a snapshot, and not a segment.
    pub(crate) is_snapshot: bool,
    /// What it is opened for. What can only be read, frozen segments and snapshots, may be opened as a
    /// segment for reading.
    pub(crate) protection: Protection,
}

impl Expected {
    /// A segment of at least `len` bytes, or of any size.
    pub(crate) fn segment(len: Option<usize>) -> Self {
        Self {
            len,
            is_snapshot: false,
            protection: Protection::ReadWrite,
        }
    }

    /// A segment of at least `len` bytes, or of any size, which is only read.
    pub(crate) fn readable(len: Option<usize>) -> Self {
        Self {
            protection: Protection::Read,
            ..Self::segment(len)
        }
    }

    /// A snapshot.
    pub(crate) fn snapshot() -> Self {
        Self {
            len: None,
            is_snapshot: true,
            protection: Protection::ReadWrite,
        }
    }
}

/// How [`Backend::map`] maps a segment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attach {
    /// How many bytes from the start, or all.
    pub(crate) len: Option<usize>,
    pub(crate) options: ShMemOptions,
    pub(crate) protection: Protection,
}

impl Attach {
    /// Maps the first `len` bytes, or all, without options.
    pub(crate) fn plain(len: Option<usize>) -> Self {
        Self {
            len,
            options: ShMemOptions::new(),
            protection: Protection::ReadWrite,
        }
    }

    /// Maps the first `len` bytes, or all, for reading.
    pub(crate) fn for_reading(len: Option<usize>) -> Self {
        Self {
            protection: Protection::Read,
            ..Self::plain(len)
        }
    }
}

/// A segment that [`Backend::create`] has created.
#[derive(Debug)]
pub struct Created<Handle> {
    pub(crate) handle: Handle,
    pub(crate) id: ShMemId,
    pub(crate) mapping: Mapping,
    pub(crate) cleanup: Cleanup,
}

impl<Handle> Created<Handle> {
    /// Copies `content`, which has the size of the segment, into the segment, which is still private.
    pub(crate) fn filled_with(mut self, content: Option<&[u8]>) -> Self {
        if let Some(content) = content {
            self.mapping.as_mut_slice().copy_from_slice(content);
        }
        self
    }
}

/// Who frees a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cleanup {
    /// The kernel, with the last holder.
    Kernel,
    /// The process that created it, by removing its name.
    Unlink,
}

/// Proof that no other process held a segment at some moment: what
/// [`Exclusive::unlock_exclusive`] compares with.
#[derive(Clone, Copy, Debug)]
pub struct ExclusiveLock(pub(crate) u32);
