//! System V shared memory without the extensions of Linux.

use core::ffi::c_int;

use crate::error::Result;
use crate::options::{HugePages, UNSUPPORTED};

/// Whether a segment that is marked for removal can still be attached is undefined, or
/// configurable.
pub(crate) const REMOVED_BUT_OPEN: bool = false;

/// The permissions of segments of this crate.
pub(crate) const MODE: c_int = 0o600;

/// Removes nothing: segments of killed creators cannot be found.
pub(crate) fn remove_orphans() -> usize {
    0
}

/// Returns an error: there are no huge pages.
pub(crate) fn huge(_pages: HugePages) -> Result<c_int> {
    Err(UNSUPPORTED)
}

/// Returns `None`: the system gives information only to those who may read the segment.
pub(crate) fn ask_without_permission(_shmid: c_int) -> Option<libc::shmid_ds> {
    None
}
