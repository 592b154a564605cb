//! Which processes have a System V segment attached, and which had it: `shmctl(2)`, `IPC_STAT`.
//!
//! The kernel reports the number of attachments (`shm_nattch`) and the process that attached or
//! detached last (`shm_lpid`). The number alone does not reveal a process that attached, wrote and
//! detached between two checks. The process id does, if it is this process at the first check and
//! another one at the second. What other threads of this process do in between is counted here. The
//! timestamps that the kernel also keeps are in seconds, which is too coarse.
//!
//! Before Linux 4.17, `shm_lpid` is the id of the process in its own pid namespace. There, a
//! process of another pid namespace that has the same id is not noticed.
#![allow(unsafe_code)]

use core::ffi::c_int;
use core::ptr;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::SeqCst;

use crate::sys::sysv::{IPC_STAT, ask};

/// The number of times this process has detached a segment.
static DETACHED: AtomicU32 = AtomicU32::new(0);

/// Counts a detachment. Must be called before a segment is detached: a thread that sees one
/// attachment less must also see it counted.
pub(crate) fn will_detach() {
    DETACHED.fetch_add(1, SeqCst);
}

/// Returns `Some` if the segment is attached once, by this process. [`were_exclusive_since`] takes
/// the value.
pub(crate) fn exclusive(shmid: c_int) -> Option<u32> {
    // Read first: a thread that is counted already but has not detached yet is seen by `look`.
    let detached = DETACHED.load(SeqCst);
    if !look(shmid)?.is_ours {
        // Another process attached or detached last, and could do so again unnoticed. After this,
        // this process is the last one.
        touch(shmid);
        if !look(shmid)?.is_ours {
            return None;
        }
    }
    Some(detached)
}

/// Returns `true` if no process has attached or detached the segment since [`exclusive`] returned
/// `detached`.
pub(crate) fn were_exclusive_since(shmid: c_int, detached: u32) -> bool {
    look(shmid).is_some_and(|look| look.is_ours) && DETACHED.load(SeqCst) == detached
}

/// A segment that is attached once.
struct Once {
    /// This process was the last one to attach or detach it.
    is_ours: bool,
}

/// Returns `None` if the segment is attached more than once, or cannot be examined.
fn look(shmid: c_int) -> Option<Once> {
    let (_, stat) = ask(shmid, IPC_STAT).ok()?;
    // SAFETY: the function has no preconditions.
    let me = unsafe { libc::getpid() };
    (stat.shm_nattch == 1).then_some(Once {
        is_ours: stat.shm_lpid == me,
    })
}

/// Attaches the segment again and detaches it.
fn touch(shmid: c_int) {
    // SAFETY: the kernel chooses the address, so no existing mapping is affected.
    let base = unsafe { libc::shmat(shmid, ptr::null(), 0) };
    if base.addr() != usize::MAX {
        // SAFETY: the segment was attached above, and nothing refers to that attachment.
        let _ = unsafe { libc::shmdt(base) };
    }
}

/// Tells a segment from another one that has the same id later, or in another IPC namespace that
/// the process has moved to.
#[cfg(feature = "std")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    size: u64,
    creator: libc::pid_t,
    created: i64,
}

/// Returns the identity of the segment, and how often it is attached.
#[cfg(feature = "std")]
pub(crate) fn identify(shmid: c_int) -> Option<(Identity, u64)> {
    let (_, stat) = ask(shmid, IPC_STAT).ok()?;
    #[allow(
        clippy::cast_lossless,
        clippy::cast_sign_loss,
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
