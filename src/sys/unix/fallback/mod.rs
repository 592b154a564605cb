//! Portable versions of what `sys::linux` does with calls that only Linux has.
//!
//! The switch `shmem_apple_rules` selects them on Linux, too, where tests can run them.

#[cfg(feature = "std")]
pub(crate) mod passed_fds;
mod posix_shm;
#[cfg(feature = "std")]
mod shared_object;
pub(crate) mod shm_names;

#[cfg(feature = "std")]
use rustix::fd::{BorrowedFd, OwnedFd};

#[cfg(all(feature = "std", not(target_os = "solaris")))]
pub(crate) use self::posix_shm::reserve_file;
pub(crate) use self::posix_shm::{reserve, reserve_existing};

/// Returns `None`: no memory is wiped on fork.
pub(in crate::sys) fn generation_in_page(_next: fn() -> usize) -> Option<usize> {
    None
}

/// Returns `None`: the threads of a process share their descriptors.
#[cfg(feature = "std")]
pub(crate) fn own_descriptors(_kept: BorrowedFd<'_>) -> Option<OwnedFd> {
    None
}
