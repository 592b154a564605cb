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

use super::memfd::{self, Memfd};
use super::posix::Posix;
use super::sysv::SystemV;
use crate::error::{Error, Result};
use crate::id::ShMemId;
use crate::memory::mapping::Mapping;
use crate::options::{CANNOT, Grants, ShMemOptions};
use crate::segment::{Expected, Fresh, Provider, Room, Seclusion, Segment};

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
pub type StdShMemProvider = Provider<Ladder>;

/// A segment of [`StdShMemProvider`].
pub type StdShMem = Segment<Ladder>;

/// The ladder: all rungs, or one of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ladder {
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
    Memfd(<Memfd as Room>::Handle),
    /// Of System V.
    SystemV(<SystemV as Room>::Handle),
    /// Of POSIX.
    Posix(<Posix as Room>::Handle),
}

const RUNGS: [Mechanism; 3] = [Mechanism::Memfd, Mechanism::SystemV, Mechanism::Posix];

/// A bit for each rung that this system turned out not to have.
static MISSING: AtomicU8 = AtomicU8::new(0);

impl StdShMemProvider {
    /// A provider that makes all of its segments by this mechanism, and fails where it is not to be
    /// had. It opens segments of all of them.
    #[must_use]
    pub fn with_mechanism(mechanism: Mechanism) -> Self {
        Self {
            room: Ladder::just(mechanism),
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

impl Room for Ladder {
    type Handle = Handle;

    fn create(&self, size: usize) -> Result<Fresh<Handle>> {
        self.climb(|rung| match rung {
            Mechanism::Memfd => Memfd.create(size).and_then(findable),
            Mechanism::SystemV => Ok(SystemV.create(size)?.with_handle(Handle::SystemV)),
            Mechanism::Posix => Ok(Posix.create(size)?.with_handle(Handle::Posix)),
        })
    }

    fn create_with(&self, size: usize, options: ShMemOptions) -> Result<(Fresh<Handle>, Grants)> {
        let by_rung = |rung| match rung {
            Mechanism::Memfd => {
                let (fresh, grants) = Memfd.create_with(size, options)?;
                Ok((findable(fresh)?, grants))
            }
            Mechanism::SystemV => {
                let (fresh, grants) = SystemV.create_with(size, options)?;
                Ok((fresh.with_handle(Handle::SystemV), grants))
            }
            Mechanism::Posix => {
                let (fresh, grants) = Posix.create_with(size, options)?;
                Ok((fresh.with_handle(Handle::Posix), grants))
            }
        };
        if !options.requires_something() {
            return self.climb(by_rung);
        }
        // That a rung lacks what is required says nothing about the rung.
        let rungs = RUNGS
            .into_iter()
            .filter(|rung| self.only.is_none_or(|only| only == *rung));
        let mut told = None;
        for rung in rungs {
            match by_rung(rung) {
                Ok(fresh) => return Ok(fresh),
                Err(error) => told = told.or(Some(error)),
            }
        }
        Err(told.unwrap_or(CANNOT))
    }

    fn create_from(&self, bytes: &[u8]) -> Result<Fresh<Handle>> {
        self.climb(|rung| match rung {
            Mechanism::Memfd => Memfd.create_from(bytes).and_then(findable),
            Mechanism::SystemV => Ok(SystemV.create_from(bytes)?.with_handle(Handle::SystemV)),
            Mechanism::Posix => Ok(Posix.create_from(bytes)?.with_handle(Handle::Posix)),
        })
    }

    fn open(&self, id: &ShMemId) -> Result<Handle> {
        match id.as_array()[0] {
            b'm' => Memfd.open(id).map(Handle::Memfd),
            b'0'..=b'9' => SystemV.open(id).map(Handle::SystemV),
            b'/' => Posix.open(id).map(Handle::Posix),
            _ => Err(id.invalid("an id starts with `m`, a digit, or a slash")),
        }
    }

    fn open_expecting(&self, id: &ShMemId, expected: Expected) -> Result<Handle> {
        match id.as_array()[0] {
            b'm' => Memfd.open_expecting(id, expected).map(Handle::Memfd),
            _ => self.open(id),
        }
    }

    fn duplicate(&self, handle: &Handle) -> Result<Handle> {
        match handle {
            Handle::Memfd(handle) => Memfd.duplicate(handle).map(Handle::Memfd),
            Handle::SystemV(handle) => SystemV.duplicate(handle).map(Handle::SystemV),
            Handle::Posix(handle) => Posix.duplicate(handle).map(Handle::Posix),
        }
    }

    fn map(&self, handle: &Handle, len: Option<usize>) -> Result<Mapping> {
        match handle {
            Handle::Memfd(handle) => Memfd.map(handle, len),
            Handle::SystemV(handle) => SystemV.map(handle, len),
            Handle::Posix(handle) => Posix.map(handle, len),
        }
    }

    fn map_with(
        &self,
        handle: &Handle,
        len: Option<usize>,
        options: ShMemOptions,
    ) -> Result<(Mapping, Grants)> {
        match handle {
            Handle::Memfd(handle) => Memfd.map_with(handle, len, options),
            Handle::SystemV(handle) => SystemV.map_with(handle, len, options),
            Handle::Posix(handle) => Posix.map_with(handle, len, options),
        }
    }

    fn next_touched(
        &self,
        handle: &Handle,
        from: usize,
        len: usize,
    ) -> Result<Option<Range<usize>>> {
        match handle {
            Handle::Memfd(handle) => Memfd.next_touched(handle, from, len),
            Handle::SystemV(handle) => SystemV.next_touched(handle, from, len),
            Handle::Posix(handle) => Posix.next_touched(handle, from, len),
        }
    }

    fn trim(&self, handle: &Handle, range: Range<usize>) -> Result<()> {
        match handle {
            Handle::Memfd(handle) => Memfd.trim(handle, range),
            Handle::SystemV(handle) => SystemV.trim(handle, range),
            Handle::Posix(handle) => Posix.trim(handle, range),
        }
    }

    fn create_image(
        &self,
        bytes: &[u8],
        ranges: impl Iterator<Item = Range<usize>>,
    ) -> Result<(Handle, ShMemId)> {
        // The other rungs cannot.
        if self.only.unwrap_or(Mechanism::Memfd) != Mechanism::Memfd {
            return Err(CANNOT);
        }
        let (handle, id) = Memfd.create_image(bytes, ranges)?;
        Ok((Handle::Memfd(handle), id))
    }

    fn map_private(&self, handle: &Handle) -> Result<Mapping> {
        match handle {
            Handle::Memfd(handle) => Memfd.map_private(handle),
            Handle::SystemV(_) | Handle::Posix(_) => Err(CANNOT),
        }
    }

    fn reset(&self, mapping: &mut Mapping) -> Result<()> {
        Memfd.reset(mapping)
    }

    fn create_countable(&self, size: usize) -> Result<Fresh<Handle>> {
        self.climb(|rung| match rung {
            Mechanism::Memfd => Memfd.create_countable(size).and_then(findable),
            rung => Self::just(rung).create(size),
        })
    }

    fn is_countable(&self, handle: &Handle) -> bool {
        match handle {
            Handle::Memfd(handle) => Memfd.is_countable(handle),
            Handle::SystemV(handle) => SystemV.is_countable(handle),
            Handle::Posix(handle) => Posix.is_countable(handle),
        }
    }

    fn seclude(&self, handle: &Handle) -> Option<Seclusion> {
        match handle {
            Handle::Memfd(handle) => Memfd.seclude(handle),
            Handle::SystemV(handle) => SystemV.seclude(handle),
            Handle::Posix(handle) => Posix.seclude(handle),
        }
    }

    fn end_seclusion(&self, handle: &Handle, since: Seclusion) -> bool {
        match handle {
            Handle::Memfd(handle) => Memfd.end_seclusion(handle, since),
            Handle::SystemV(handle) => SystemV.end_seclusion(handle, since),
            Handle::Posix(handle) => Posix.end_seclusion(handle, since),
        }
    }

    fn unlink(&self, handle: &Handle, id: &ShMemId) -> Result<()> {
        match handle {
            Handle::Memfd(handle) => Memfd.unlink(handle, id),
            Handle::SystemV(handle) => SystemV.unlink(handle, id),
            Handle::Posix(handle) => Posix.unlink(handle, id),
        }
    }
}

impl Ladder {
    /// One rung.
    fn just(rung: Mechanism) -> Self {
        Self { only: Some(rung) }
    }

    /// The first rung on which this can be done.
    fn climb<T>(self, by_rung: impl Fn(Mechanism) -> Result<T>) -> Result<T> {
        if let Some(rung) = self.only {
            return by_rung(rung);
        }
        // What is said if every rung fails: what stopped the first of those that this system has.
        let mut told: Option<Error> = None;
        for rung in RUNGS {
            if rung.is_missing() {
                continue;
            }
            let error = match by_rung(rung) {
                Ok(made) => return Ok(made),
                Err(error) => error,
            };
            match verdict(&error) {
                Verdict::Missing => rung.remember_missing(&error),
                Verdict::RunOut => {}
                Verdict::Hopeless => return Err(told.unwrap_or(error)),
            }
            told = match told {
                None | Some(Error::Unsupported { .. }) => Some(error),
                told => told,
            };
        }
        Err(told.unwrap_or(Error::Unsupported {
            what: "neither memfd nor System V nor POSIX shared memory is to be had here",
        }))
    }
}

/// A memfd, if others can open it.
fn findable(fresh: Fresh<<Memfd as Room>::Handle>) -> Result<Fresh<Handle>> {
    if memfd::can_be_found(&fresh.id) {
        Ok(fresh.with_handle(Handle::Memfd))
    } else {
        Err(NOT_FINDABLE)
    }
}

/// Why a memfd is not taken although it can be made. The process can change all of it.
const NOT_FINDABLE: Error = Error::Unsupported {
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
            tell_missing(self, error);
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

/// What an error says about going on.
enum Verdict {
    /// This system does not have the mechanism, and will not get it.
    Missing,
    /// The mechanism has run out of something that the next one may not need.
    RunOut,
    /// The next one would fail as well.
    Hopeless,
}

fn verdict(error: &Error) -> Verdict {
    let Some(errno) = error.raw_os_error() else {
        return match error {
            Error::Unsupported { .. } => Verdict::RunOut,
            _ => Verdict::Hopeless,
        };
    };
    match Errno::from_raw_os_error(errno) {
        // The kernel lacks the call, or a seccomp profile forbids it.
        Errno::NOSYS | Errno::PERM => Verdict::Missing,
        // `/dev/shm` is missing or closed to this process, which a mount or another user can change; the
        // next mechanism may need less; INVAL is how `shmget` says that `kernel.shmmax` is less.
        Errno::ACCESS
        | Errno::NOENT
        | Errno::ROFS
        | Errno::MFILE
        | Errno::NFILE
        | Errno::NOSPC
        | Errno::FBIG
        | Errno::INVAL => Verdict::RunOut,
        _ => Verdict::Hopeless,
    }
}

#[cfg(feature = "log")]
fn tell_missing(rung: Mechanism, error: &Error) {
    log::debug!("no {rung} segments here from now on: {error}");
}

#[cfg(not(feature = "log"))]
fn tell_missing(_rung: Mechanism, _error: &Error) {}
