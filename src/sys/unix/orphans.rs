//! System V segments whose creator was killed while it made them.
//!
//! Between `shmget` and the mark for removal lie two system calls, and nothing helps against SIGKILL in
//! between: the segment stays, attached by nobody, its id known to nobody. So whoever makes segments
//! looks for those first, and removes them. Ours are known by their permissions.

use core::ffi::c_int;

use rustix::io::Errno;
use rustix::process::{Pid, geteuid, test_kill_process};

use super::system_v::{ask, remove};

/// The permissions of our segments: to read and to write for the user, and a bit that permits nothing,
/// because for the group to execute it would have to read as well (`shmat(2)`).
pub(crate) const MODE: c_int = 0o610;

/// The permissions, and the kernel's own bit for what is marked for removal (`SHM_DEST`).
const MODE_BITS: u32 = 0o1777;

/// Facts of the segment at a place in the kernel's table (`shmctl(2)`; the crate libc lacks them).
const SHM_STAT: c_int = 13;
/// The last place in use.
const SHM_INFO: c_int = 14;

/// Removes what this user's processes have left that were killed while they made it. Says how many.
pub(crate) fn remove_orphans() -> usize {
    let Ok((last, _)) = ask(0, SHM_INFO) else {
        return 0;
    };
    let orphans = (0..=last).filter_map(|place| match ask(place, SHM_STAT) {
        Ok((shmid, stat)) if is_orphan(&stat) => Some(shmid),
        _ => None,
    });
    orphans.filter(|&shmid| remove(shmid).is_ok()).count()
}

/// Whether it was made by us, is neither attached nor marked, and its creator is gone.
fn is_orphan(stat: &libc::shmid_ds) -> bool {
    #[allow(
        clippy::useless_conversion,
        reason = "the type differs from machine to machine"
    )]
    let mode = u32::from(stat.shm_perm.mode) & MODE_BITS;
    // One of another pid namespace has no number here: whether it runs cannot be told.
    let Some(creator) = Pid::from_raw(stat.shm_cpid) else {
        return false;
    };
    mode == MODE.unsigned_abs()
        && stat.shm_nattch == 0
        && stat.shm_perm.uid == geteuid().as_raw()
        && test_kill_process(creator) == Err(Errno::SRCH)
}
