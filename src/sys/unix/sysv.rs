//! System V shared memory: `shmctl(2)`, and the checks of owners and permissions.
#![allow(unsafe_code)]

use core::ffi::c_int;
use core::mem::MaybeUninit;
use core::ptr;

use rustix::io::Errno;

use super::last_errno;
use crate::error::{Error, Result};

pub(crate) use crate::sys::sysv_ext::{
    MODE, REMOVED_BUT_OPEN, ask_without_permission, huge, remove_orphans,
};

/// The command of `shmctl` that returns information about a segment. The crate libc does not define
/// it for illumos and Solaris, where it is 12 (`sys/ipc.h`).
#[cfg(any(target_os = "illumos", target_os = "solaris"))]
pub(crate) const IPC_STAT: c_int = 12;
#[cfg(not(any(target_os = "illumos", target_os = "solaris")))]
pub(crate) use libc::IPC_STAT;

/// Attaches for reading only. The crate libc does not define it for NetBSD and OpenBSD; it is the same on all
/// systems.
pub(crate) const SHM_RDONLY: c_int = 0o10000;

/// Calls `shmctl` with a command that returns information. Returns its result, and what it stored.
pub(crate) fn ask(which: c_int, command: c_int) -> Result<(c_int, libc::shmid_ds), Errno> {
    let mut stat = MaybeUninit::<libc::shmid_ds>::zeroed();
    // SAFETY: the pointer is to a local variable. The commands of the callers store this structure
    // or a smaller one.
    match unsafe { libc::shmctl(which, command, stat.as_mut_ptr()) } {
        -1 => Err(last_errno()),
        // SAFETY: the structure was zeroed, and consists of integers and pointers, for which any
        // bytes are valid.
        returned => Ok((returned, unsafe { stat.assume_init() })),
    }
}

/// Returns the permissions of a segment, and the kernel's own bits next to them.
pub(crate) fn mode(stat: &libc::shmid_ds) -> u32 {
    /// The kernel sets no higher bits. Emulators of machines with the other byte order do.
    const LARGEST: u32 = 0o7777;
    #[allow(
        clippy::useless_conversion,
        reason = "the type differs from machine to machine"
    )]
    let mode = u32::from(stat.shm_perm.mode);
    if cfg!(all(target_os = "linux", target_endian = "big")) && mode > LARGEST {
        return (mode & 0xffff).swap_bytes() >> 16;
    }
    mode
}

/// Returns an error unless the segment belongs to this user.
///
/// Its creator can change the owner to any user, and keeps access; nobody can change the creator.
/// So both have to be this user.
pub(crate) fn check_owner(stat: &libc::shmid_ds) -> Result<()> {
    let user = super::user::check_user()?;
    user.check(stat.shm_perm.cuid)?;
    user.check(stat.shm_perm.uid)
}

/// Returns an error for a segment that belongs to another user or that other users may write to.
pub(crate) fn check_access(stat: &libc::shmid_ds) -> Result<()> {
    check_owner(stat)?;
    if mode(stat) & 0o022 != 0 {
        return Err(Error::Foreign {
            found: "its permissions let other users write to it",
        });
    }
    Ok(())
}

/// Marks a segment for removal.
pub(crate) fn remove(shmid: c_int) -> Result<(), Errno> {
    // SAFETY: this command does not use the pointer.
    match unsafe { libc::shmctl(shmid, libc::IPC_RMID, ptr::null_mut()) } {
        -1 => Err(last_errno()),
        _ => Ok(()),
    }
}
