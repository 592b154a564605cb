//! Which processes have a System V segment attached, and which had: `shmctl(2)`, `IPC_STAT`.
//!
//! The kernel tells how many attachments there are (`shm_nattch`), and which process attached or
//! detached last (`shm_lpid`). The number alone does not show a process that has attached, written
//! and detached between two looks. The other one does, if it was this process at the first look and
//! is not at the second; and what another thread of this process does meanwhile is counted here.
//! The times that the kernel keeps as well are in seconds, which is too coarse.
//!
//! Before Linux 4.17, `shm_lpid` is a number as the process itself sees it: there a process of
//! another pid namespace that has the same number is not noticed.
#![allow(unsafe_code)]

use core::ffi::c_int;
use core::ptr;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::SeqCst;

use crate::sys::sysv::{IPC_STAT, ask};

/// How often this process has detached a segment.
static DETACHED: AtomicU32 = AtomicU32::new(0);

/// To be called before a segment is detached, so that a thread that waits for the kernel to count
/// one attachment less finds this one counted.
pub(crate) fn will_detach() {
    DETACHED.fetch_add(1, SeqCst);
}

/// If this process has the segment attached once, and nobody else has: what
/// [`were_exclusive_since`] compares with.
pub(crate) fn exclusive(shmid: c_int) -> Option<u32> {
    // Before the first look: a thread that is counted already, but not detached yet, is seen by it.
    let detached = DETACHED.load(SeqCst);
    if !look(shmid)?.is_ours {
        // Somebody else was the last one, and might be once more.
        touch(shmid);
        if !look(shmid)?.is_ours {
            return None;
        }
    }
    Some(detached)
}

/// Whether nobody has attached or detached the segment since [`exclusive`] said so.
pub(crate) fn were_exclusive_since(shmid: c_int, detached: u32) -> bool {
    look(shmid).is_some_and(|look| look.is_ours) && DETACHED.load(SeqCst) == detached
}

/// A segment that is attached once.
struct Once {
    /// Whether this process was the last one to attach or detach it.
    is_ours: bool,
}

/// `None` if it is attached more often, or cannot be asked.
fn look(shmid: c_int) -> Option<Once> {
    let (_, stat) = ask(shmid, IPC_STAT).ok()?;
    // SAFETY: the function has no preconditions.
    let me = unsafe { libc::getpid() };
    (stat.shm_nattch == 1).then_some(Once {
        is_ours: stat.shm_lpid == me,
    })
}

/// Attaches the segment once more, and detaches it.
fn touch(shmid: c_int) {
    // SAFETY: the kernel chooses the address, so no other memory of this process is touched.
    let base = unsafe { libc::shmat(shmid, ptr::null(), 0) };
    if base.addr() != usize::MAX {
        // SAFETY: attached above, and nothing refers to it.
        let _ = unsafe { libc::shmdt(base) };
    }
}

/// What tells a segment from another one that got its number, in this namespace or in one that the
/// process has moved to.
#[cfg(feature = "std")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    size: u64,
    creator: libc::pid_t,
    created: i64,
}

/// Which segment it is, and how often it is attached.
#[cfg(feature = "std")]
pub(crate) fn identify(shmid: c_int) -> Option<(Identity, u64)> {
    let (_, stat) = ask(shmid, IPC_STAT).ok()?;
    #[allow(
        clippy::cast_lossless,
        clippy::unnecessary_cast,
        clippy::useless_conversion,
        trivial_numeric_casts,
        reason = "the types differ from system to system"
    )]
    Some((
        Identity {
            size: stat.shm_segsz as u64,
            creator: stat.shm_cpid,
            created: stat.shm_ctime as i64,
        },
        stat.shm_nattch as u64,
    ))
}

#[cfg(all(test, feature = "std", target_os = "linux"))]
pub(crate) mod tests;
