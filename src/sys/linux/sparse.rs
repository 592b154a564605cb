//! Which parts of a file in memory have memory allocated, and how to free it: `lseek(2)` with
//! `SEEK_DATA`, `fallocate(2)`.

use core::ops::Range;

use rustix::fd::OwnedFd;
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;

use super::page_size;
use crate::error::{Result, Subject};
use crate::sys::failed;

/// Returns the first range at or after `from` that has memory, in an object of `len` bytes.
pub(crate) fn next_data(fd: &OwnedFd, from: usize, len: usize) -> Result<Option<Range<usize>>> {
    if from >= len {
        return Ok(None);
    }
    let offset = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(len);
    // Seeking also moves the file offset of the descriptor, which nothing uses.
    let start = match seek(fd, SeekFrom::Data(from as u64)) {
        Ok(start) => offset(start),
        Err(Errno::NXIO) => return Ok(None),
        Err(errno) => return Err(failed("lseek(SEEK_DATA)", errno, Subject::Nothing)),
    };
    if start == len {
        return Ok(None);
    }
    let end = match seek(fd, SeekFrom::Hole(start as u64)) {
        Ok(end) => offset(end),
        // The object has been truncated between the two calls.
        Err(Errno::NXIO) => return Ok(None),
        Err(errno) => return Err(failed("lseek(SEEK_HOLE)", errno, Subject::Nothing)),
    };
    // If the page at `start` has been freed between the two calls, the hole starts there. Only that
    // page is reported then, so that the caller still looks at those after it.
    let page = start.saturating_add(page_size() - start % page_size());
    Ok(Some(start..if start < end { end } else { page.min(len) }))
}

/// Frees the memory of a range in an object of `size` bytes. The range reads as zeros afterwards.
///
/// Other bytes are not affected. If the range ends at the end of the object, the last page is freed
/// completely: its remaining bytes belong to nothing.
pub(crate) fn punch_hole(fd: &OwnedFd, range: Range<usize>, size: u64) -> Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let (start, mut end) = (range.start as u64, range.end as u64);
    if end == size {
        end = end
            .checked_next_multiple_of(page_size() as u64)
            .unwrap_or(end);
    }
    loop {
        match fallocate(fd, flags, start, end.saturating_sub(start)) {
            Err(Errno::INTR) => {}
            done => {
                let subject = Subject::Bytes(range.len());
                return done
                    .map_err(|errno| failed("fallocate(FALLOC_FL_PUNCH_HOLE)", errno, subject));
            }
        }
    }
}
