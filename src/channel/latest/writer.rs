//! [`LatestWriter`]: publishes values.

use super::Latest;
use crate::error::{Error, Result};
use crate::memory::access::Access;

/// Publishes values for the readers of a [`Latest`].
///
/// Created by [`Latest::writer`]. It keeps nothing in mind: processes may take turns with a writer each, as long as
/// only one of them publishes at a time.
///
/// # Examples
///
/// ```
/// use shmem_providers::NopShMemProvider;
/// use shmem_providers::channel::Latest;
///
/// let latest = Latest::create(&mut NopShMemProvider, 4096)?;
/// let mut writer = latest.writer();
/// assert_eq!(writer.publish(b"a frame")?, 1);
/// writer.write(4096, |frame| frame.fill(7))?; // in place
///
/// let mut frame = Vec::new();
/// let seen = latest.reader().read(&mut frame)?.unwrap();
/// assert_eq!((seen.sequence, frame), (2, vec![7; 4096]));
/// # Ok::<(), shmem_providers::Error>(())
/// ```
#[derive(Debug)]
pub struct LatestWriter {
    latest: Latest,
}

impl LatestWriter {
    pub(super) fn new(latest: Latest) -> Self {
        // The writer before may have been killed after it had published, and before it had woken the readers. If the
        // system refuses, they sleep until the next value or their timeouts.
        let _ = latest.header.waiters.wake();
        Self { latest }
    }

    /// Publishes a copy of these bytes, and returns the number of the value: 1 for the first one.
    ///
    /// It wakes the readers that sleep, and makes no system call if none does.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if there are more than [`max_len`](Latest::max_len) bytes; then nothing is published.
    pub fn publish(&mut self, value: &[u8]) -> Result<u64> {
        let (sequence, written) = self.fill(value.len(), |access| access.write_at(0, value))?;
        written.map(|()| sequence)
    }

    /// Publishes a value of `len` bytes that `write` writes in place, and returns what that returns.
    ///
    /// The bytes are those of an older value at first. If `write` panics, nothing is published.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if `len` is more than [`max_len`](Latest::max_len); then nothing is published.
    pub fn write<R>(&mut self, len: usize, write: impl FnOnce(Access<'_>) -> R) -> Result<R> {
        self.fill(len, write).map(|(_, result)| result)
    }

    /// Publishes a copy of a record, and returns the number of the value.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    ///
    /// # Examples
    ///
    /// ```
    /// use shmem_providers::NopShMemProvider;
    /// use shmem_providers::channel::Latest;
    ///
    /// let latest = Latest::create(&mut NopShMemProvider, size_of::<[f32; 3]>())?;
    /// latest.writer().publish_record(&[1.0_f32, 2.0, 3.0])?;
    /// let (position, _) = latest.reader().read_record::<[f32; 3]>()?.unwrap();
    /// assert_eq!(position, [1.0, 2.0, 3.0]);
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    #[cfg(feature = "zerocopy")]
    pub fn publish_record<T>(&mut self, record: &T) -> Result<u64>
    where
        T: zerocopy::IntoBytes + zerocopy::Immutable + ?Sized,
    {
        self.publish(record.as_bytes())
    }

    /// Returns what this writer belongs to.
    #[must_use]
    pub fn latest(&self) -> &Latest {
        &self.latest
    }

    fn fill<R>(&mut self, len: usize, write: impl FnOnce(Access<'_>) -> R) -> Result<(u64, R)> {
        let header = &self.latest.header;
        let too_long = Error::OutOfBounds {
            offset: 0,
            len,
            size: self.latest.max_len(),
        };
        let word = u32::try_from(len).map_err(|_| too_long.clone())?;
        if len > self.latest.max_len() {
            return Err(too_long);
        }
        let protocol = self.latest.protocol();
        // There are slots: it was checked when the segment was opened.
        let claim = protocol.begin().ok_or(too_long)?;
        let result = write(self.latest.value(claim.index, len)?);
        protocol.publish(&claim, word);
        // The value is published. If the system refuses, readers sleep until the next one or their timeouts.
        let _ = header.waiters.wake();
        Ok((claim.sequence, result))
    }
}
