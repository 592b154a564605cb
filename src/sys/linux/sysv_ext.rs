//! What Linux adds to System V shared memory.

use core::ffi::c_int;

use crate::error::Result;
use crate::options::HugePages;
use crate::sys::sysv::ask;

pub(crate) use super::sysv_orphans::{MODE, remove_orphans};

/// A segment that is marked for removal can still be attached while a process has it attached
/// (`shmctl(2)`).
pub(crate) const REMOVED_BUT_OPEN: bool = true;

/// Returns the flags that make `shmget` use huge pages.
#[expect(clippy::unnecessary_wraps, reason = "other systems have no such pages")]
pub(crate) fn huge(pages: HugePages) -> Result<c_int> {
    /// The position of the binary logarithm of the page size (`shmget(2)`, `SHM_HUGE_SHIFT`).
    const SHIFT: u32 = 26;
    let size: c_int = match pages {
        HugePages::TwoMiB => 21,
        HugePages::OneGiB => 30,
    };
    Ok(libc::SHM_HUGETLB | size << SHIFT)
}

/// Returns information about a segment that this process may not read, if the kernel gives it to
/// everybody.
pub(crate) fn ask_without_permission(shmid: c_int) -> Option<libc::shmid_ds> {
    /// Since Linux 4.17. It takes an index of the kernel's table, which is the lower part of an id,
    /// and returns the whole id.
    const SHM_STAT_ANY: c_int = 15;
    match ask(shmid, SHM_STAT_ANY) {
        Ok((found, stat)) if found == shmid => Some(stat),
        _ => None,
    }
}
