//! [`LatestReader`]: copies the newest value.

use alloc::vec::Vec;
use core::hint;
use core::sync::atomic::{AtomicU32, Ordering::Acquire};

use super::Latest;
use super::protocol::{Lost, split};
use crate::error::{Error, Result};
use crate::memory::read_access::ReadAccess;
use crate::sync::wake::Wait;

/// How often a value is copied at most until a copy is whole.
const ATTEMPTS: u32 = 1000;

/// Which value a reader has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seen {
    /// The number of the value: 1 for the first one that was published.
    pub sequence: u64,
    /// Its length in bytes.
    pub len: usize,
    /// How many values were published after the one that this reader has got last, and before this one.
    pub missed: u64,
}

/// Reads the newest value of a [`Latest`].
///
/// Created by [`Latest::reader`]. Any number of them can exist, in any number of processes.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use shmem_providers::NopShMemProvider;
/// use shmem_providers::channel::Latest;
/// use shmem_providers::wake::Wait;
///
/// let latest = Latest::create(&mut NopShMemProvider, 100)?;
/// let mut reader = latest.reader();
/// let mut value = Vec::new();
/// assert_eq!(reader.read(&mut value)?, None); // nothing is published yet
///
/// for number in 1..=5 {
///     latest.writer().publish(&[number])?;
/// }
/// let seen = reader.next(&mut value, Wait::new())?.unwrap();
/// assert_eq!((value, seen.missed), (vec![5], 4));
/// # Ok::<(), shmem_providers::Error>(())
/// ```
#[derive(Debug)]
pub struct LatestReader {
    latest: Latest,
    /// The number of the value that was got last.
    last: u64,
}

impl LatestReader {
    pub(super) fn new(latest: Latest) -> Self {
        let mut reader = Self { latest, last: 0 };
        let newest = match reader.copy(|_| ()) {
            Ok(newest) => newest.map_or(0, |(sequence, ..)| sequence),
            Err(_) => reader.latest.protocol().published(),
        };
        reader.last = newest.saturating_sub(1);
        reader
    }

    /// Copies the newest value, even if this reader has got it before. Returns `None` if nothing was published.
    ///
    /// `value` gets the length of the value. If nothing is returned, its contents are unspecified.
    ///
    /// # Errors
    ///
    /// [`Error::Lapped`] if the slot was reused during each of 1000 copies, which takes a writer that publishes at
    /// full speed, and values that are slower to copy than to write. [`Error::Corrupt`] if a process has overwritten
    /// the words around the value.
    pub fn read(&mut self, value: &mut Vec<u8>) -> Result<Option<Seen>> {
        let seen = self.read_with(|access| fetch(access, value))?;
        seen.map(|(fetched, seen)| fetched.map(|()| seen))
            .transpose()
    }

    /// As [`read`](Self::read), but waits for a value that this reader has not got yet. Returns `None` if the time is
    /// up.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read), and as [`Wait::while_equal`].
    pub fn next(&mut self, value: &mut Vec<u8>, wait: Wait) -> Result<Option<Seen>> {
        let seen = self.next_with(wait, |access| fetch(access, value))?;
        seen.map(|(fetched, seen)| fetched.map(|()| seen))
            .transpose()
    }

    /// Calls `read` with the newest value in place, and returns what it returns, or `None` if nothing was published.
    ///
    /// The value may be overwritten while `read` looks at it. Then the result is dropped, and `read` is called again
    /// with a newer one. So it has to expect any bytes, and must have no other effect than its result.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::atomic::Ordering;
    /// use shmem_providers::NopShMemProvider;
    /// use shmem_providers::channel::Latest;
    ///
    /// let latest = Latest::create(&mut NopShMemProvider, 1 << 20)?;
    /// latest.writer().write(1 << 20, |image| image.fill(3))?;
    /// let pixel = latest.reader().read_with(|image| image.load_u8(5000, Ordering::Relaxed))?;
    /// assert_eq!(pixel.unwrap().0, Ok(3));
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    pub fn read_with<R>(
        &mut self,
        read: impl FnMut(ReadAccess<'_>) -> R,
    ) -> Result<Option<(R, Seen)>> {
        let Some((sequence, len, result)) = self.copy(read)? else {
            return Ok(None);
        };
        let seen = Seen {
            sequence,
            len,
            missed: sequence.saturating_sub(self.last.saturating_add(1)),
        };
        self.last = sequence;
        Ok(Some((result, seen)))
    }

    /// As [`read_with`](Self::read_with), but waits for a value that this reader has not got yet. Returns `None` if
    /// the time is up.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub fn next_with<R>(
        &mut self,
        wait: Wait,
        read: impl FnMut(ReadAccess<'_>) -> R,
    ) -> Result<Option<(R, Seen)>> {
        if self.wait(wait)? {
            self.read_with(read)
        } else {
            Ok(None)
        }
    }

    /// Returns a copy of the newest value as a record, even if this reader has got it before. Returns `None` if nothing
    /// was published.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidValue`] if the value has another length than the record, otherwise as [`read`](Self::read).
    #[cfg(feature = "zerocopy")]
    pub fn read_record<T: zerocopy::FromBytes>(&mut self) -> Result<Option<(T, Seen)>> {
        let found = self.read_with(record)?;
        found.map(|(record, seen)| Ok((record?, seen))).transpose()
    }

    /// As [`read_record`](Self::read_record), but waits for a value that this reader has not got yet. Returns `None` if
    /// the time is up.
    ///
    /// # Errors
    ///
    /// As [`read_record`](Self::read_record) and [`next`](Self::next).
    #[cfg(feature = "zerocopy")]
    pub fn next_record<T: zerocopy::FromBytes>(&mut self, wait: Wait) -> Result<Option<(T, Seen)>> {
        let found = self.next_with(wait, record)?;
        found.map(|(record, seen)| Ok((record?, seen))).transpose()
    }

    /// Returns what this reader belongs to.
    #[must_use]
    pub fn latest(&self) -> &Latest {
        &self.latest
    }

    /// Waits for a value that this reader has not got yet, and returns `false` if the time is up.
    fn wait(&self, wait: Wait) -> Result<bool> {
        let header = &self.latest.header;
        let (_, low) = split(self.last);
        if header.newest.load(Acquire) != low {
            return Ok(true);
        }
        let (spins, deadline) = wait.limits::<AtomicU32>();
        let changed = header
            .waiters
            .wait_while(&header.newest, low, spins, deadline.as_ref())?;
        Ok(changed.is_some())
    }

    /// Calls `read` with the newest value until it was not overwritten at the same time. Returns the number of the
    /// value, its length and the result, or `None` if nothing was published.
    fn copy<R>(
        &self,
        mut read: impl FnMut(ReadAccess<'_>) -> R,
    ) -> Result<Option<(u64, usize, R)>> {
        let mut reason = Lost::Lapped;
        for _ in 0..ATTEMPTS {
            match self.attempt(&mut read) {
                Ok(found) => return Ok(found),
                Err(lost) => reason = lost,
            }
            hint::spin_loop();
        }
        Err(match reason {
            Lost::Lapped => Error::Lapped { attempts: ATTEMPTS },
            Lost::Corrupt => Error::Corrupt {
                what: "the slot of the newest value does not contain it",
            },
        })
    }

    fn attempt<R>(
        &self,
        read: &mut impl FnMut(ReadAccess<'_>) -> R,
    ) -> Result<Option<(u64, usize, R)>, Lost> {
        let protocol = self.latest.protocol();
        let found = protocol.find()?;
        let sequence = found.claim.sequence;
        if sequence == 0 {
            protocol.check(&found.claim)?;
            return Ok(None);
        }
        let len = usize::try_from(found.len).map_err(|_| Lost::Corrupt)?;
        let value = self.latest.value(found.claim.index, len);
        let result = read(*value.map_err(|_| Lost::Corrupt)?);
        protocol.check(&found.claim)?;
        Ok(Some((sequence, len, result)))
    }
}

/// Copies a value.
fn fetch(access: ReadAccess<'_>, value: &mut Vec<u8>) -> Result<()> {
    value.resize(access.len(), 0);
    access.read_at(0, value)
}

/// Returns a copy of a value that has the length of the record.
#[cfg(feature = "zerocopy")]
fn record<T: zerocopy::FromBytes>(access: ReadAccess<'_>) -> Result<T> {
    if access.len() == size_of::<T>() {
        access.read(0)
    } else {
        Err(Error::InvalidValue)
    }
}
