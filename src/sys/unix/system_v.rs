//! `shmctl`, and what differs between systems about System V segments.
#![allow(unsafe_code)]

use core::ffi::c_int;
use core::mem::MaybeUninit;
use core::ptr;

use rustix::io::Errno;

use super::last_errno;
use crate::error::Result;
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
pub(crate) use super::orphans::{MODE, remove_orphans};

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
    Err(crate::options::CANNOT)
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

/// Marks a segment for removal.
pub(crate) fn remove(shmid: c_int) -> Result<(), Errno> {
    // SAFETY: this command reads nothing from the pointer.
    match unsafe { libc::shmctl(shmid, libc::IPC_RMID, ptr::null_mut()) } {
        -1 => Err(last_errno()),
        _ => Ok(()),
    }
}
