//! The default on Linux: memfd, or else System V, or else POSIX, or else a file, decided when a segment is
//! created.
//!
//! Only the attempt shows whether `memfd_create` works: the kernel may lack it, a seccomp profile
//! may forbid it, `/proc` may be missing, or descriptors may run out. Memfd and System V come first
//! because the kernel frees their segments by itself, files last because they may be on a disk. The id shows
//! which mechanism created a segment, so attaching needs no attempts.

use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;

#[cfg(feature = "std")]
use super::file::FileBackend;
use super::memfd::MemfdBackend;
use super::posix::PosixBackend;
use super::sysv::SystemVBackend;
use crate::backend::{
    Attach, Backend, Created, Exclusive, ExclusiveLock, Expected, Growable, Lifecycle, Request,
    Snapshots, Sparse,
};
use crate::error::{Error, Result};
use crate::id::ShMemId;
use crate::id::kind::{IdKind, MemfdLocator};
use crate::memory::mapping::Mapping;
use crate::options::{OptionReport, UNSUPPORTED};
use crate::provider::Provider;
use crate::segment::Segment;
use crate::sys::procfs::object::is_memfd;

/// Creates segments with the first mechanism that works in this process: memfd, or else System V,
/// or else POSIX, or else (with the feature `std`) files. It opens segments of all four.
///
/// A mechanism that the system lacks is not tried again by the same process. A mechanism that has
/// only run out of something, such as descriptors, is.
///
/// # Lifetime
///
/// Until the last process that holds the segment drops it or ends, except if it had to be a POSIX
/// segment: [`StdShMem::mechanism`](Segment::mechanism) returns the mechanism, and
/// [`MmapShMemProvider`](crate::MmapShMemProvider) explains the difference.
///
/// # Examples
///
/// ```
/// use shmem_providers::{ShMem, ShMemProvider, StdShMemProvider};
///
/// let mut provider = StdShMemProvider::new()?;
/// let mut segment = provider.new_shmem(65536)?;
/// segment[..5].copy_from_slice(b"hello");
/// assert_eq!(&provider.shmem_from_description(segment.description())?[..5], b"hello");
/// # Ok::<(), shmem_providers::Error>(())
/// ```
pub type StdShMemProvider = Provider<AutoBackend>;

/// A segment of [`StdShMemProvider`].
pub type StdShMem = Segment<AutoBackend>;

/// The backend of [`StdShMemProvider`] on Linux: the first of several mechanisms that works, or one
/// that was chosen.
#[derive(Clone, Copy, Debug, Default)]
pub struct AutoBackend {
    only: Option<Mechanism>,
}

/// The mechanism that created a segment of [`StdShMemProvider`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mechanism {
    /// That of [`MemfdShMemProvider`](crate::MemfdShMemProvider).
    Memfd,
    /// That of [`UnixShMemProvider`](crate::UnixShMemProvider).
    SystemV,
    /// That of [`MmapShMemProvider`](crate::MmapShMemProvider).
    Posix,
    /// That of [`FileShMemProvider`](crate::FileShMemProvider).
    #[cfg(feature = "std")]
    File,
}

/// The handle of one of the mechanisms.
#[derive(Debug)]
pub enum Handle {
    /// A memfd.
    Memfd(<MemfdBackend as Backend>::Handle),
    /// A System V segment.
    SystemV(<SystemVBackend as Backend>::Handle),
    /// A POSIX segment.
    Posix(<PosixBackend as Backend>::Handle),
    /// A file.
    #[cfg(feature = "std")]
    File(<FileBackend as Backend>::Handle),
}

const CANDIDATES: &[Mechanism] = &[
    Mechanism::Memfd,
    Mechanism::SystemV,
    Mechanism::Posix,
    #[cfg(feature = "std")]
    Mechanism::File,
];

/// A bit for each mechanism that this system was found to lack.
static MISSING: AtomicU8 = AtomicU8::new(0);

impl StdShMemProvider {
    /// Creates a provider that creates all of its segments with this mechanism, and returns an
    /// error where the mechanism is not available. It opens segments of all mechanisms.
    #[must_use]
    pub fn with_mechanism(mechanism: Mechanism) -> Self {
        Self {
            backend: AutoBackend {
                only: Some(mechanism),
            },
        }
    }
}

impl StdShMem {
    /// Returns the mechanism that created the segment, or `None` once it is released.
    #[must_use]
    pub fn mechanism(&self) -> Option<Mechanism> {
        self.handle.as_ref().map(|handle| match handle {
            Handle::Memfd(_) => Mechanism::Memfd,
            Handle::SystemV(_) => Mechanism::SystemV,
            Handle::Posix(_) => Mechanism::Posix,
            #[cfg(feature = "std")]
            Handle::File(_) => Mechanism::File,
        })
    }
}

/// Calls a method of the backend that the handle belongs to.
macro_rules! dispatch {
    ($handle:expr, $method:ident($($argument:expr),*)) => {
        match $handle {
            Handle::Memfd(handle) => MemfdBackend.$method(handle, $($argument),*),
            Handle::SystemV(handle) => SystemVBackend.$method(handle, $($argument),*),
            Handle::Posix(handle) => PosixBackend.$method(handle, $($argument),*),
            #[cfg(feature = "std")]
            Handle::File(handle) => FileBackend.$method(handle, $($argument),*),
        }
    };
}

impl Backend for AutoBackend {
    type Handle = Handle;

    fn create(&self, request: Request<'_>, report: &mut OptionReport) -> Result<Created<Handle>> {
        let create = |mechanism| match mechanism {
            Mechanism::Memfd => MemfdBackend.create(request, report).and_then(if_reachable),
            Mechanism::SystemV => {
                let created = SystemVBackend.create(request, report)?;
                Ok(created.map_handle(Handle::SystemV))
            }
            Mechanism::Posix => {
                let created = PosixBackend.create(request, report)?;
                Ok(created.map_handle(Handle::Posix))
            }
            #[cfg(feature = "std")]
            Mechanism::File => {
                let created = FileBackend.create(request, report)?;
                Ok(created.map_handle(Handle::File))
            }
        };
        if request.options.requires_something() {
            self.first_that_grants(create)
        } else {
            self.first_working(create)
        }
    }

    fn open(&self, id: &ShMemId, expected: Expected) -> Result<Handle> {
        match id.kind() {
            IdKind::Memfd(_) => MemfdBackend.open(id, expected).map(Handle::Memfd),
            IdKind::SystemV { .. } => SystemVBackend.open(id, expected).map(Handle::SystemV),
            IdKind::Posix => PosixBackend.open(id, expected).map(Handle::Posix),
            #[cfg(feature = "std")]
            IdKind::File => FileBackend.open(id, expected).map(Handle::File),
            _ => {
                Err(id.invalid("an id of this provider starts with `m`, a digit, a slash, or `f`"))
            }
        }
    }

    fn duplicate(&self, handle: &Handle) -> Result<Handle> {
        match handle {
            Handle::Memfd(handle) => MemfdBackend.duplicate(handle).map(Handle::Memfd),
            Handle::SystemV(handle) => SystemVBackend.duplicate(handle).map(Handle::SystemV),
            Handle::Posix(handle) => PosixBackend.duplicate(handle).map(Handle::Posix),
            #[cfg(feature = "std")]
            Handle::File(handle) => FileBackend.duplicate(handle).map(Handle::File),
        }
    }

    fn map(&self, handle: &Handle, attach: Attach, report: &mut OptionReport) -> Result<Mapping> {
        dispatch!(handle, map(attach, report))
    }

    fn unlink(&self, handle: &Handle, id: &ShMemId) -> Result<()> {
        dispatch!(handle, unlink(id))
    }

    fn descriptor<'a>(&self, handle: &'a Handle) -> Option<BorrowedFd<'a>> {
        dispatch!(handle, descriptor())
    }

    fn adopt(&self, fd: OwnedFd, known: Option<ShMemId>) -> Result<(Handle, ShMemId)> {
        #[cfg(feature = "std")]
        if known.is_some_and(|id| id.kind() == IdKind::File) {
            let (handle, id) = FileBackend.adopt(fd, known)?;
            return Ok((Handle::File(handle), id));
        }
        if is_memfd(fd.as_fd()) {
            let (handle, id) = MemfdBackend.adopt(fd, known)?;
            Ok((Handle::Memfd(handle), id))
        } else {
            let (handle, id) = PosixBackend.adopt(fd, known)?;
            Ok((Handle::Posix(handle), id))
        }
    }

    fn create_persistable(
        &self,
        request: Request<'_>,
        report: &mut OptionReport,
    ) -> Result<Created<Handle>> {
        // The other mechanisms have no segments that persist.
        let only = self.only.unwrap_or(Mechanism::Posix);
        let created = match only {
            Mechanism::Posix => PosixBackend.create_persistable(request, report)?,
            _ => return Err(UNSUPPORTED),
        };
        Ok(created.map_handle(Handle::Posix))
    }

    fn persist(&self, handle: &Handle) -> Result<()> {
        dispatch!(handle, persist())
    }

    fn forget(id: &ShMemId, if_unused: bool) {
        PosixBackend::forget(id, if_unused);
    }
}

impl Lifecycle for AutoBackend {}

impl Sparse for AutoBackend {
    fn next_data(&self, handle: &Handle, from: usize, len: usize) -> Result<Option<Range<usize>>> {
        dispatch!(handle, next_data(from, len))
    }

    fn trim(&self, handle: &Handle, range: Range<usize>) -> Result<()> {
        dispatch!(handle, trim(range))
    }
}

impl Growable for AutoBackend {
    fn grow(&self, handle: &Handle, mapping: &mut Mapping, len: usize) -> Result<()> {
        dispatch!(handle, grow(mapping, len))
    }
}

impl Snapshots for AutoBackend {
    fn create_snapshot(
        &self,
        bytes: &[u8],
        ranges: impl Iterator<Item = Range<usize>>,
    ) -> Result<(Handle, ShMemId)> {
        // The other mechanisms have no snapshots.
        if self.only.unwrap_or(Mechanism::Memfd) != Mechanism::Memfd {
            return Err(UNSUPPORTED);
        }
        let (handle, id) = MemfdBackend.create_snapshot(bytes, ranges)?;
        Ok((Handle::Memfd(handle), id))
    }

    fn map_private(&self, handle: &Handle) -> Result<Mapping> {
        match handle {
            Handle::Memfd(handle) => MemfdBackend.map_private(handle),
            _ => Err(UNSUPPORTED),
        }
    }

    fn reset(&self, mapping: &mut Mapping) -> Result<()> {
        MemfdBackend.reset(mapping)
    }

    fn check_freezable(&self, handle: &Handle) -> Result<()> {
        dispatch!(handle, check_freezable())
    }

    fn freeze(&self, handle: &Handle) -> Result<()> {
        dispatch!(handle, freeze())
    }

    fn is_frozen(&self, handle: &Handle) -> bool {
        dispatch!(handle, is_frozen())
    }
}

impl Exclusive for AutoBackend {
    fn supports_exclusive(&self, handle: &Handle) -> bool {
        dispatch!(handle, supports_exclusive())
    }

    fn try_lock_exclusive(&self, handle: &Handle) -> Option<ExclusiveLock> {
        dispatch!(handle, try_lock_exclusive())
    }

    fn unlock_exclusive(&self, handle: &Handle, lock: ExclusiveLock) -> bool {
        dispatch!(handle, unlock_exclusive(lock))
    }
}

impl AutoBackend {
    /// Returns the mechanisms to try, best first.
    fn candidates(self) -> impl Iterator<Item = Mechanism> {
        CANDIDATES
            .iter()
            .copied()
            .filter(move |&candidate| self.only.is_none_or(|only| only == candidate))
    }

    /// Creates a segment with the first mechanism that works.
    fn first_working<T>(self, mut create: impl FnMut(Mechanism) -> Result<T>) -> Result<T> {
        if let Some(only) = self.only {
            return create(only);
        }
        // The error to return if all of them fail: that of the first mechanism that this system
        // has.
        let mut first_error: Option<Error> = None;
        for candidate in self
            .candidates()
            .filter(|candidate| !candidate.is_missing())
        {
            let error = match create(candidate) {
                Ok(created) => return Ok(created),
                Err(error) => error,
            };
            match fallback(&error) {
                Fallback::NeverAgain => candidate.remember_missing(&error),
                Fallback::TryNext => {}
                Fallback::Stop => return Err(first_error.unwrap_or(error)),
            }
            first_error = match first_error {
                None | Some(Error::Unsupported { .. }) => Some(error),
                first => first,
            };
        }
        Err(first_error.unwrap_or(Error::Unsupported {
            what: "memfd, System V, POSIX shared memory and files are all unavailable in this process",
        }))
    }

    /// Creates a segment with the first mechanism that grants what is required. A mechanism that
    /// does not may still work for other segments.
    fn first_that_grants<T>(self, mut create: impl FnMut(Mechanism) -> Result<T>) -> Result<T> {
        let mut first_error = None;
        for candidate in self.candidates() {
            match create(candidate) {
                Ok(created) => return Ok(created),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or(UNSUPPORTED))
    }
}

/// Returns the memfd if other processes can open it without searching all processes.
fn if_reachable(created: Created<<MemfdBackend as Backend>::Handle>) -> Result<Created<Handle>> {
    if MemfdLocator::is_hint_in(&created.id) {
        Ok(created.map_handle(Handle::Memfd))
    } else {
        Err(UNREACHABLE)
    }
}

impl<T> Created<T> {
    /// Converts the handle.
    fn map_handle(self, convert: impl FnOnce(T) -> Handle) -> Created<Handle> {
        Created {
            handle: convert(self.handle),
            id: self.id,
            mapping: self.mapping,
            cleanup: self.cleanup,
        }
    }
}

/// Why a memfd is not used although it could be created. The process can change each of these.
const UNREACHABLE: Error = Error::Unsupported {
    what: "no other process could open a memfd of this process: /proc is not mounted, or the process \
           is undumpable (PR_SET_DUMPABLE, a change of its user or group), or it has capabilities \
           that other processes of its user lack",
};

impl Mechanism {
    fn is_missing(self) -> bool {
        MISSING.load(Relaxed) & self.bit() != 0
    }

    fn remember_missing(self, error: &Error) {
        if MISSING.fetch_or(self.bit(), Relaxed) & self.bit() == 0 {
            log_missing(self, error);
        }
    }

    fn bit(self) -> u8 {
        match self {
            Self::Memfd => 1,
            Self::SystemV => 2,
            Self::Posix => 4,
            #[cfg(feature = "std")]
            Self::File => 8,
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Memfd => "memfd",
            Self::SystemV => "System V",
            Self::Posix => "POSIX",
            #[cfg(feature = "std")]
            Self::File => "file",
        })
    }
}

/// What to do after a mechanism has failed.
enum Fallback {
    /// Try the next one. This system lacks the mechanism, and will not get it.
    NeverAgain,
    /// Try the next one, which may not need what the mechanism has run out of.
    TryNext,
    /// Return the error. The next one would fail as well.
    Stop,
}

fn fallback(error: &Error) -> Fallback {
    let Some(errno) = error.raw_os_error() else {
        return match error {
            Error::Unsupported { .. } => Fallback::TryNext,
            _ => Fallback::Stop,
        };
    };
    match Errno::from_raw_os_error(errno) {
        // The kernel lacks the call, or a seccomp profile forbids it.
        Errno::NOSYS | Errno::PERM => Fallback::NeverAgain,
        // `/dev/shm` is missing or not accessible, which a mount or another user can change; or the
        // next mechanism may need less. `shmget` returns INVAL if `kernel.shmmax` is exceeded.
        Errno::ACCESS
        | Errno::NOENT
        | Errno::ROFS
        | Errno::MFILE
        | Errno::NFILE
        | Errno::NOSPC
        | Errno::FBIG
        | Errno::INVAL => Fallback::TryNext,
        _ => Fallback::Stop,
    }
}

#[cfg(feature = "log")]
fn log_missing(mechanism: Mechanism, error: &Error) {
    log::debug!("{mechanism} is unavailable and will not be tried again: {error}");
}

#[cfg(not(feature = "log"))]
fn log_missing(_mechanism: Mechanism, _error: &Error) {}
