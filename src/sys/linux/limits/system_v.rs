//! The limits on System V segments.

use rustix::io::Errno;

use super::{lines, overcommit, ram_and_swap};
use crate::error::limit::Limit;
use crate::sys::procfs::number;

/// The limits on new System V segments (`shmget`).
pub(crate) fn for_system_v(errno: Errno) -> Option<Limit> {
    match errno {
        Errno::NOSPC => segments_or_pages(),
        Errno::INVAL => number("/proc/sys/kernel/shmmax").map(|limit| Limit::SystemVSize { limit }),
        Errno::NOMEM => overcommit().or_else(|| {
            Some(Limit::Memory {
                total: ram_and_swap(),
            })
        }),
        _ => None,
    }
}

/// `shmget` returns ENOSPC for too many segments and for too many pages.
fn segments_or_pages() -> Option<Limit> {
    let limit = number("/proc/sys/kernel/shmmni")?;
    // The first line is a heading.
    let used = lines("/proc/sysvipc/shm")?.saturating_sub(1);
    if used >= limit {
        return Some(Limit::SystemVSegments { limit, used });
    }
    number("/proc/sys/kernel/shmall").map(|limit| Limit::SystemVPages { limit })
}
