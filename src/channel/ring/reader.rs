//! [`RingReader`]: the receiving side of a ring.
#![allow(unsafe_code)]

use alloc::vec::Vec;

use super::Ring;
use super::cursor::{Cursor, UNIT};
use super::record::Record;
use crate::error::{Error, Result};
use crate::memory::access::Access;
use crate::memory::copy;
use crate::sync::wake::Wait;

/// The reader of a [`Ring`].
///
/// There must be one at a time, in all processes together. If there are two, messages are received twice or
/// garbled, and either side may get [`Error::Corrupt`]; it is no undefined behaviour.
///
/// # Lifetime
///
/// It holds the segment of the ring. It can be dropped, or killed, at any time: the next reader starts with the
/// first message that was not released. A message that was used, but not released, is received again.
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
/// for message in ["one", "two", "three"] {
///     writer.try_send(message.as_bytes())?;
/// }
///
/// // A message that is used in place:
/// let message = reader.try_peek()?.expect("three messages were sent");
/// assert_eq!(message.to_vec(), b"one");
/// message.release()?;
///
/// // All others, which are released at once:
/// let mut messages = reader.try_drain()?.expect("two messages are left");
/// while let Some(message) = messages.next_message()? {
///     assert!(message.len() >= 3);
/// }
/// assert_eq!(messages.release()?, 2);
/// # }
/// # Ok::<(), shmem_providers::Error>(())
/// ```
#[derive(Debug)]
pub struct RingReader {
    ring: Ring,
    cursor: Cursor,
}

impl RingReader {
    pub(super) fn new(ring: &Ring) -> Result<Self> {
        Ok(Self {
            cursor: Cursor::reader(ring.cursors(), ring.capacity)?,
            ring: ring.clone(),
        })
    }

    /// Returns the ring.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Returns the record behind `taken` bytes of records that are not released yet.
    #[inline]
    fn record(&self, taken: u32) -> Result<Record> {
        let position = self.cursor.position().wrapping_add(taken);
        let room = self.cursor.room().saturating_sub(taken);
        Record::read(self.ring.data(), position, room, self.ring.capacity)
    }

    #[inline]
    fn next(&mut self, wait: Option<Wait>) -> Result<Option<Record>> {
        let written = &self.ring.cursors().written;
        if !self.cursor.reach(written, UNIT, wait)? {
            return Ok(None);
        }
        self.record(0).map(Some)
    }

    #[inline]
    fn release(&mut self, bytes: u32) -> Result<()> {
        self.cursor.advance(&self.ring.cursors().read, bytes)
    }

    #[inline]
    fn message(&mut self, wait: Option<Wait>) -> Result<Option<Message<'_>>> {
        let record = self.next(wait)?;
        Ok(record.map(|record| Message {
            reader: self,
            record,
        }))
    }

    #[inline]
    fn copy(&mut self, into: &mut Vec<u8>, wait: Option<Wait>) -> Result<bool> {
        let Some(message) = self.message(wait)? else {
            return Ok(false);
        };
        into.resize(message.len(), 0);
        copy::load(message.access().as_atomic_u8(), into);
        message.release()?;
        Ok(true)
    }

    /// Waits for the next message, and returns it in place, or `None` if the time is up.
    ///
    /// The message stays in the ring until it is [released](Message::release).
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if a process has overwritten the ring, otherwise as [`Wait::while_equal`].
    #[inline]
    pub fn peek(&mut self, wait: Wait) -> Result<Option<Message<'_>>> {
        self.message(Some(wait))
    }

    /// Returns the next message in place, or `None` if there is none now.
    ///
    /// # Errors
    ///
    /// As [`peek`](Self::peek).
    #[inline]
    pub fn try_peek(&mut self) -> Result<Option<Message<'_>>> {
        self.message(None)
    }

    /// Waits for the next message, replaces the content of `into` by it, and releases it. Returns `false` if
    /// the time is up; then `into` is unchanged.
    ///
    /// # Errors
    ///
    /// As [`peek`](Self::peek) and [`Message::release`].
    #[inline]
    pub fn recv(&mut self, into: &mut Vec<u8>, wait: Wait) -> Result<bool> {
        self.copy(into, Some(wait))
    }

    /// As [`recv`](Self::recv), but returns `false` if there is no message now.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    #[inline]
    pub fn try_recv(&mut self, into: &mut Vec<u8>) -> Result<bool> {
        self.copy(into, None)
    }

    /// Waits for the next message, copies it to the start of `into`, releases it, and returns its length, or
    /// `None` if the time is up.
    ///
    /// # Errors
    ///
    /// [`Error::MessageTooLong`] if it does not fit; then it stays in the ring. Otherwise as
    /// [`recv`](Self::recv).
    #[inline]
    pub fn recv_into(&mut self, into: &mut [u8], wait: Wait) -> Result<Option<usize>> {
        let Some(message) = self.peek(wait)? else {
            return Ok(None);
        };
        let (len, max) = (message.len(), into.len());
        let Some(into) = into.get_mut(..len) else {
            return Err(Error::MessageTooLong { len, max });
        };
        copy::load(message.access().as_atomic_u8(), into);
        message.release()?;
        Ok(Some(len))
    }

    /// Waits for the next message, releases it, and returns it as a value, or `None` if the time is up.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidValue`] if it has another length than the value; then it stays in the ring. Otherwise as
    /// [`recv`](Self::recv).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use shmem_providers::channel::Ring;
    /// use shmem_providers::wake::Wait;
    /// use shmem_providers::{Error, ShMemProvider, StdShMemProvider};
    ///
    /// let ring = Ring::create(&mut StdShMemProvider::new()?, 4096)?;
    /// let (mut writer, mut reader) = (ring.writer()?, ring.reader()?);
    /// writer.send_record(&[1_u32, 2], Wait::new())?;
    /// assert_eq!(reader.recv_record::<u32>(Wait::new()), Err(Error::InvalidValue));
    /// assert_eq!(reader.recv_record::<[u32; 2]>(Wait::new())?, Some([1, 2]));
    /// # }
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    #[cfg(feature = "zerocopy")]
    pub fn recv_record<T: zerocopy::FromBytes>(&mut self, wait: Wait) -> Result<Option<T>> {
        let Some(message) = self.peek(wait)? else {
            return Ok(None);
        };
        if message.len() != size_of::<T>() {
            return Err(Error::InvalidValue);
        }
        let value = message.access().read(0)?;
        message.release()?;
        Ok(Some(value))
    }

    /// Waits for a message, and returns all that there are then, in place, or `None` if the time is up.
    ///
    /// # Errors
    ///
    /// As [`peek`](Self::peek).
    pub fn drain(&mut self, wait: Wait) -> Result<Option<Messages<'_>>> {
        self.messages(Some(wait))
    }

    /// Returns all messages that there are now, in place, or `None` if there is none.
    ///
    /// # Errors
    ///
    /// As [`peek`](Self::peek).
    pub fn try_drain(&mut self) -> Result<Option<Messages<'_>>> {
        self.messages(None)
    }

    fn messages(&mut self, wait: Option<Wait>) -> Result<Option<Messages<'_>>> {
        let written = &self.ring.cursors().written;
        if !self.cursor.reach(written, UNIT, wait)? {
            return Ok(None);
        }
        self.cursor.look(written)?;
        Ok(Some(Messages {
            reader: self,
            taken: 0,
            count: 0,
        }))
    }
}

/// A message in a [`Ring`].
///
/// Created by [`RingReader::peek`]. If it is dropped without being released, it stays in the ring and is the next
/// one again.
#[derive(Debug)]
pub struct Message<'a> {
    reader: &'a mut RingReader,
    record: Record,
}

impl Message<'_> {
    /// Returns access to the bytes, which start at a multiple of 8.
    #[must_use]
    #[inline]
    pub fn access(&self) -> Access<'_> {
        self.reader.ring.message(&self.record)
    }

    /// Returns the length in bytes.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.record.len()
    }

    /// Returns `true` if the message has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a copy of the message.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let bytes = self.access().as_atomic_u8();
        let mut copy = alloc::vec![0; bytes.len()];
        copy::load(bytes, &mut copy);
        copy
    }

    /// Returns the bytes as a slice.
    ///
    /// # Safety
    ///
    /// While the slice lives, no process and no other access of this one writes the bytes. The library ensures
    /// that for processes that use the ring as documented, with one writer and one reader.
    #[must_use]
    pub unsafe fn as_slice(&self) -> &[u8] {
        let bytes = self.access().as_atomic_u8();
        // SAFETY: the bytes are mapped while the reader is borrowed. The caller ensures that nothing writes them.
        unsafe { core::slice::from_raw_parts(bytes.as_ptr().cast::<u8>(), bytes.len()) }
    }

    /// Removes the message from the ring.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if the system refuses to wake the writer. The message is removed nevertheless.
    #[inline]
    pub fn release(self) -> Result<()> {
        self.reader.release(self.record.total())
    }
}

/// Messages in a [`Ring`] that are released at once.
///
/// Created by [`RingReader::drain`]. If it is dropped without being released, all of them stay in the ring.
#[derive(Debug)]
pub struct Messages<'a> {
    reader: &'a mut RingReader,
    /// The bytes of the records that were returned.
    taken: u32,
    count: usize,
}

impl Messages<'_> {
    /// Returns access to the next message, or `None` after the last one.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if a process has overwritten the ring.
    #[inline]
    pub fn next_message(&mut self) -> Result<Option<Access<'_>>> {
        if self.taken >= self.reader.cursor.room() {
            return Ok(None);
        }
        let record = self.reader.record(self.taken)?;
        self.taken = self.taken.saturating_add(record.total());
        self.count += 1;
        Ok(Some(self.reader.ring.message(&record)))
    }

    /// Removes the messages that [`next_message`](Self::next_message) has returned, and returns their number.
    /// The others stay.
    ///
    /// # Errors
    ///
    /// As [`Message::release`].
    #[inline]
    pub fn release(self) -> Result<usize> {
        if self.count > 0 {
            self.reader.release(self.taken)?;
        }
        Ok(self.count)
    }
}
