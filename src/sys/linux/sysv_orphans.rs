//! System V segments whose creator was killed while it made them.
//!
//! Between `shmget` and the mark for removal lie two system calls, and nothing helps against SIGKILL in
//! between: the segment stays, attached by nobody, its id known to nobody. So whoever makes segments
//! looks for those first, and removes them. Ours are known by their permissions.

use core::ffi::c_int;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::sys::sysv::{self, IPC_STAT, ask, remove};

/// The permissions of our segments: to read and to write for the user, and a bit that permits nothing,
/// because for the group to execute it would have to read as well (`shmat(2)`).
pub(crate) const MODE: c_int = 0o610;

/// The permissions, and the kernel's own bit for what is marked for removal (`SHM_DEST`).
const MODE_BITS: u32 = 0o1777;

/// Information about the segment at a place in the kernel's table (`shmctl(2)`; the crate libc lacks them).
const SHM_STAT: c_int = 13;
/// The last place in use.
const SHM_INFO: c_int = 14;

/// Removes what this user's processes have left that were killed while they made it. Returns how many
/// segments that were.
pub(crate) fn remove_orphans() -> usize {
    let Ok((last, _)) = ask(0, SHM_INFO) else {
        return 0;
    };
    let orphans = (0..=last).filter_map(|place| match ask(place, SHM_STAT) {
        Ok((shmid, stat)) if is_orphan(&stat) => Some(shmid),
        _ => None,
    });
    // The place may have been given to another segment while the process was looked for. From here on
    // a number can be given away only by one who removes an orphan of ours as well, and comes round
    // again after tens of thousands of other segments.
    orphans
        .filter(|&shmid| ask(shmid, IPC_STAT).is_ok_and(|(_, stat)| is_orphan(&stat)))
        .filter(|&shmid| remove(shmid).is_ok())
        .count()
}

/// Returns `true` if this user has made the segment and has not given it away, it has no key by which
/// others could find it, it is neither attached nor marked, and its creator is gone.
///
/// The kernel translates the creator's number into this process's pid namespace, and tells 0 for one
/// of another namespace: whether that runs cannot be known. Before Linux 4.17 it tells the number in
/// the creator's own namespace; there a process in another pid namespace, but in the same IPC
/// namespace, can lose a segment between the two calls that make it, and gets an error.
fn is_orphan(stat: &libc::shmid_ds) -> bool {
    let Some(creator) = Pid::from_raw(stat.shm_cpid) else {
        return false;
    };
    sysv::mode(stat) & MODE_BITS == MODE.unsigned_abs()
        && sysv::key(stat) == libc::IPC_PRIVATE
        && stat.shm_nattch == 0
        && sysv::check_owner(stat).is_ok()
        && test_kill_process(creator) == Err(Errno::SRCH)
}
