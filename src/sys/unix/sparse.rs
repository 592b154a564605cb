//! Which parts of a file in memory have memory, and how they lose it: `SEEK_DATA`, `fallocate(2)`.

use core::ops::Range;

use rustix::fd::OwnedFd;

use crate::error::Result;

/// The first part from `from` on that has memory, of an object of `len` bytes.
#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) fn next_data(fd: &OwnedFd, from: usize, len: usize) -> Result<Option<Range<usize>>> {
    use crate::error::Subject;
    use crate::sys::{failed, page_size};
    use rustix::fs::{SeekFrom, seek};
    use rustix::io::Errno;

    if from >= len {
        return Ok(None);
    }
    let place = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(len);
    // The descriptor's own place in the file moves as well, and nobody ever asks for that.
    let start = match seek(fd, SeekFrom::Data(from as u64)) {
        Ok(start) => place(start),
        Err(Errno::NXIO) => return Ok(None),
        Err(errno) => return Err(failed("lseek(SEEK_DATA)", errno, Subject::Nothing)),
    };
    if start == len {
        return Ok(None);
    }
    let end = match seek(fd, SeekFrom::Hole(start as u64)) {
        Ok(end) => place(end),
        // The object has become shorter meanwhile.
        Err(Errno::NXIO) => return Ok(None),
        Err(errno) => return Err(failed("lseek(SEEK_HOLE)", errno, Subject::Nothing)),
    };
    // If the page was given back meanwhile, the hole starts where it was. Those behind it are still to
    // be looked at.
    let page = start.saturating_add(page_size() - start % page_size());
    Ok(Some(start..if start < end { end } else { page.min(len) }))
}

/// Gives back the memory of these bytes, of an object of `size`, which are zeros from then on.
///
/// Nothing else is changed. Only if they end with the object, all of its last page is given back, of
/// which the rest belongs to nobody.
#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) fn punch_hole(fd: &OwnedFd, range: Range<usize>, size: u64) -> Result<()> {
    use crate::error::Subject;
    use crate::sys::{failed, page_size};
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;

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

/// Elsewhere it is not known.
#[cfg(not(any(target_os = "android", target_os = "linux")))]
pub(crate) fn next_data(_fd: &OwnedFd, _from: usize, _len: usize) -> Result<Option<Range<usize>>> {
    Err(crate::options::UNSUPPORTED)
}
