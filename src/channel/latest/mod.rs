//! [`Latest`]: the newest of the values that one process publishes, for any number of readers.

mod layout;
mod protocol;
mod reader;
mod writer;

use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU8, AtomicU32};

use self::layout::{Geometry, Header, Line};
use self::protocol::Protocol;
pub use self::reader::{LatestReader, Seen};
pub use self::writer::LatestWriter;
use crate::error::{Error, Result};
use crate::id::ShMemId;
use crate::id::description::ShMemDescription;
use crate::memory::access::Access;
use crate::sharing::{Shared, SharedRef};
use crate::traits::{ShMem, ShMemProvider};

/// The newest of the values that one process publishes, such as frames or states, for any number of readers.
///
/// A value is a sequence of bytes of any length up to a maximum. The segment has several slots: the
/// [writer](Self::writer) writes each value into the next one, and then publishes it by one store. It never
/// waits for readers, and never fails because of them. A [reader](Self::reader) copies the newest value,
/// notices if the slot was reused at the same time, and then copies the next one instead. So it never gets parts of
/// different values, and it learns how many values it has missed.
///
/// A writer may be killed at any time: the last value that it published stays readable, and another process can
/// take over with a writer of its own. The numbers of the values go on. A reader may be killed at any time as well.
///
/// Two writers at the same time are a mistake: readers may then get values that consist of parts of several, but there is
/// no undefined behaviour. A peer of the same user can overwrite anything; it can garble values and cause
/// [`Error::Corrupt`], [`Error::Lapped`] and wrong numbers, but no access outside of the segment, and no wait beyond the
/// timeout.
///
/// # Lifetime
///
/// It is `Clone`, `Send`, `Sync` and `'static`. This process holds the segment until the last clone, writer and reader
/// are dropped.
///
/// # Platform notes
///
/// Sleeping is that of [`wake`](crate::wake).
///
/// # Examples
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use std::thread;
/// use shmem_providers::channel::Latest;
/// use shmem_providers::wake::Wait;
/// use shmem_providers::{ShMemProvider, StdShMemProvider};
///
/// let mut provider = StdShMemProvider::new()?;
/// let latest = Latest::create(&mut provider, 1000)?; // values of up to 1000 bytes
/// let mut writer = latest.writer();
///
/// // In any process of the same user that knows the id:
/// let mut reader = Latest::open(&mut provider, latest.id())?.reader();
/// let peer = thread::spawn(move || {
///     let mut value = Vec::new();
///     let seen = reader.next(&mut value, Wait::new())?; // sleeps until there is one
///     Ok::<_, shmem_providers::Error>((value, seen))
/// });
///
/// writer.publish(b"12 degrees")?;
/// let (value, seen) = peer.join().unwrap()?;
/// assert_eq!(value, b"12 degrees");
/// assert_eq!(seen.unwrap().sequence, 1);
/// # }
/// # Ok::<(), shmem_providers::Error>(())
/// ```
#[derive(Clone)]
pub struct Latest {
    header: SharedRef<Header>,
    lines: SharedRef<[Line]>,
    values: SharedRef<[AtomicU8]>,
    geometry: Geometry,
}

impl Latest {
    /// How many slots there are by default.
    pub const SLOTS: usize = 4;

    /// Returns the size in bytes of a segment for values of up to `max_len` bytes and this number of slots, for
    /// [`initialise`](Self::initialise). `usize::MAX` if that is too much.
    #[must_use]
    pub fn size(max_len: usize, slots: usize) -> usize {
        Geometry::new(max_len, slots).size()
    }

    /// Creates a segment for values of up to `max_len` bytes, with [`SLOTS`](Self::SLOTS) slots.
    ///
    /// # Errors
    ///
    /// As [`new_shmem`](ShMemProvider::new_shmem). The maximum of `max_len` is `u32::MAX`.
    pub fn create<P: ShMemProvider>(provider: &mut P, max_len: usize) -> Result<Self>
    where
        P::ShMem: Send + Sync + 'static,
    {
        Self::create_with_slots(provider, max_len, Self::SLOTS)
    }

    /// Creates a segment for values of up to `max_len` bytes with this number of slots, which is rounded up to a
    /// power of two, of at least 2 and at most 65,536.
    ///
    /// With more slots, a reader that is slower than the writer has more time to copy a value: a copy is
    /// repeated only if `slots - 1` values are published during it.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn create_with_slots<P: ShMemProvider>(
        provider: &mut P,
        max_len: usize,
        slots: usize,
    ) -> Result<Self>
    where
        P::ShMem: Send + Sync + 'static,
    {
        let geometry = Geometry::new(max_len, slots);
        let mut segment = provider.new_shmem(geometry.size())?;
        geometry.write(segment.access())?;
        Self::in_segment(&segment.share())
    }

    /// Initialises a segment of [`size`](Self::size) bytes that no other process can open yet, such as that of a
    /// [`Named`](crate::Named). [`in_segment`](Self::in_segment) then finds the slots.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if there are fewer bytes.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use shmem_providers::channel::Latest;
    /// use shmem_providers::{NamedOptions, ShMem};
    ///
    /// # let name = &format!("position-{}", std::process::id());
    /// let named = NamedOptions::new().try_open_or_create(name, Latest::size(24, 4), |bytes| {
    ///     Latest::initialise(bytes, 24, 4)
    /// })?;
    /// let latest = Latest::in_segment(&named.share())?; // holds the name as well
    /// assert_eq!(latest.writer().publish(b"north")?, 1);
    /// # }
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    pub fn initialise(bytes: &mut [u8], max_len: usize, slots: usize) -> Result<()> {
        Geometry::new(max_len, slots).write(Access::from(bytes))
    }

    /// Opens the segment with this id.
    ///
    /// # Errors
    ///
    /// As [`in_segment`](Self::in_segment), otherwise as [`shmem_from_id`](ShMemProvider::shmem_from_id).
    pub fn open<P: ShMemProvider>(provider: &mut P, id: ShMemId) -> Result<Self>
    where
        P::ShMem: Send + Sync + 'static,
    {
        Self::in_segment(&provider.shmem_from_id(id)?.share())
    }

    /// Opens the segment that [`hand_over`](Self::hand_over) has put into the environment under this name.
    ///
    /// # Errors
    ///
    /// As [`in_segment`](Self::in_segment), otherwise as
    /// [`existing_from_env`](ShMemProvider::existing_from_env).
    #[cfg(feature = "std")]
    pub fn existing_from_env<P: ShMemProvider>(provider: &mut P, env_name: &str) -> Result<Self>
    where
        P::ShMem: Send + Sync + 'static,
    {
        Self::in_segment(&provider.existing_from_env(env_name)?.share())
    }

    /// Uses a segment that this process has opened by other means.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] if the segment was not initialised as a `Latest`, [`Error::Corrupt`] if its header does
    /// not fit its size.
    pub fn in_segment<S: ShMem + Send + Sync + 'static>(shared: &Shared<S>) -> Result<Self> {
        let id = shared.id();
        let geometry = Geometry::read(shared.access())
            .map_err(|mismatch| Error::WrongType { id, mismatch })?
            .ok_or(Error::Corrupt {
                what: "its header describes slots that do not fit into it",
            })?;
        Ok(Self {
            header: shared.view(0)?,
            lines: shared.view_slice(Geometry::LINES, geometry.slots)?,
            values: shared.view_slice(geometry.values(), geometry.len())?,
            geometry,
        })
    }

    /// Returns a writer, which continues where the last one has ended.
    ///
    /// There has to be at most one at a time that publishes, in all processes.
    #[must_use]
    pub fn writer(&self) -> LatestWriter {
        LatestWriter::new(self.clone())
    }

    /// Returns a reader that has seen nothing yet. Values that are older than the newest one now do not count as
    /// missed.
    #[must_use]
    pub fn reader(&self) -> LatestReader {
        LatestReader::new(self.clone())
    }

    /// Returns the largest length of a value, in bytes.
    #[must_use]
    pub fn max_len(&self) -> usize {
        self.geometry.max_len
    }

    /// Returns the number of slots.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.geometry.slots
    }

    /// Returns the id that opens the segment in another process.
    #[must_use]
    pub fn id(&self) -> ShMemId {
        self.description().id
    }

    /// Returns the id and the size of the segment.
    #[must_use]
    pub fn description(&self) -> ShMemDescription {
        self.header.segment()
    }

    /// Puts the id and the size into the environment of a command: see [`ShMem::hand_over`].
    ///
    /// # Errors
    ///
    /// As [`ShMem::hand_over`].
    #[cfg(feature = "std")]
    pub fn hand_over(&self, command: &mut std::process::Command, env_name: &str) -> Result<()> {
        self.header.holder().hand_over(command, env_name)
    }

    /// As [`hand_over`](Self::hand_over), and passes the descriptor to the program: see
    /// [`ShMem::inherit`].
    ///
    /// # Errors
    ///
    /// As [`ShMem::inherit`].
    #[cfg(feature = "std")]
    pub fn inherit(&self, command: &mut std::process::Command, env_name: &str) -> Result<()> {
        self.header.holder().inherit(command, env_name)
    }

    fn protocol(&self) -> Protocol<'_, AtomicU32, Line> {
        Protocol::new(&self.header.newest, &self.lines)
    }

    /// Returns access to the first `len` bytes of the value in a slot.
    fn value(&self, index: usize, len: usize) -> Result<Access<'_>> {
        let Range { start, end } = self.place(index);
        let bytes = self.values.get(start..end).unwrap_or_default();
        Access::from(bytes).range(0, len)
    }

    /// Returns where the value in a slot may be.
    fn place(&self, index: usize) -> Range<usize> {
        let start = self.geometry.stride().saturating_mul(index);
        start..start.saturating_add(self.geometry.max_len)
    }
}

impl fmt::Debug for Latest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latest")
            .field("id", &self.id())
            .field("max_len", &self.max_len())
            .field("slots", &self.slots())
            .finish_non_exhaustive()
    }
}
