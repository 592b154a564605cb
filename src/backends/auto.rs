//! The default on Linux: memfd, then System V, then POSIX, decided when a segment is made.
//!
//! Whether `memfd_create` may be called is known only when it is: kernels lack it, seccomp profiles
//! forbid it, `/proc` may be missing, descriptors may run out. The first two rungs keep the promise
//! by themselves, so they come first. Ids say which rung made a segment, so attaching needs no
//! ladder.

use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use rustix::io::Errno;

use super::memfd::MemfdBackend;
use super::posix::PosixBackend;
use super::sysv::SystemVBackend;
use crate::backend::{
    Attach, Backend, Created, Exclusive, ExclusiveLock, Expected, Lifecycle, Request, Snapshots,
    Sparse,
};
use crate::error::{Error, Result};
use crate::id::ShMemId;
use crate::id::kind::IdKind;
use crate::memory::mapping::Mapping;
use crate::options::{OptionReport, UNSUPPORTED};
use crate::provider::Provider;
use crate::segment::Segment;

/// Makes segments by the best mechanism that works where the program runs: memfd, or else System V,
/// or else POSIX. It opens segments of all three.
///
/// What a system turns out not to have is not tried again by the same process. What has only run
/// out, like descriptors, is.
///
/// # Lifetime
///
/// Until the last process that holds the segment drops it or ends, unless it had to be a POSIX one:
/// [`StdShMem::mechanism`](Segment::mechanism) tells, and [`MmapShMemProvider`](crate::MmapShMemProvider)
/// says what it means.
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

/// The backend of [`StdShMemProvider`] on Linux: the best of several, or one that was chosen.
#[derive(Clone, Copy, Debug, Default)]
pub struct AutoBackend {
    only: Option<Mechanism>,
}

/// How a segment of [`StdShMemProvider`] was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mechanism {
    /// As by [`MemfdShMemProvider`](crate::MemfdShMemProvider).
    Memfd,
    /// As by [`UnixShMemProvider`](crate::UnixShMemProvider).
    SystemV,
    /// As by [`MmapShMemProvider`](crate::MmapShMemProvider).
    Posix,
}

/// A handle of one of the rungs.
#[derive(Debug)]
pub enum Handle {
    /// Of memfd.
    Memfd(<MemfdBackend as Backend>::Handle),
    /// Of System V.
    SystemV(<SystemVBackend as Backend>::Handle),
    /// Of POSIX.
    Posix(<PosixBackend as Backend>::Handle),
}

const CANDIDATES: [Mechanism; 3] = [Mechanism::Memfd, Mechanism::SystemV, Mechanism::Posix];

/// A bit for each rung that this system turned out not to have.
static MISSING: AtomicU8 = AtomicU8::new(0);

impl StdShMemProvider {
    /// A provider that makes all of its segments by this mechanism, and fails where it is not to be
    /// had. It opens segments of all of them.
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
    /// How the segment was made; `None` once it is released.
    #[must_use]
    pub fn mechanism(&self) -> Option<Mechanism> {
        self.handle.as_ref().map(|handle| match handle {
            Handle::Memfd(_) => Mechanism::Memfd,
            Handle::SystemV(_) => Mechanism::SystemV,
            Handle::Posix(_) => Mechanism::Posix,
        })
    }
}

impl Backend for AutoBackend {
    type Handle = Handle;

    fn create(&self, request: Request<'_>) -> Result<Created<Handle>> {
        let create = |candidate| match candidate {
            Mechanism::Memfd => MemfdBackend.create(request).and_then(if_reachable),
            Mechanism::SystemV => Ok(SystemVBackend.create(request)?.map_handle(Handle::SystemV)),
            Mechanism::Posix => Ok(PosixBackend.create(request)?.map_handle(Handle::Posix)),
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
            _ => Err(id.invalid("an id of this provider starts with `m`, a digit, or a slash")),
        }
    }

    fn duplicate(&self, handle: &Handle) -> Result<Handle> {
        match handle {
            Handle::Memfd(handle) => MemfdBackend.duplicate(handle).map(Handle::Memfd),
            Handle::SystemV(handle) => SystemVBackend.duplicate(handle).map(Handle::SystemV),
            Handle::Posix(handle) => PosixBackend.duplicate(handle).map(Handle::Posix),
        }
    }

    fn map(&self, handle: &Handle, attach: Attach) -> Result<(Mapping, OptionReport)> {
        match handle {
            Handle::Memfd(handle) => MemfdBackend.map(handle, attach),
            Handle::SystemV(handle) => SystemVBackend.map(handle, attach),
            Handle::Posix(handle) => PosixBackend.map(handle, attach),
        }
    }

    fn unlink(&self, handle: &Handle, id: &ShMemId) -> Result<()> {
        match handle {
            Handle::Memfd(handle) => MemfdBackend.unlink(handle, id),
            Handle::SystemV(handle) => SystemVBackend.unlink(handle, id),
            Handle::Posix(handle) => PosixBackend.unlink(handle, id),
        }
    }
}

impl Lifecycle for AutoBackend {}

impl Sparse for AutoBackend {
    fn next_data(&self, handle: &Handle, from: usize, len: usize) -> Result<Option<Range<usize>>> {
        match handle {
            Handle::Memfd(handle) => MemfdBackend.next_data(handle, from, len),
            Handle::SystemV(handle) => SystemVBackend.next_data(handle, from, len),
            Handle::Posix(handle) => PosixBackend.next_data(handle, from, len),
        }
    }

    fn trim(&self, handle: &Handle, range: Range<usize>) -> Result<()> {
        match handle {
            Handle::Memfd(handle) => MemfdBackend.trim(handle, range),
            Handle::SystemV(handle) => SystemVBackend.trim(handle, range),
            Handle::Posix(handle) => PosixBackend.trim(handle, range),
        }
    }
}

impl Snapshots for AutoBackend {
    fn create_snapshot(
        &self,
        bytes: &[u8],
        ranges: impl Iterator<Item = Range<usize>>,
    ) -> Result<(Handle, ShMemId)> {
        // The other mechanisms cannot.
        if self.only.unwrap_or(Mechanism::Memfd) != Mechanism::Memfd {
            return Err(UNSUPPORTED);
        }
        let (handle, id) = MemfdBackend.create_snapshot(bytes, ranges)?;
        Ok((Handle::Memfd(handle), id))
    }

    fn map_private(&self, handle: &Handle) -> Result<Mapping> {
        match handle {
            Handle::Memfd(handle) => MemfdBackend.map_private(handle),
            Handle::SystemV(_) | Handle::Posix(_) => Err(UNSUPPORTED),
        }
    }

    fn reset(&self, mapping: &mut Mapping) -> Result<()> {
        MemfdBackend.reset(mapping)
    }
}

impl Exclusive for AutoBackend {
    fn supports_exclusive(&self, handle: &Handle) -> bool {
        match handle {
            Handle::Memfd(handle) => MemfdBackend.supports_exclusive(handle),
            Handle::SystemV(handle) => SystemVBackend.supports_exclusive(handle),
            Handle::Posix(handle) => PosixBackend.supports_exclusive(handle),
        }
    }

    fn try_lock_exclusive(&self, handle: &Handle) -> Option<ExclusiveLock> {
        match handle {
            Handle::Memfd(handle) => MemfdBackend.try_lock_exclusive(handle),
            Handle::SystemV(handle) => SystemVBackend.try_lock_exclusive(handle),
            Handle::Posix(handle) => PosixBackend.try_lock_exclusive(handle),
        }
    }

    fn unlock_exclusive(&self, handle: &Handle, lock: ExclusiveLock) -> bool {
        match handle {
            Handle::Memfd(handle) => MemfdBackend.unlock_exclusive(handle, lock),
            Handle::SystemV(handle) => SystemVBackend.unlock_exclusive(handle, lock),
            Handle::Posix(handle) => PosixBackend.unlock_exclusive(handle, lock),
        }
    }
}

impl AutoBackend {
    /// The mechanisms to try, best first.
    fn candidates(self) -> impl Iterator<Item = Mechanism> {
        CANDIDATES
            .into_iter()
            .filter(move |&candidate| self.only.is_none_or(|only| only == candidate))
    }

    /// Creates a segment by the first mechanism that works.
    fn first_working<T>(self, create: impl Fn(Mechanism) -> Result<T>) -> Result<T> {
        if let Some(only) = self.only {
            return create(only);
        }
        // Returned if all of them fail: why the first one that this system has did.
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
            what: "memfd, System V and POSIX shared memory are all unavailable here",
        }))
    }

    /// Creates a segment by the first mechanism that has what is required. A mechanism that lacks it
    /// may still work for other segments.
    fn first_that_grants<T>(self, create: impl Fn(Mechanism) -> Result<T>) -> Result<T> {
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
    match created.id.kind() {
        IdKind::Memfd(locator) if locator.process_and_fd().is_some() => {
            Ok(created.map_handle(Handle::Memfd))
        }
        _ => Err(UNREACHABLE),
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
            report: self.report,
        }
    }
}

/// Why a memfd is not used although it could be created. The process can change each of these.
const UNREACHABLE: Error = Error::Unsupported {
    what: "no other process could open a memfd of this one: /proc is not mounted, or the process is \
           undumpable (PR_SET_DUMPABLE, a change of its user or group), or it has capabilities that \
           other processes of its user lack",
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
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Memfd => "memfd",
            Self::SystemV => "System V",
            Self::Posix => "POSIX",
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
        // `/dev/shm` is missing or closed to this process, which a mount or another user can change; the
        // next mechanism may need less; INVAL is how `shmget` says that `kernel.shmmax` is less.
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
