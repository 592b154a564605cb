//! Memfds that only their creator can write to: `F_SEAL_FUTURE_WRITE`, since Linux 5.1; and that nobody can
//! write to any more: `F_SEAL_WRITE`.
//!
//! The creator maps the file, and then seals it against every later mapping for writing, every write, and
//! every hole. A hostile process of the same user could open and map the file between its creation and
//! that seal. So the creator asks for a lease afterwards, which the kernel grants only if nothing else has
//! the file open, and a mapping counts as open. From the seal on, it does not matter who opens the file.
//!
//! The seals are not sealed themselves (`F_SEAL_SEAL`), so that `F_SEAL_WRITE` can be added, which the
//! kernel refuses as long as any process has the file mapped for writing.

use rustix::fd::OwnedFd;
use rustix::fs::{self, MemfdFlags, OFlags, SealFlags};
use rustix::io::Errno;

use super::{created, map, sealed};
use crate::backend::{Created, NOT_FREEZABLE, Request, STILL_WRITABLE};
use crate::error::{Error, Result, Subject};
use crate::options::{OptionReport, OptionStatus, Priority};
use crate::sys::{self, PageSize, failed, lease, limits};

/// How many files are created, in case other processes open them before they are sealed.
const TRIES: usize = 8;

/// Creates a segment that this process alone can write to.
pub(super) fn create(request: Request<'_>, report: &mut OptionReport) -> Result<Created<OwnedFd>> {
    match request.options.huge_pages {
        Some((_, Priority::Required)) => return Err(NO_HUGE_PAGES),
        Some((_, Priority::BestEffort)) => {
            report.huge_pages = OptionStatus::Refused(NO_HUGE_PAGES);
        }
        None => {}
    }
    if request.options.reserve.is_some() {
        return Err(sys::SINGLE_WRITER_CANNOT_GROW);
    }
    for _ in 0..TRIES {
        if let Some(mut created) = try_create(request)? {
            sys::apply_options(&mut created.mapping, request.options, report);
            report.single_writer = OptionStatus::Granted;
            return Ok(created);
        }
    }
    Err(Error::Unsupported {
        what: "it cannot be ensured that no other process can write to the segment: another process \
               opens every new file in memory, or this system has no file leases (`fcntl(2)`)",
    })
}

/// Returns `None` if another process may have mapped the file for writing.
fn try_create(request: Request<'_>) -> Result<Option<Created<OwnedFd>>> {
    let (mut fd, id) = sealed::create_unsealed(request.size, MemfdFlags::empty())?;
    lease::make_countable(&mut fd)?;
    if let Some(content) = request.content {
        sys::write_at(&fd, 0, content, limits::for_descriptor)?;
    }
    let mapping = map(&fd, request.size, PageSize::Ordinary, request.options)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE;
    fs::fcntl_add_seals(&fd, seals).map_err(|errno| match errno {
        Errno::INVAL => Error::Unsupported {
            what: "segments with a single writer need Linux 5.1 or later (`F_SEAL_FUTURE_WRITE`)",
        },
        _ => failed("fcntl(F_ADD_SEALS)", errno, Subject::Nothing),
    })?;
    let is_alone = lease::take(&fd);
    lease::give_back(&fd);
    Ok(is_alone.then(|| created(fd, id, mapping)))
}

/// Why a segment with a single writer has ordinary pages.
const NO_HUGE_PAGES: Error = Error::Unsupported {
    what: "a segment with a single writer cannot have reserved huge pages: before Linux 5.13 the kernel \
           does not keep other processes from mapping them",
};

/// Returns `Ok` if the segment was created here, and its seals can be changed.
pub(super) fn check_freezable(fd: &OwnedFd) -> Result<()> {
    match sealed::check(fd)? {
        (_, seals) if seals.contains(SealFlags::WRITE) => Ok(()),
        (_, seals) if !seals.contains(SealFlags::FUTURE_WRITE) => Err(NOT_FREEZABLE),
        (_, seals) if seals.contains(SealFlags::SEAL) => Err(Error::Unsupported {
            what: "another process has sealed the seals of the segment, so it cannot be frozen; only \
                   its single writer can write to it, as before",
        }),
        _ => Ok(()),
    }
}

/// Adds the seal that makes the file immutable, and the seal of the seals.
pub(super) fn freeze(fd: &OwnedFd) -> Result<()> {
    let refused = |call, errno| failed(call, errno, Subject::Nothing);
    // Adding seals needs the permission to write.
    let reopened = if sys::is_read_only(fd) {
        Some(sys::reopen(fd, OFlags::RDWR).map_err(|errno| refused("open", errno))?)
    } else {
        None
    };
    match fs::fcntl_add_seals(
        reopened.as_ref().unwrap_or(fd),
        SealFlags::WRITE | SealFlags::SEAL,
    ) {
        Ok(()) => Ok(()),
        // Somebody else has frozen it.
        Err(Errno::PERM) if sealed::check(fd)?.1.contains(SealFlags::WRITE) => Ok(()),
        Err(Errno::BUSY) => Err(STILL_WRITABLE),
        Err(errno) => Err(refused("fcntl(F_ADD_SEALS)", errno)),
    }
}
