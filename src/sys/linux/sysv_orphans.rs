//! System V segments whose creator was killed while creating them.
//!
//! Two system calls lie between `shmget` and the mark for removal. A process killed by SIGKILL
//! between them leaves a segment that no process has attached and whose id no process knows. So creators
//! look for such orphans first and remove them. Segments of this crate are recognised by their
//! permissions.
#![allow(unsafe_code)]

use core::ffi::c_int;
use core::ptr;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::sys::sysv::{self, IPC_STAT, ask, remove};

/// The permissions of segments of this crate: the user may read and write. The execute bit of the
/// group permits nothing, because executing requires read permission as well (`shmat(2)`).
pub(crate) const MODE: c_int = 0o610;

/// The permission bits, and the kernel's own bit for a segment that is marked for removal
/// (`SHM_DEST`).
const MODE_BITS: u32 = 0o1777;

/// Returns information about the segment at an index of the kernel's table (`shmctl(2)`; the crate
/// libc lacks this and the next command).
const SHM_STAT: c_int = 13;
/// Returns the highest index in use.
const SHM_INFO: c_int = 14;

/// Removes the segments of this user that processes left behind when they were killed while
/// creating them. Returns how many were removed.
pub(crate) fn remove_orphans() -> usize {
    let Ok((last, _)) = ask(0, SHM_INFO) else {
        return 0;
    };
    let orphans = (0..=last).filter_map(|index| match ask(index, SHM_STAT) {
        Ok((shmid, stat)) if is_orphan(&stat) => Some(shmid),
        _ => None,
    });
    // The table entry may have been given to another segment while the creator was looked up, so
    // the segment is checked again by its id. After that, an id can only be reassigned if another
    // process removes the same orphan, and the kernel reuses an id only after tens of thousands of
    // segments.
    orphans
        .filter(|&shmid| ask(shmid, IPC_STAT).is_ok_and(|(_, stat)| is_orphan(&stat)))
        .filter(|&shmid| remove(shmid).is_ok())
        .count()
}

/// Returns `true` if this user created the segment and has not given it away, it has no key by
/// which others could find it, it is neither attached nor marked for removal, and its creator has
/// ended.
///
/// The kernel translates the creator's process id into the pid namespace of this process, and
/// reports 0 for a process of another namespace, of which it is not known whether it runs. Before
/// Linux 4.17 it reports the process id in the creator's own namespace: there, a process in another
/// pid namespace, but in the same IPC namespace, can lose a segment between the two calls that
/// create it, and gets an error.
fn is_orphan(stat: &libc::shmid_ds) -> bool {
    let Some(creator) = Pid::from_raw(stat.shm_cpid) else {
        return false;
    };
    sysv::mode(stat) & MODE_BITS == MODE.unsigned_abs()
        && key(stat) == libc::IPC_PRIVATE
        && stat.shm_nattch == 0
        && sysv::check_owner(stat).is_ok()
        && test_kill_process(creator) == Err(Errno::SRCH)
}

/// Returns the key of a segment. The crate libc has several names for the field.
fn key(stat: &libc::shmid_ds) -> libc::key_t {
    let first = ptr::from_ref(&stat.shm_perm).cast::<libc::key_t>();
    // SAFETY: the pointer is derived from a reference to an initialised structure, whose first
    // field is the key on every machine (`struct ipc64_perm` of the kernel).
    unsafe { first.read() }
}
