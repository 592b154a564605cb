//! A ring of messages in shared memory, with one writer and one reader.
#![allow(unsafe_code)]

mod cursor;
#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod explored;
mod reader;
mod record;
mod writer;

use core::fmt;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU8, AtomicU32};

use self::cursor::Cursors;
pub use self::reader::{Message, Messages, RingReader};
use self::record::{Data, Record, index};
pub use self::writer::{Batch, Grant, RingWriter};
use crate::error::{Error, Result};
use crate::id::ShMemId;
use crate::id::description::ShMemDescription;
use crate::memory::access::Access;
use crate::memory::layout::SharedLayout;
use crate::sharing::format::{Format, Prefix};
use crate::sharing::{Shared, SharedRef};
use crate::traits::{ShMem, ShMemProvider};

/// A ring of messages in a segment: one process writes them, and one process reads them, in order.
///
/// A message has any number of bytes up to [`max_message`](Self::max_message). The [`RingWriter`] copies
/// or builds it in place, and the [`RingReader`] copies it or uses it in place. Either waits for the other one if
/// it is asked to, and makes a system call only to sleep, or if the other one sleeps.
///
/// Two writers or two readers at the same time are a mistake, in threads as well, which nothing detects: messages are
/// then lost, mixed or received twice. The user ensures that a process has ended before another one takes its role over.
///
/// A process that is killed at any moment leaves the ring usable: a message is received whole, or not at all
/// if it was not committed. Another process takes over by opening the ring and calling
/// [`writer`](Self::writer) or [`reader`](Self::reader).
///
/// A peer of the same user can write anything to the segment at any time. It can garble messages, and cause
/// [`Error::Corrupt`], but no undefined behaviour, and no wait beyond the timeout: every word in the
/// segment is read once and checked. The ring is of no use after such an error; create another one.
///
/// # Lifetime
///
/// This process holds the segment until the last clone, writer and reader are dropped.
///
/// # Platform notes
///
/// Sleeping is that of [`wake`](crate::wake). Rings work in the same way in processes of 32 and of 64 bits.
///
/// # Examples
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use std::thread;
/// use std::time::Duration;
/// use shmem_providers::{ShMemProvider, StdShMemProvider};
/// use shmem_providers::channel::Ring;
/// use shmem_providers::wake::Wait;
///
/// let wait = Wait::new().timeout(Duration::from_secs(5));
/// let mut provider = StdShMemProvider::new()?;
/// let ring = Ring::create(&mut provider, 4096)?;
/// let mut writer = ring.writer()?;
///
/// // In any process of the same user that knows the id:
/// let mut reader = Ring::open(&mut provider, ring.id())?.reader()?;
/// let peer = thread::spawn(move || {
///     let mut message = Vec::new();
///     reader.recv(&mut message, wait).map(|_| message)
/// });
/// assert!(writer.send(b"hello", wait)?);
/// assert_eq!(peer.join().unwrap()?, b"hello");
/// # }
/// # Ok::<(), shmem_providers::Error>(())
/// ```
#[derive(Clone)]
pub struct Ring {
    header: SharedRef<Header>,
    words: SharedRef<[AtomicU32]>,
    bytes: SharedRef<[AtomicU8]>,
    capacity: u32,
}

/// What the segment starts with. The data follow.
#[repr(C)]
struct Header {
    prefix: Prefix,
    capacity: AtomicU32,
    padding: [AtomicU32; 29],
    cursors: Cursors<AtomicU32>,
}

// SAFETY: the structures are `repr(C)`, and all of their fields are atomic integers.
unsafe impl SharedLayout for Header {}

const FORMAT: Format = Format::new(*b"sRng", 1);
/// Where the data start in bytes.
const DATA: usize = size_of::<Header>();
const MIN_CAPACITY: usize = 64;
const MAX_CAPACITY: usize = 1 << 30;

impl Ring {
    /// Creates a segment with an empty ring, with at least `capacity` bytes for messages.
    ///
    /// The capacity is rounded up to a power of two. Every message takes 8 bytes more than its length, rounded
    /// up to a multiple of 8.
    ///
    /// # Errors
    ///
    /// [`Error::RingTooLarge`] if the capacity is larger than 2^30 bytes, otherwise as
    /// [`new_shmem`](ShMemProvider::new_shmem).
    pub fn create<P: ShMemProvider>(provider: &mut P, capacity: usize) -> Result<Self>
    where
        P::ShMem: Send + Sync + 'static,
    {
        let mut segment = provider.new_shmem(Self::size(capacity)?)?;
        write(segment.access(), capacity)?;
        Self::in_segment(&segment.share())
    }

    /// Returns the size of a segment that contains a ring with at least `capacity` bytes for messages, in bytes.
    ///
    /// # Errors
    ///
    /// [`Error::RingTooLarge`] if the capacity is larger than 2^30 bytes.
    pub fn size(capacity: usize) -> Result<usize> {
        rounded(capacity).map(|capacity| DATA + index(capacity))
    }

    /// Initialises a segment of [`size`](Self::size) bytes that no other process can open yet, such as that of a
    /// [`Named`](crate::Named). [`in_segment`](Self::in_segment) then finds the ring.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if there are fewer bytes, otherwise as [`size`](Self::size).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(all(target_os = "linux", feature = "std"))] {
    /// use shmem_providers::channel::Ring;
    /// use shmem_providers::{NamedOptions, ShMem};
    ///
    /// # let name = &format!("ring-{}", std::process::id());
    /// let named = NamedOptions::new().try_open_or_create(name, Ring::size(4096)?, |bytes| {
    ///     Ring::initialise(bytes, 4096)
    /// })?;
    /// let ring = Ring::in_segment(&named.share())?; // holds the name as well
    /// assert!(ring.writer()?.try_send(b"hello")?);
    /// # }
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    pub fn initialise(bytes: &mut [u8], capacity: usize) -> Result<()> {
        write(Access::from(bytes), capacity)
    }

    /// Opens the ring in the segment with this id.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] if the segment does not contain a ring, otherwise as
    /// [`shmem_from_id`](ShMemProvider::shmem_from_id).
    pub fn open<P: ShMemProvider>(provider: &mut P, id: ShMemId) -> Result<Self>
    where
        P::ShMem: Send + Sync + 'static,
    {
        Self::in_segment(&provider.shmem_from_id(id)?.share())
    }

    /// Opens the ring in the segment that [`hand_over`](Self::hand_over) has put into the environment under this
    /// name.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] if the segment does not contain a ring, otherwise as
    /// [`existing_from_env`](ShMemProvider::existing_from_env).
    #[cfg(feature = "std")]
    pub fn existing_from_env<P: ShMemProvider>(provider: &mut P, env_name: &str) -> Result<Self>
    where
        P::ShMem: Send + Sync + 'static,
    {
        Self::in_segment(&provider.existing_from_env(env_name)?.share())
    }

    /// Returns the ring in a segment that this process has opened by other means.
    ///
    /// # Errors
    ///
    /// [`Error::WrongType`] if the segment does not contain a ring, [`Error::Corrupt`] if its capacity was
    /// overwritten.
    pub fn in_segment<S: ShMem + Send + Sync + 'static>(shared: &Shared<S>) -> Result<Self> {
        FORMAT
            .check(shared.access())
            .map_err(|mismatch| Error::WrongType {
                id: shared.id(),
                mismatch,
            })?;
        let outside = |_| cursor::corrupt("its capacity exceeds the segment");
        let header = shared.view::<Header>(0).map_err(outside)?;
        let capacity = header.capacity.load(Relaxed);
        if rounded(index(capacity)) != Ok(capacity) {
            return Err(cursor::corrupt(
                "its capacity is not a power of two in bounds",
            ));
        }
        let words = shared.view_slice(DATA, index(capacity / 4));
        let bytes = shared.view_slice(DATA, index(capacity));
        Ok(Self {
            header,
            words: words.map_err(outside)?,
            bytes: bytes.map_err(outside)?,
            capacity,
        })
    }

    /// Returns the writer. There must be one at a time, in all processes together: see [`RingWriter`].
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if a process has overwritten the positions.
    pub fn writer(&self) -> Result<RingWriter> {
        RingWriter::new(self)
    }

    /// Returns the reader. There must be one at a time, in all processes together: see [`RingReader`].
    ///
    /// # Errors
    ///
    /// As [`writer`](Self::writer).
    pub fn reader(&self) -> Result<RingReader> {
        RingReader::new(self)
    }

    /// Returns the number of bytes for messages, a power of two.
    #[must_use]
    pub fn capacity(&self) -> usize {
        index(self.capacity)
    }

    /// Returns the length of the longest message in bytes: half of the capacity, less 8.
    #[must_use]
    pub fn max_message(&self) -> usize {
        index(record::max_message(self.capacity))
    }

    /// Returns the id that opens the ring in another process.
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

    #[inline]
    fn cursors(&self) -> &Cursors<AtomicU32> {
        &self.header.cursors
    }

    #[inline]
    fn data(&self) -> Data<'_> {
        Data {
            words: &self.words,
            bytes: &self.bytes,
        }
    }

    #[inline]
    fn message(&self, record: &Record) -> Access<'_> {
        Access::from(record.message(self.data()))
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("id", &self.id())
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

/// Returns the power of two that is used for this capacity.
fn rounded(capacity: usize) -> Result<u32> {
    let error = Error::RingTooLarge {
        capacity,
        max: MAX_CAPACITY,
    };
    if capacity > MAX_CAPACITY {
        return Err(error);
    }
    let rounded = capacity.max(MIN_CAPACITY).next_power_of_two();
    u32::try_from(rounded).map_err(|_| error)
}

/// Writes the header of an empty ring.
fn write(access: Access<'_>, capacity: usize) -> Result<()> {
    let capacity = rounded(capacity)?;
    access.range(DATA, index(capacity))?;
    access.range(0, DATA)?.fill(0);
    let header = access.view::<Header>(0)?;
    header.capacity.store(capacity, Relaxed);
    FORMAT.state(access)
}
