//! Unix systems other than Linux and Android: what they do where `sys::linux` has calls of its own.
//! Most of it reports that the system cannot do something.

#[cfg(feature = "std")]
pub(in crate::sys) mod doorbell_lookup;
#[cfg(all(feature = "std", not(target_os = "solaris")))]
pub(in crate::sys) mod found_file;
pub(crate) mod growth;
pub(crate) mod limits;
#[cfg(feature = "std")]
pub(crate) mod peer;
#[cfg(feature = "std")]
mod process;
#[cfg(not(target_os = "haiku"))]
pub(crate) mod sysv_ext;

use core::ops::Range;

use rustix::fd::{AsFd, OwnedFd};
#[cfg(feature = "std")]
use rustix::fs::OFlags;

#[cfg(feature = "std")]
pub(in crate::sys) use self::process::set_thread_name;
#[cfg(feature = "std")]
pub(crate) use self::process::{has_more_rights, process_runs};
use crate::error::Result;
use crate::memory::mapping::{Mapping, Protection};
use crate::options::{OptionReport, ShMemOptions};
use crate::sys::{FileInfo, map_fd_as};

/// How to open a directory to look up names in it.
#[cfg(feature = "std")]
pub(in crate::sys) const SEARCH: OFlags = OFlags::RDONLY;

/// Leaves the report as it is: every option is refused in it already.
pub(crate) fn apply_options(
    _mapping: &mut Mapping,
    _options: ShMemOptions,
    _report: &mut OptionReport,
) {
}

/// Returns `Ok`: no page of a segment can be missing.
#[cfg(not(target_os = "haiku"))]
#[expect(clippy::unnecessary_wraps, reason = "the Linux version can fail")]
pub(crate) fn populate_or_refuse(_mapping: &Mapping) -> Result<()> {
    Ok(())
}

/// Returns `Ok`: no object consists of huge pages.
#[expect(clippy::unnecessary_wraps, reason = "the Linux version can fail")]
pub(crate) fn refuse_huge_pages(_fd: impl AsFd, _info: &FileInfo) -> Result<()> {
    Ok(())
}

/// Maps the first `len` bytes for reading. If the descriptor permits writing, only the pages are
/// protected.
pub(crate) fn map_for_reading(fd: &OwnedFd, len: usize) -> Result<Mapping> {
    map_fd_as(fd, len, Protection::Read)
}

/// Returns an error: the system does not report which parts of an object have memory.
pub(crate) fn next_data(_fd: &OwnedFd, _from: usize, _len: usize) -> Result<Option<Range<usize>>> {
    Err(crate::options::UNSUPPORTED)
}

/// Returns `true`: without user namespaces, every user id belongs to one user.
pub(in crate::sys) fn is_distinct(_uid: u32) -> bool {
    true
}
