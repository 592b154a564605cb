//! Creates POSIX segments under random and chosen names.

use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fd::OwnedFd;
use rustix::io::{self, Errno};

use crate::backend::{Cleanup, Created};
use crate::error::{Error, Result, Subject};
use crate::id::ShMemId;
use crate::id::kind::IdKind;
use crate::memory::mapping::Mapping;
use crate::sys::{self, failed, failed_for, limits, shm_names};
use crate::util::base64;

/// How many random names are tried. Random names of 64 bits do not collide, but a process that
/// removes unused segments can remove each of them before the file is locked. That happens only if
/// both processes run at the same moment.
const MAX_ATTEMPTS: usize = 1000;

/// The start of random names.
const PREFIX: &str = "/shmem-";

/// How many names of this form are checked before the first segment of a process is created.
const MAX_CHECKED: usize = 1000;

/// Creates a segment under a random name. `fill` gives the file its size and its memory, and maps it.
///
/// Once per process, and whenever there is no space left, unused segments are removed first.
pub(super) fn create_unique(
    size: usize,
    fill: impl Fn(&OwnedFd) -> Result<Mapping>,
) -> Result<Created<OwnedFd>> {
    static CLEANED: AtomicBool = AtomicBool::new(false);

    if !CLEANED.swap(true, Relaxed) {
        // If this fails for a reason that matters, creating the segment fails too.
        let _ = shm_names::remove_unused(is_random_name, MAX_CHECKED);
    }
    let mut last_error = failed("shm_open", Errno::EXIST, Subject::Bytes(size));
    for _ in 0..MAX_ATTEMPTS {
        match create(random_name()?, &fill) {
            Err(error) if is(&error, Errno::EXIST) => last_error = error,
            Err(error) if made_room(&error) => last_error = error,
            result => return result,
        }
    }
    Err(last_error)
}

/// Creates a segment under a chosen name. Replaces a segment of this name that a killed process left
/// behind.
#[cfg(feature = "std")]
pub(super) fn create_named(
    id: ShMemId,
    fill: impl Fn(&OwnedFd) -> Result<Mapping>,
) -> Result<Created<OwnedFd>> {
    match create(id, &fill) {
        Err(error) if is(&error, Errno::EXIST) && shm_names::remove_if_unused(name(&id)?) => {
            create(id, fill)
        }
        result => result,
    }
}

/// Creates a segment under a random name by which others can open it for reading only.
pub(super) fn create_for_readers(
    fill: impl Fn(&OwnedFd) -> Result<Mapping>,
) -> Result<Created<OwnedFd>> {
    create_by(shm_names::create_for_readers, random_name()?, fill)
}

/// Creates a segment with this id. After an error the name does not exist, unless it did before.
fn create(id: ShMemId, fill: impl Fn(&OwnedFd) -> Result<Mapping>) -> Result<Created<OwnedFd>> {
    create_by(shm_names::create, id, fill)
}

fn create_by(
    create: fn(&CStr) -> io::Result<OwnedFd>,
    id: ShMemId,
    fill: impl Fn(&OwnedFd) -> Result<Mapping>,
) -> Result<Created<OwnedFd>> {
    let name = name(&id)?;
    let fd = create(name)
        .map_err(|errno| failed_for("shm_open", errno, Subject::Id(id), limits::for_dev_shm))?;
    match fill(&fd) {
        Ok(mapping) => Ok(Created {
            handle: fd,
            id,
            mapping,
            cleanup: Cleanup::Unlink,
        }),
        Err(error) => {
            // The first error is the one to report.
            let _ = shm_names::unlink_own(&fd, name, &id);
            Err(error)
        }
    }
}

fn is(error: &Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// Removes unused segments if the error is that there is no space left. Returns `true` if there were any.
pub(super) fn made_room(error: &Error) -> bool {
    is(error, Errno::NOSPC) && remove_orphans().is_ok_and(|removed| removed > 0)
}

/// Removes all segments with random names that no process holds, and returns their number.
pub(super) fn remove_orphans() -> Result<usize> {
    shm_names::remove_unused(is_random_name, usize::MAX)
}

/// Removes a random name: always, or only if no process is known to hold its segment. A failure cannot be
/// reported to the callers, which drop a segment.
pub(super) fn forget(id: &ShMemId, if_unused: bool) {
    match name(id) {
        Ok(name) if is_random_name(id.as_str()) && if_unused => {
            let _ = shm_names::remove_if_unused(name);
        }
        Ok(name) if is_random_name(id.as_str()) => {
            let _ = shm_names::unlink_any(name, id);
        }
        _ => {}
    }
}

/// Returns the name that the id consists of.
pub(super) fn name(id: &ShMemId) -> Result<&CStr> {
    if id.kind() != IdKind::Posix {
        return Err(id.invalid("a POSIX name starts with a slash"));
    }
    CStr::from_bytes_until_nul(id.as_array())
        .map_err(|_| id.invalid("a name ends with a zero byte"))
}

fn random_name() -> Result<ShMemId> {
    let random = base64::digits::<11>(sys::nonce()?);
    Ok(ShMemId::joined(&[PREFIX.as_bytes(), &random]))
}

/// Returns `true` if [`random_name`] could have created this name, which includes the slash.
fn is_random_name(text: &str) -> bool {
    text.strip_prefix(PREFIX)
        .is_some_and(base64::is_digits::<11>)
}
