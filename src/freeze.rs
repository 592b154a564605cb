//! [`Segment::freeze`]: makes a segment with a single writer immutable, and [`ReadOnly::as_frozen`]: its bytes
//! as a slice.

use core::fmt;

use crate::backend::{Attach, Backend, STILL_WRITABLE, Snapshots};
use crate::error::{Error, Result};
use crate::memory::read_only::ReadOnly;
use crate::options::OptionReport;
use crate::segment::Segment;
use crate::traits::ShMem;

impl<B: Snapshots> ReadOnly<Segment<B>> {
    /// Returns the bytes if no process can write to them any more, because the segment was
    /// [frozen](Segment::freeze) or is a [`Snapshot`](crate::Snapshot). Otherwise returns `None`.
    ///
    /// The slice has no contract: the kernel ensures that its bytes do not change. On Apple's systems nothing
    /// proves that, and the result is always `None`.
    #[must_use]
    pub fn as_frozen(&self) -> Option<&[u8]> {
        let segment = self.segment();
        let handle = segment.handle.as_ref()?;
        segment.backend().is_frozen(handle).then(|| &segment[..])
    }

    /// Freezes a segment with a single writer that does not exist any more, because its creator has dropped
    /// it or ended, and its forked children as well: see [`Segment::freeze`].
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if a process can still write to the segment, or if it was not created with
    /// [`single_writer`](crate::ShMemOptions::single_writer). On Apple's systems always, because nothing tells
    /// whether the single writer still exists.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use shmem_providers::{MemfdShMemProvider, ShMem, ShMemOptions, ShMemProvider};
    ///
    /// let mut provider = MemfdShMemProvider::new()?;
    /// let options = ShMemOptions::new().single_writer();
    /// let (segment, _) = provider.new_shmem_with(4096, options)?;
    /// let reader = provider.shmem_from_id_read_only(segment.id())?;
    /// assert!(reader.freeze().is_err());
    /// drop(segment);
    /// reader.freeze()?;
    /// assert_eq!(reader.as_frozen(), Some(&[0; 4096][..]));
    /// # }
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    pub fn freeze(&self) -> Result<()> {
        let segment = self.segment();
        let Some(handle) = &segment.handle else {
            return Err(Error::Released { id: self.id() });
        };
        segment.backend().check_freezable(handle)?;
        segment.backend().freeze(handle)
    }
}

impl<B: Snapshots> Segment<B> {
    /// Makes the segment immutable: nobody can write to it any more, not even this process. Readers that
    /// are attached go on, and the id still opens it, with
    /// [`shmem_from_id_read_only`](crate::ShMemProvider::shmem_from_id_read_only), or as a
    /// [`View`](crate::View) with [`view_from_id`](crate::Provider::view_from_id).
    ///
    /// # Errors
    ///
    /// A [`FreezeError`], which contains the segment. The reason is [`Error::Unsupported`] if the segment
    /// was not created with [`single_writer`](crate::ShMemOptions::single_writer), or if a forked child
    /// still has it mapped for writing. Then this process still has, too.
    ///
    /// # Platform notes
    ///
    /// As [`single_writer`](crate::ShMemOptions::single_writer). Linux: `F_SEAL_WRITE` (`fcntl(2)`). On
    /// Apple's systems this process gives up the only mapping for writing there is, unless it has forked
    /// children: nothing tells whether one has inherited it, so that [`ReadOnly::as_frozen`] returns `None`
    /// and there are no views.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(target_os = "linux")] {
    /// use shmem_providers::{MemfdShMemProvider, ShMem, ShMemOptions, ShMemProvider};
    ///
    /// let mut provider = MemfdShMemProvider::new()?;
    /// let options = ShMemOptions::new().single_writer();
    /// let (mut table, _) = provider.new_shmem_with(4096, options)?;
    /// table.fill(3);
    /// let table = table.freeze()?;
    /// let bytes = table.as_frozen().unwrap_or_default(); // a plain slice, which never changes
    /// assert_eq!(bytes, [3; 4096]);
    /// # }
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    #[expect(clippy::result_large_err, reason = "it contains the segment")]
    pub fn freeze(mut self) -> Result<ReadOnly<Self>, FreezeError<B>> {
        let backend = self.backend().clone();
        let Some(handle) = &self.handle else {
            let id = self.id;
            return Err(FreezeError::Unchanged(self, Error::Released { id }));
        };
        // Everything that can fail comes before the writable mapping is given up, because there cannot be
        // another one.
        let attach = Attach::for_reading(Some(self.len()));
        let mapping = backend.check_freezable(handle).and_then(|()| {
            let mut report = OptionReport::default();
            backend.map(handle, attach, &mut report)
        });
        let frozen = match mapping {
            Ok(_) if !self.is_alone() => {
                return Err(FreezeError::Unchanged(self, STILL_WRITABLE));
            }
            Ok(mapping) => self.into_read_only(mapping),
            Err(error) => return Err(FreezeError::Unchanged(self, error)),
        };
        let outcome = match &frozen.segment().handle {
            Some(handle) => backend.freeze_own(handle),
            None => Ok(()),
        };
        match outcome {
            Ok(()) => Ok(frozen),
            Err(error) => Err(FreezeError::ReadOnly(frozen, error)),
        }
    }
}

/// A segment that [`Segment::freeze`] could not freeze, and the reason.
///
/// # Examples
///
/// ```
/// use shmem_providers::{FreezeError, ShMemProvider, StdShMemProvider};
///
/// let segment = StdShMemProvider::new()?.new_shmem(4096)?; // without a single writer
/// match segment.freeze() {
///     Err(FreezeError::Unchanged(mut segment, reason)) => {
///         segment[0] = 1;
///         println!("not frozen: {reason}");
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), shmem_providers::Error>(())
/// ```
#[derive(Debug)]
pub enum FreezeError<B: Backend> {
    /// Nothing has changed: this process can write to the segment.
    Unchanged(Segment<B>, Error),
    /// This process has given up its permission to write, and another one has not: a child that another
    /// thread has forked during the call. Call [`ReadOnly::freeze`] once it has ended or dropped the
    /// segment.
    ReadOnly(ReadOnly<Segment<B>>, Error),
}

impl<B: Backend> FreezeError<B> {
    /// Returns the reason.
    #[must_use]
    pub fn reason(&self) -> &Error {
        match self {
            Self::Unchanged(_, reason) | Self::ReadOnly(_, reason) => reason,
        }
    }
}

/// Writes the reason.
impl<B: Backend> fmt::Display for FreezeError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.reason(), f)
    }
}

impl<B: Backend> core::error::Error for FreezeError<B> {}

/// Drops the segment and keeps the reason.
impl<B: Backend> From<FreezeError<B>> for Error {
    fn from(error: FreezeError<B>) -> Self {
        match error {
            FreezeError::Unchanged(_, reason) | FreezeError::ReadOnly(_, reason) => reason,
        }
    }
}
