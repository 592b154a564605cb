//! `shmctl`, and what differs between systems about System V segments.
#![allow(unsafe_code)]

use core::ffi::c_int;
use core::mem::MaybeUninit;
use core::ptr;

use rustix::io::Errno;

use super::last_errno;
use crate::error::{Error, Result};
use crate::options::HugePages;

/// Whether a segment whose removal was asked for can still be attached to while somebody has it
/// attached: documented for Linux in `shmctl(2)`, undefined or switchable elsewhere.
pub(crate) const REMOVED_BUT_OPEN: bool = cfg!(target_os = "linux");

/// The command of `shmctl` that asks for facts. The crate libc has none for illumos and Solaris,
/// where it is 12 (`sys/ipc.h`).
#[cfg(any(target_os = "illumos", target_os = "solaris"))]
pub(crate) const IPC_STAT: c_int = 12;
#[cfg(not(any(target_os = "illumos", target_os = "solaris")))]
pub(crate) use libc::IPC_STAT;

#[cfg(target_os = "linux")]
pub(crate) use crate::sys::sysv_orphans::{MODE, remove_orphans};

/// The permissions of our segments.
#[cfg(not(target_os = "linux"))]
pub(crate) const MODE: c_int = 0o600;

/// Elsewhere the kernel's table cannot be read this way.
#[cfg(not(target_os = "linux"))]
pub(crate) fn remove_orphans() -> usize {
    0
}

/// The flags that ask `shmget` for huge pages.
#[cfg(target_os = "linux")]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere there are none")]
pub(crate) fn huge(pages: HugePages) -> Result<c_int> {
    /// Where the binary logarithm of the size stands (`shmget(2)`, `SHM_HUGE_SHIFT`).
    const SHIFT: u32 = 26;
    let size: c_int = match pages {
        HugePages::TwoMiB => 21,
        HugePages::OneGiB => 30,
    };
    Ok(libc::SHM_HUGETLB | size << SHIFT)
}

/// The flags that ask `shmget` for huge pages: elsewhere there are none.
#[cfg(not(target_os = "linux"))]
pub(crate) fn huge(_pages: HugePages) -> Result<c_int> {
    Err(crate::options::UNSUPPORTED)
}

/// What `shmctl` returns for a command that asks, and what it fills in.
pub(crate) fn ask(which: c_int, command: c_int) -> Result<(c_int, libc::shmid_ds), Errno> {
    let mut facts = MaybeUninit::<libc::shmid_ds>::zeroed();
    // SAFETY: the pointer is valid for writes of what the commands write: this, or less.
    match unsafe { libc::shmctl(which, command, facts.as_mut_ptr()) } {
        -1 => Err(last_errno()),
        // SAFETY: whatever was filled in, the rest are zeros, and any bytes are a value of it.
        returned => Ok((returned, unsafe { facts.assume_init() })),
    }
}

/// The facts of a segment that this process may not read, if the system tells them to everybody.
#[cfg(target_os = "linux")]
pub(crate) fn ask_without_permission(shmid: c_int) -> Option<libc::shmid_ds> {
    /// Since Linux 4.17. It takes a place in the kernel's table, which is the lower part of the
    /// number, and returns the whole number.
    const SHM_STAT_ANY: c_int = 15;
    match ask(shmid, SHM_STAT_ANY) {
        Ok((found, stat)) if found == shmid => Some(stat),
        _ => None,
    }
}

/// Elsewhere the system does not tell.
#[cfg(not(target_os = "linux"))]
pub(crate) fn ask_without_permission(_shmid: c_int) -> Option<libc::shmid_ds> {
    None
}

/// The key of a segment. The crate libc has the field under several names.
#[cfg(target_os = "linux")]
pub(crate) fn key(stat: &libc::shmid_ds) -> libc::key_t {
    let first = ptr::from_ref(&stat.shm_perm).cast::<libc::key_t>();
    // SAFETY: the pointer is to a borrowed structure, whose first field this is on every machine
    // (`struct ipc64_perm` of the kernel), so it is aligned and initialised.
    unsafe { first.read() }
}

/// The permissions of a segment, and the kernel's own bits beside them.
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

/// Returns an error for a segment of another user.
///
/// Its creator can set the owner to any user, and goes on to have access; nobody can set the creator.
/// So both have to be this user.
pub(crate) fn check_owner(stat: &libc::shmid_ds) -> Result<()> {
    let user = super::check_user()?;
    user.check(stat.shm_perm.cuid)?;
    user.check(stat.shm_perm.uid)
}

/// Returns an error for a segment of another user, or one that other users may write to.
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
    // SAFETY: this command reads nothing from the pointer.
    match unsafe { libc::shmctl(shmid, libc::IPC_RMID, ptr::null_mut()) } {
        -1 => Err(last_errno()),
        _ => Ok(()),
    }
}
