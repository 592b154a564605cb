//! Large segments of which little is used: finding the parts that have memory, clearing them, and
//! freeing their memory.

use core::fmt;
use core::mem;
use core::ops::Range;

use crate::backend::Sparse;
use crate::error::{Error, Result};
use crate::segment::Segment;
use crate::traits::ShMem;

/// Up to this size in bytes, writing everything is faster than asking which parts have memory.
const MIN_SPARSE_LEN: usize = 1 << 20;

/// The parts of a segment that have memory, in ascending order.
///
/// Created by [`Segment::data_ranges`]. Ends after the first error.
pub struct DataRanges<'a, B: Sparse> {
    segment: &'a Segment<B>,
    /// Where to continue, in bytes from the start.
    next: usize,
}

/// The parts of a segment that a copy has to contain: those that have memory, or everything if the
/// mechanism cannot tell.
#[derive(Debug)]
pub(crate) struct DataOrAll<'a, B: Sparse> {
    ranges: Option<DataRanges<'a, B>>,
}

impl<'a, B: Sparse> DataOrAll<'a, B> {
    pub(crate) fn of(segment: &'a Segment<B>) -> Self {
        Self {
            ranges: Some(segment.data_ranges()),
        }
    }
}

impl<B: Sparse> Iterator for DataOrAll<'_, B> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let ranges = self.ranges.as_mut()?;
        let reached = ranges.next;
        if let Ok(range) = ranges.next()? {
            return Some(range);
        }
        let len = ranges.segment.len();
        self.ranges = None;
        Some(reached..len)
    }
}

impl<B: Sparse> Segment<B> {
    /// Returns the parts that have memory because some process has touched them: whole pages, in
    /// bytes from the start of the segment. All other bytes are zero.
    ///
    /// This takes two system calls for each part and nothing for the rest, so it suits
    /// large segments of which little is used. A part that includes the last page ends with the
    /// segment. Pages that other processes touch during the iteration may or may not be included.
    ///
    /// # Errors
    ///
    /// An item can be an error, and is then the last one: [`Error::Unsupported`] if the mechanism
    /// cannot tell, [`Error::Os`] if the system refuses.
    ///
    /// # Platform notes
    ///
    /// Linux, memfd and POSIX segments (`SEEK_DATA`, `lseek(2)`). Reading a page touches it too.
    ///
    /// # Examples
    ///
    /// ```
    /// use shmem_providers::{MemfdShMemProvider, ShMemProvider};
    ///
    /// let mut map = MemfdShMemProvider::new()?.new_shmem(64 << 20)?;
    /// map[20 << 20] = 1;
    /// let touched: Result<Vec<_>, _> = map.data_ranges().collect();
    /// assert!(touched?.iter().any(|part| part.contains(&(20 << 20))));
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    pub fn data_ranges(&self) -> DataRanges<'_, B> {
        DataRanges {
            segment: self,
            next: 0,
        }
    }

    /// Sets every byte to zero in the fastest way: in segments of up to 1 MiB it writes all bytes,
    /// in larger ones only the parts that have memory, if the mechanism can tell which these are.
    ///
    /// The [contract of the slice](ShMem#the-contract-of-the-slice) applies: no other process may
    /// read or write the segment during the call. The segment keeps its memory;
    /// [`trim`](Self::trim) frees it.
    ///
    /// # Examples
    ///
    /// ```
    /// use shmem_providers::{ShMemProvider, StdShMemProvider};
    ///
    /// let mut map = StdShMemProvider::new()?.new_shmem(64 << 20)?;
    /// map[20 << 20] = 1;
    /// map.clear();
    /// assert_eq!(map[20 << 20], 0);
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    pub fn clear(&mut self) {
        let len = self.len();
        let mut cleared = 0;
        if len > MIN_SPARSE_LEN {
            loop {
                match self.next_data(cleared) {
                    Ok(Some(range)) => {
                        cleared = range.end;
                        if let Some(part) = self.get_mut(range) {
                            part.fill(0);
                        }
                    }
                    Ok(None) => return,
                    Err(_) => break,
                }
            }
        }
        if let Some(rest) = self.get_mut(cleared..) {
            rest.fill(0);
        }
    }

    /// Frees the memory of these bytes, for all holders of the segment. The bytes are zero
    /// afterwards, and the next access to a page allocates a new one.
    ///
    /// The [contract of the slice](ShMem#the-contract-of-the-slice) applies to the whole segment.
    /// Use it for a part that is not needed for a while. For a part that is reused at once,
    /// [`clear`](Self::clear) is faster, because after `trim` each page costs every holder a page
    /// fault. In pages that are only partly in the range, the bytes in the range are set to zero
    /// and the page is kept; this includes the last page of a segment that is only partly attached.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if the range reaches beyond the end of the segment,
    /// [`Error::Unsupported`] if the mechanism cannot free memory or would give up what was
    /// reserved (huge pages, POSIX segments), [`Error::Os`] if the system refuses, as it does for
    /// locked memory.
    ///
    /// # Platform notes
    ///
    /// Linux, memfd segments (`FALLOC_FL_PUNCH_HOLE`, `fallocate(2)`).
    ///
    /// # Examples
    ///
    /// ```
    /// use shmem_providers::{MemfdShMemProvider, ShMemProvider};
    ///
    /// let mut map = MemfdShMemProvider::new()?.new_shmem(64 << 20)?;
    /// map.fill(1);
    /// map.trim(1 << 20..64 << 20)?;
    /// assert_eq!((map[0], map[1 << 20]), (1, 0));
    /// assert_eq!(map.data_ranges().count(), 1);
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    pub fn trim(&mut self, range: Range<usize>) -> Result<()> {
        let len = self.len();
        if self.get(range.clone()).is_none() {
            return Err(Error::OutOfBounds {
                offset: range.start,
                len: range.end.saturating_sub(range.start),
                size: len,
            })?;
        }
        if range.is_empty() {
            return Ok(());
        }
        let Some(handle) = &self.handle else {
            return Err(Error::Released { id: self.id });
        };
        self.backend().trim(handle, range)?;
        Ok(())
    }

    fn next_data(&self, from: usize) -> Result<Option<Range<usize>>> {
        match &self.handle {
            Some(handle) => self.backend().next_data(handle, from, self.len()),
            None => Ok(None),
        }
    }
}

impl<B: Sparse> Iterator for DataRanges<'_, B> {
    type Item = Result<Range<usize>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_range().transpose()
    }
}

impl<B: Sparse> DataRanges<'_, B> {
    fn next_range(&mut self) -> Result<Option<Range<usize>>> {
        // Nothing follows an error or the last range.
        let from = mem::replace(&mut self.next, usize::MAX);
        let found = self.segment.next_data(from)?;
        if let Some(range) = &found {
            self.next = range.end;
        }
        Ok(found)
    }
}

impl<B: Sparse> fmt::Debug for DataRanges<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataRanges")
            .field("id", &self.segment.id())
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}
