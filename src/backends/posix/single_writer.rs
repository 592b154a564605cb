//! POSIX segments that only their creator can write to, where a descriptor that permits reading only can
//! never permit more: Apple's systems. A service hands out such a descriptor, and no other exists.
//!
//! The object is created with mode 0400, so that its name opens it for reading only, except for root. The
//! creator maps it for writing, opens the name once more for reading, removes the name, and closes the
//! descriptor that permits writing. From then on, its mapping is the only way to write. That a mapping of the
//! other descriptor cannot be made writable (`mprotect(2)`) is tried each time.
//!
//! Another process of the user could remove the name and create another object under it before the creator
//! opens it for reading. Apple's systems do not tell objects apart, so the creator writes bytes that nobody
//! can predict, and reads each of them at once through the other descriptor.

use core::sync::atomic::{Ordering::SeqCst, fence};

use rustix::fd::OwnedFd;

use super::names;
use crate::backend::{Cleanup, Created, Request};
use crate::error::{Error, Result};
use crate::memory::mapping::{Mapping, Protection};
use crate::options::{NO_SINGLE_WRITER, OptionReport, OptionStatus, ShMemOptions, UNSUPPORTED};
use crate::sys::{self, FileInfo, shm_names};

/// How many times 8 bytes are compared.
const ROUNDS: usize = 8;

/// Why the single writer alone can end what it has created.
pub(super) const UNKNOWN_WRITERS: Error = Error::Unsupported {
    what: "this system does not tell whether the single writer of the segment still exists: only the \
           single writer can freeze it",
};

/// Creates a segment that this process alone can write to. Its name is removed already.
pub(super) fn create(request: Request<'_>, report: &mut OptionReport) -> Result<Created<OwnedFd>> {
    if !shm_names::READ_ONLY_STAYS {
        return Err(NO_SINGLE_WRITER);
    }
    if request.options.reserve.is_some() {
        return Err(sys::SINGLE_WRITER_CANNOT_GROW);
    }
    let options = ShMemOptions {
        single_writer: false,
        ..request.options
    };
    options.refuse(&UNSUPPORTED, report)?;
    let size = request.size;
    let mut created = names::create_for_readers(|fd| {
        sys::reserve(fd, size)?;
        sys::map_fd(fd, size)
    })?;
    let name = names::name(&created.id)?;
    let reader = shm_names::open(name, &created.id, Protection::Read);
    shm_names::unlink_own(&created.handle, name, &created.id)?;
    created.handle = reader?;
    created.cleanup = Cleanup::Kernel;
    let len = FileInfo::of(&created.handle)?.mapped_len(Some(size))?;
    let mut seen = sys::map_fd_as(&created.handle, len, Protection::Read)?;
    if !is_one(&created.handle) || !are_same(&mut created.mapping, &mut seen)? {
        return Err(Error::Unsupported {
            what: "it cannot be ensured that no other process can write to the segment: another process \
                   has replaced its name while it was created",
        });
    }
    if sys::becomes_writable(&seen) {
        return Err(NO_SINGLE_WRITER);
    }
    let options = options.without_huge_pages();
    sys::apply_options(&mut created.mapping, options, report);
    report.single_writer = OptionStatus::Granted;
    Ok(created.filled_with(request.content))
}

/// Returns `true` if the descriptor is that of a segment with a single writer.
pub(super) fn is_one(fd: &OwnedFd) -> bool {
    let has_mode = |info: FileInfo| info.mode & 0o777 == 0o400;
    shm_names::READ_ONLY_STAYS && sys::is_read_only(fd) && FileInfo::of(fd).is_ok_and(has_mode)
}

/// Returns `true` if what is written to the first byte of a new segment appears in the other mapping, which
/// is mapped for reading. Leaves the segment as it was.
fn are_same(written: &mut Mapping, seen: &mut Mapping) -> Result<bool> {
    let (written, seen) = (written.access(), seen.access());
    for _ in 0..ROUNDS {
        for byte in sys::nonce()?.to_ne_bytes() {
            let mut found = [0];
            written.write_at(0, &[byte])?;
            fence(SeqCst);
            seen.read_at(0, &mut found)?;
            if found != [byte] {
                return Ok(false);
            }
        }
    }
    written.write_at(0, &[0])?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::MmapShMemProvider;
    use super::are_same;
    use crate::error::Result;
    use crate::memory::mapping::Protection;
    use crate::options::NO_SINGLE_WRITER;
    use crate::sys::map_fd_as;
    use crate::traits::ShMemProvider;

    #[test]
    fn objects_are_told_apart() -> Result<()> {
        let create = || MmapShMemProvider::default().new_shmem(1);
        let (Ok(mut one), Ok(other)) = (create(), create()) else {
            std::eprintln!("skipped: there are no POSIX segments here");
            return Ok(());
        };
        let (Some(its_fd), Some(other_fd)) = (&one.handle, &other.handle) else {
            return Err(NO_SINGLE_WRITER);
        };
        let mut same = map_fd_as(its_fd, 1, Protection::Read)?;
        let mut different = map_fd_as(other_fd, 1, Protection::Read)?;
        assert_eq!(are_same(&mut one.mapping, &mut same), Ok(true));
        assert_eq!(one[..], [0]);
        assert_eq!(are_same(&mut one.mapping, &mut different), Ok(false));
        Ok(())
    }
}
