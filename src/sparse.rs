//! Large segments of which little is used: which parts have memory, and how they are cleared and
//! give it back.

use core::fmt;
use core::mem;
use core::ops::Range;

use crate::backend::Sparse;
use crate::error::{Error, Result};
use crate::segment::Segment;
use crate::traits::ShMem;

/// Up to here, in bytes, to fill everything is faster than to ask what there is.
const ASKING_PAYS: usize = 1 << 20;

/// The parts of a segment that have memory, from the first to the last.
///
/// Made by [`Segment::data_ranges`]. Ends after the first error.
pub struct DataRanges<'a, B: Sparse> {
    segment: &'a Segment<B>,
    /// Where to go on, in bytes from the start.
    next: usize,
}

/// The parts of a segment that a copy of it must have: those that have memory, or all of it where
/// that cannot be told.
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
    /// The parts that have memory, because some process has touched them: whole pages, in bytes from
    /// the start of the segment. All other bytes are zero.
    ///
    /// It takes two system calls for each part, and no time for the rest, so it pays for large
    /// segments of which little is used. Where a part ends in the last page it ends with the segment.
    /// What others touch meanwhile may be there or not.
    ///
    /// # Errors
    ///
    /// Each item may be one, and is the last then: [`Error::Unsupported`] if the mechanism cannot
    /// tell, [`Error::Os`] if the system refuses.
    ///
    /// # Platform notes
    ///
    /// Linux, memfd and POSIX segments (`SEEK_DATA`, `lseek(2)`). Reading touches as well.
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

    /// Sets every byte to zero, the fastest way there is: below 1 MiB all of them are written, above
    /// only those parts that have memory, where the mechanism can tell which these are.
    ///
    /// It is under the [contract of the slice](ShMem#the-contract-of-the-slice): nobody else may read
    /// or write the segment meanwhile. Memory is kept; [`trim`](Self::trim) gives it back.
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
        let mut done = 0;
        if len > ASKING_PAYS {
            loop {
                match self.next_data(done) {
                    Ok(Some(range)) => {
                        done = range.end;
                        if let Some(part) = self.get_mut(range) {
                            part.fill(0);
                        }
                    }
                    Ok(None) => return,
                    Err(_) => break,
                }
            }
        }
        if let Some(rest) = self.get_mut(done..) {
            rest.fill(0);
        }
    }

    /// Gives back the memory of these bytes, for all who hold the segment. They are zero afterwards,
    /// and the next one who touches a page gets a new one.
    ///
    /// It is under the [contract of the slice](ShMem#the-contract-of-the-slice), for the whole
    /// segment. It pays where a part is not needed for a while; what is used again at once is faster
    /// [cleared](Self::clear), because every page then costs a page fault in every holder. Of pages
    /// that reach beyond the range only the bytes in it are set to zero, also where the range ends
    /// with a segment of which only a part was attached.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfBounds`] if the segment has no such bytes, [`Error::Unsupported`] if the
    /// mechanism cannot do it, or if to do it would take away what was reserved (huge pages, POSIX
    /// segments), [`Error::Os`] if the system refuses, as it does for memory that is locked.
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
            return Err(Error::Released { id: self.id })?;
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
        // After an error, and after the last range, there is nothing more.
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
