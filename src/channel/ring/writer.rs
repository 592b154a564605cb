//! [`RingWriter`]: the sending side of a ring.
#![allow(unsafe_code)]

use super::Ring;
use super::cursor::Cursor;
use super::record::{Record, checked_len};
use crate::error::{Error, Result};
use crate::memory::access::Access;
use crate::memory::copy;
use crate::sync::wake::Wait;

/// The writer of a [`Ring`].
///
/// There must be one at a time, in all processes together. If there are two, messages are lost and
/// garbled, and either side may get [`Error::Corrupt`]; it is no undefined behaviour.
///
/// # Lifetime
///
/// It holds the segment of the ring. It can be dropped, or killed, at any time: nothing that was not committed
/// is seen, and another writer continues after the last message that was.
///
/// # Examples
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use shmem_providers::{ShMemProvider, StdShMemProvider};
/// use shmem_providers::channel::Ring;
///
/// let mut provider = StdShMemProvider::new()?;
/// let ring = Ring::create(&mut provider, 4096)?;
/// let (mut writer, mut reader) = (ring.writer()?, ring.reader()?);
///
/// // A message that is written in place:
/// let grant = writer.try_reserve(100)?.expect("the ring is empty");
/// grant.access().write_at(0, b"hello")?;
/// grant.commit_len(5)?;
///
/// // Several that are sent at once:
/// let mut batch = writer.batch();
/// while batch.len() < 10 && batch.push(b"again")? {}
/// assert_eq!(batch.commit()?, 10);
///
/// let mut message = Vec::new();
/// assert!(reader.try_recv(&mut message)?);
/// assert_eq!(message, b"hello");
/// # }
/// # Ok::<(), shmem_providers::Error>(())
/// ```
#[derive(Debug)]
pub struct RingWriter {
    ring: Ring,
    cursor: Cursor,
}

impl RingWriter {
    pub(super) fn new(ring: &Ring) -> Result<Self> {
        Ok(Self {
            cursor: Cursor::writer(ring.cursors(), ring.capacity)?,
            ring: ring.clone(),
        })
    }

    /// Returns the ring.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Finds room for a message behind `pending` bytes of records that are not committed yet.
    #[inline]
    fn place(&mut self, pending: u32, len: usize, wait: Option<Wait>) -> Result<Option<Record>> {
        let capacity = self.ring.capacity;
        let len = checked_len(len, capacity)?;
        let start = self.cursor.position().wrapping_add(pending);
        let record = Record::at(start, len, capacity);
        let need = pending.saturating_add(record.total());
        let read = &self.ring.cursors().read;
        Ok(self.cursor.reach(read, need, wait)?.then_some(record))
    }

    #[inline]
    fn commit(&mut self, bytes: u32) -> Result<()> {
        self.cursor.advance(&self.ring.cursors().written, bytes)
    }

    #[inline]
    fn grant(&mut self, len: usize, wait: Option<Wait>) -> Result<Option<Grant<'_>>> {
        let record = self.place(0, len, wait)?;
        Ok(record.map(|record| Grant {
            writer: self,
            record,
        }))
    }

    #[inline]
    fn copy(&mut self, message: &[u8], wait: Option<Wait>) -> Result<bool> {
        let Some(record) = self.place(0, message.len(), wait)? else {
            return Ok(false);
        };
        let data = self.ring.data();
        copy::store(record.message(data), message);
        record.write(data)?;
        self.commit(record.total())?;
        Ok(true)
    }

    /// Waits for room for a message of `len` bytes, and returns it, or `None` if the time is up.
    ///
    /// The bytes contain what was in the ring before.
    ///
    /// # Errors
    ///
    /// [`Error::MessageTooLong`] if `len` is larger than [`Ring::max_message`], [`Error::Corrupt`] if a
    /// process has overwritten the positions, and as [`Wait::while_equal`].
    #[inline]
    pub fn reserve(&mut self, len: usize, wait: Wait) -> Result<Option<Grant<'_>>> {
        self.grant(len, Some(wait))
    }

    /// Returns room for a message of `len` bytes, or `None` if there is none now.
    ///
    /// # Errors
    ///
    /// As [`reserve`](Self::reserve).
    #[inline]
    pub fn try_reserve(&mut self, len: usize) -> Result<Option<Grant<'_>>> {
        self.grant(len, None)
    }

    /// Waits until there is room, and sends a message. Returns `false` if the time is up.
    ///
    /// # Errors
    ///
    /// As [`reserve`](Self::reserve) and [`Grant::commit`].
    #[inline]
    pub fn send(&mut self, message: &[u8], wait: Wait) -> Result<bool> {
        self.copy(message, Some(wait))
    }

    /// Sends a message. Returns `false` if there is no room for it now.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    #[inline]
    pub fn try_send(&mut self, message: &[u8]) -> Result<bool> {
        self.copy(message, None)
    }

    /// Sends the bytes of a value as a message, as [`send`](Self::send) does.
    /// [`RingReader::recv_record`](super::RingReader::recv_record) receives it.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    #[cfg(feature = "zerocopy")]
    pub fn send_record<T>(&mut self, record: &T, wait: Wait) -> Result<bool>
    where
        T: zerocopy::IntoBytes + zerocopy::Immutable + ?Sized,
    {
        self.copy(record.as_bytes(), Some(wait))
    }

    /// Starts a batch of messages that are sent at once.
    pub fn batch(&mut self) -> Batch<'_> {
        Batch {
            writer: self,
            pending: 0,
            count: 0,
        }
    }

    /// Sends messages in batches that are as large as the room allows, and waits for more. Returns their
    /// number, which is smaller than that of `messages` only if the time for one of them is up.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send). Messages before the one that causes the error may be sent or not.
    pub fn send_batch<'m>(
        &mut self,
        messages: impl IntoIterator<Item = &'m [u8]>,
        wait: Wait,
    ) -> Result<usize> {
        let mut sent = 0;
        let mut batch = self.batch();
        for message in messages {
            if batch.push(message)? {
                continue;
            }
            sent += batch.commit()?;
            if !self.send(message, wait)? {
                return Ok(sent);
            }
            sent += 1;
            batch = self.batch();
        }
        Ok(sent + batch.commit()?)
    }
}

/// Room for a message in a [`Ring`], which nobody sees until it is committed.
///
/// Created by [`RingWriter::reserve`]. If it is dropped, nothing is sent.
#[derive(Debug)]
#[must_use = "nothing is sent until it is committed"]
pub struct Grant<'a> {
    writer: &'a mut RingWriter,
    record: Record,
}

impl Grant<'_> {
    /// Returns access to the bytes, which start at a multiple of 8.
    #[must_use]
    #[inline]
    pub fn access(&self) -> Access<'_> {
        self.writer.ring.message(&self.record)
    }

    /// Returns the bytes as a slice.
    ///
    /// # Safety
    ///
    /// While the slice lives, no other process and no other access of this one reads or writes the bytes. The
    /// library ensures that for processes that use the ring as documented, with one writer.
    #[must_use]
    pub unsafe fn as_mut_slice(&mut self) -> &mut [u8] {
        let bytes = self.access().as_atomic_u8();
        let (start, len) = (bytes.as_ptr().cast_mut().cast::<u8>(), bytes.len());
        // SAFETY: the bytes are mapped while the writer is borrowed, and an `AtomicU8` may be written through a
        // shared reference. The caller ensures that nothing else accesses them.
        unsafe { core::slice::from_raw_parts_mut(start, len) }
    }

    /// Sends all bytes as a message.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if the system refuses to wake the reader. The message is sent nevertheless.
    #[inline]
    pub fn commit(self) -> Result<()> {
        self.record.write(self.writer.ring.data())?;
        self.writer.commit(self.record.total())
    }

    /// Sends the first `len` bytes as a message.
    ///
    /// # Errors
    ///
    /// [`Error::MessageTooLong`] if there are fewer, and nothing is sent then; otherwise as
    /// [`commit`](Self::commit).
    pub fn commit_len(mut self, len: usize) -> Result<()> {
        let max = self.record.len();
        match u32::try_from(len) {
            Ok(shorter) if len <= max => self.record = self.record.with_len(shorter),
            _ => return Err(Error::MessageTooLong { len, max }),
        }
        self.commit()
    }
}

/// Messages that are sent at once: with one change of the position, and at most one wake-up.
///
/// Created by [`RingWriter::batch`]. If it is dropped, nothing is sent.
#[derive(Debug)]
#[must_use = "nothing is sent until it is committed"]
pub struct Batch<'a> {
    writer: &'a mut RingWriter,
    /// The bytes of the records.
    pending: u32,
    count: usize,
}

impl Batch<'_> {
    /// Adds a message. Returns `false` if there is no room for it now.
    ///
    /// The reader makes no room before it sees these messages: [commit](Self::commit) the batch, and start
    /// another one.
    ///
    /// # Errors
    ///
    /// As [`RingWriter::reserve`].
    pub fn push(&mut self, message: &[u8]) -> Result<bool> {
        let Some(record) = self.writer.place(self.pending, message.len(), None)? else {
            return Ok(false);
        };
        let data = self.writer.ring.data();
        copy::store(record.message(data), message);
        record.write(data)?;
        self.pending = self.pending.saturating_add(record.total());
        self.count += 1;
        Ok(true)
    }

    /// Returns the number of messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns `true` if there are no messages.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Sends the messages, and returns their number.
    ///
    /// # Errors
    ///
    /// As [`Grant::commit`].
    #[inline]
    pub fn commit(self) -> Result<usize> {
        if self.count > 0 {
            self.writer.commit(self.pending)?;
        }
        Ok(self.count)
    }
}
