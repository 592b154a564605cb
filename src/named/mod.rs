//! [`Named`]: segments that processes find by a name that they have agreed on.
//!
//! `options` is the sequence of steps, for every provider. `registry` knows where names are registered and
//! who holds them; `record` is what is registered, free of I/O.

mod options;
#[cfg_attr(
    target_os = "solaris",
    allow(dead_code, reason = "nothing is registered")
)]
mod record;
#[cfg(all(unix, not(target_os = "solaris")))]
mod registry;
#[cfg(target_os = "solaris")]
#[path = "registry_none.rs"]
mod registry;
#[cfg(windows)]
#[path = "registry_windows.rs"]
mod registry;

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};
use core::time::Duration;
use std::process::Command;
use std::thread;
use std::time::Instant;

pub use self::options::{NamedOptions, Persist};
use self::registry::Entry;
use crate::error::{Error, NamedError, Result};
use crate::id::ShMemId;
use crate::id::description::ShMemDescription;
use crate::memory::access::Access;
use crate::platform::StdShMemProvider;
use crate::traits::{ShMem, ShMemProvider};

/// A segment that processes of a user find by a name that they have agreed on, in place of an id.
///
/// The first process that asks for a name creates the segment and initialises it. Every other one gets the
/// same segment, and only once it is initialised to the end. [`NamedOptions`] selects another provider,
/// another directory, or another lifetime.
///
/// A name is any text of 1 to 200 bytes without a zero byte. It has nothing to do with ids: `/`, `..` and
/// line breaks have no meaning.
///
/// # Lifetime
///
/// Of the segment: that of the provider's segments, at least while its name is held. A process holds the
/// name until it, and every child that it has forked, has dropped the `Named` or has ended. The name ends
/// with its last holder, however that ends, unless it is to [persist](Persist::UntilRemoved). After that,
/// the next process that asks for the name creates a new segment.
///
/// A process that is killed while it creates or drops a `Named` leaves nothing that stops the next one.
/// Small files without a holder can remain; the next process that asks for the name, or for the
/// [list](Self::list), removes them.
///
/// # Security
///
/// Names are registered in a directory to which only this user can write, so no other user can take or
/// replace a name. It is the directory in the environment variable `SHMEM_NAMES`, or else that of the
/// service in the runtime directory of the session (`XDG_RUNTIME_DIR`, `/run/user/UID`), in the directory
/// of temporary files or in the home directory. It is checked each time, and a directory that another user
/// owns, can write to or can redirect is an error.
///
/// On Windows it is the directory in `SHMEM_NAMES`, or else one for each session of the user in
/// `%LOCALAPPDATA%\shmem_providers`, or in the directory of temporary files. A directory or a file in it that
/// another user owns, except for administrators, is an error. Who else can write to the directory is not
/// checked there: choose one whose access rights exclude other users, as those in the user's profile do.
///
/// # Platform notes
///
/// Unix systems with `flock(2)`, and Windows. On Solaris every function returns [`Error::Unsupported`].
///
/// On Unix, a `Named` takes two descriptors more than its segment; on Windows, one handle. Some systems
/// remove old files from the directory of temporary files: there, a name can be lost after days, though not
/// its segment.
///
/// On Windows, names are shared by the processes of one session (see `Win32ShMemProvider`). A directory on
/// a network drive, or one that is shared by several sessions, has names whose segments cannot be opened.
///
/// # Examples
///
/// ```
/// # #[cfg(not(any(unix, windows)))] fn main() {}
/// # #[cfg(any(unix, windows))] fn main() -> shmem_providers::Result<()> {
/// use shmem_providers::Named;
///
/// # let name = &format!("example-{}", std::process::id());
/// # const TABLE: &[u8] = b"a table that takes long to compute";
/// let table = Named::open_or_create(name, 4096, |bytes| {
///     bytes[..TABLE.len()].copy_from_slice(TABLE);
/// })?;
/// assert!(table.is_creator() && table.starts_with(TABLE));
///
/// // In any process of this user:
/// let same = Named::open_or_create(name, 4096, |_| unreachable!("it exists"))?;
/// assert!(!same.is_creator() && same.starts_with(TABLE));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Named<P: ShMemProvider = StdShMemProvider> {
    // Dropped before the segment, so that no process finds the name of a segment that is gone.
    hold: NameHold,
    segment: P::ShMem,
}

/// Holds the name of a segment: see [`Named::into_parts`].
///
/// # Examples
///
/// ```
/// # #[cfg(not(any(unix, windows)))] fn main() {}
/// # #[cfg(any(unix, windows))] fn main() -> shmem_providers::Result<()> {
/// use shmem_providers::Named;
///
/// # let name = &format!("example-of-parts-{}", std::process::id());
/// let (segment, hold) = Named::open_or_create(name, 64, |bytes| bytes.fill(1))?.into_parts();
/// assert!(Named::open(name).is_ok());
/// drop(hold);
/// assert!(Named::open(name).is_err());
/// assert_eq!(segment[..], [1; 64]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct NameHold {
    name: String,
    is_creator: bool,
    _entry: Entry,
}

/// A name in use: an element of [`Named::list`].
///
/// # Examples
///
/// ```
/// # #[cfg(not(any(unix, windows)))] fn main() {}
/// # #[cfg(any(unix, windows))] fn main() -> shmem_providers::Result<()> {
/// use shmem_providers::{Named, ShMem};
///
/// # let name = &format!("example-of-list-{}", std::process::id());
/// let cache = Named::open_or_create(name, 64, |_| {})?;
/// let listed = Named::list()?;
/// let found = listed.iter().find(|named| named.name == *name).expect("it is held");
/// assert_eq!((found.id, found.size), (cache.id(), 64));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamedInfo {
    /// The name.
    pub name: String,
    /// The id of its segment.
    pub id: ShMemId,
    /// The size of its segment, in bytes.
    pub size: usize,
    /// When the name ends.
    pub persist: Persist,
}

impl Named {
    /// Opens the segment of this name, or creates one of `size` bytes if there is none.
    ///
    /// A process that creates it calls `init` with its bytes, which are zeros and which no other process
    /// has. The others wait. So `init` runs exactly once, unless it panics or its process is killed: then
    /// the next process creates a new segment.
    ///
    /// A segment that exists may be larger, and is mapped as a whole.
    ///
    /// # Errors
    ///
    /// [`Error::Named`] if the name is not valid ([`NamedError::Empty`], [`NamedError::TooLong`],
    /// [`NamedError::ContainsNul`]), if another process takes longer than 30 seconds to initialise the
    /// segment ([`NamedError::Busy`]), also if `init` itself asks for the name, or if the directory of names
    /// cannot be used. [`Error::TooLarge`] if the existing segment is smaller. Otherwise as
    /// [`new_shmem`](ShMemProvider::new_shmem) and [`shmem_from_id`](ShMemProvider::shmem_from_id).
    pub fn open_or_create(
        name: impl AsRef<str>,
        size: usize,
        init: impl FnOnce(&mut [u8]),
    ) -> Result<Self> {
        NamedOptions::new().open_or_create(name, size, init)
    }

    /// Opens the segment of this name.
    ///
    /// # Errors
    ///
    /// As [`open_or_create`](Self::open_or_create), and [`Error::Named`] with [`NamedError::Unknown`] if
    /// there is no segment of this name, or if it is not initialised to the end yet.
    pub fn open(name: impl AsRef<str>) -> Result<Self> {
        NamedOptions::new().open(name)
    }

    /// Returns the names that are in use at this moment, in no particular order. Removes what killed
    /// processes have left behind.
    ///
    /// # Errors
    ///
    /// [`Error::Named`] if the directory of names cannot be used.
    pub fn list() -> Result<Vec<NamedInfo>> {
        NamedOptions::new().list()
    }

    /// Removes a name, so that the next process that asks for it creates a new segment.
    ///
    /// Processes that hold the segment keep it. This is the way to free a segment that
    /// [persists](Persist::UntilRemoved).
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(not(any(unix, windows)))] fn main() {}
    /// # #[cfg(any(unix, windows))] fn main() -> shmem_providers::Result<()> {
    /// use shmem_providers::Named;
    ///
    /// # let name = &format!("example-of-remove-{}", std::process::id());
    /// let old = Named::open_or_create(name, 64, |bytes| bytes.fill(1))?;
    /// Named::remove(name)?;
    /// let new = Named::open_or_create(name, 64, |bytes| bytes.fill(2))?;
    /// assert_eq!((old[0], new[0]), (1, 2));
    /// # Ok(())
    /// # }
    /// ```
    pub fn remove(name: impl AsRef<str>) -> Result<()> {
        NamedOptions::new().remove(name)
    }
}

impl<P: ShMemProvider> Named<P> {
    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.hold.name()
    }

    /// Returns `true` if this call created and initialised the segment.
    #[must_use]
    pub fn is_creator(&self) -> bool {
        self.hold.is_creator
    }

    /// Returns the segment.
    #[must_use]
    pub fn segment(&self) -> &P::ShMem {
        &self.segment
    }

    /// Returns the segment for writing.
    #[must_use]
    pub fn segment_mut(&mut self) -> &mut P::ShMem {
        &mut self.segment
    }

    /// Returns the segment, and the hold on its name. The name ends when the last hold is dropped.
    ///
    /// Drop the hold before the segment: in between, others would find a name whose segment may be gone,
    /// and wait for its end.
    #[must_use]
    pub fn into_parts(self) -> (P::ShMem, NameHold) {
        (self.segment, self.hold)
    }

    /// Returns the segment, and drops the hold on its name.
    ///
    /// If this is the last hold, a POSIX segment loses the name that its id consists of, and other
    /// processes can no longer open it.
    #[must_use]
    pub fn into_segment(self) -> P::ShMem {
        self.segment
    }
}

impl NameHold {
    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

// SAFETY: every method delegates to the segment, which upholds the contract.
#[allow(unsafe_code)]
unsafe impl<P: ShMemProvider> ShMem for Named<P> {
    fn id(&self) -> ShMemId {
        self.segment.id()
    }

    fn len(&self) -> usize {
        self.segment.len()
    }

    fn description(&self) -> ShMemDescription {
        self.segment.description()
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

    fn inherit(&self, command: &mut Command, env_name: &str) -> Result<()> {
        self.segment.inherit(command, env_name)
    }

    fn lock_descriptor(&self) -> Option<crate::sys::Descriptor<'_>> {
        self.segment.lock_descriptor()
    }
}

impl<P: ShMemProvider> Deref for Named<P> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.segment
    }
}

impl<P: ShMemProvider> DerefMut for Named<P> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.segment
    }
}

/// How long to wait for other processes.
///
/// Locks have no timeout, so they are tried repeatedly: a process that waited in the kernel for one that is
/// stopped would wait forever.
struct Deadline {
    start: Instant,
    timeout: Duration,
    pause: Duration,
}

impl Deadline {
    const LONGEST_PAUSE: Duration = Duration::from_millis(5);

    fn after(timeout: Duration) -> Self {
        Self {
            start: Instant::now(),
            timeout,
            pause: Duration::from_micros(100),
        }
    }

    /// Waits a short time for other processes. Returns an error once the deadline is over.
    fn wait(&mut self) -> Result<()> {
        let waited = self.start.elapsed();
        if waited >= self.timeout {
            return Err(Error::Named {
                name: String::new(),
                reason: NamedError::Busy { waited },
            });
        }
        thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(Self::LONGEST_PAUSE);
        Ok(())
    }
}
