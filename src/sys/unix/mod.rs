//! What the backends and the service share on all Unix systems: descriptors, users, limits,
//! sockets.
//!
//! Where systems differ, the same functions are in `sys::linux` for Linux and Android, and in
//! `other` or `fallback` for the other systems.

#[cfg(not(any(target_os = "android", target_os = "haiku")))]
#[cfg_attr(
    shmem_android_rules,
    allow(dead_code, reason = "pools on Android have no fork witness")
)]
pub(crate) mod attachments;
pub(in crate::sys) mod clock;
#[cfg(feature = "std")]
pub(crate) mod doorbell;
#[cfg(not(target_os = "haiku"))]
mod errno;
mod failed;
#[cfg(any(
    not(any(target_os = "android", target_os = "linux")),
    shmem_apple_rules
))]
mod fallback;
pub(in crate::sys) mod fd;
#[cfg(not(target_os = "solaris"))]
#[cfg_attr(
    any(not(target_os = "linux"), shmem_apple_rules),
    allow(
        dead_code,
        reason = "without std, only POSIX segments on Linux have locks"
    )
)]
pub(in crate::sys) mod file_lock;
#[cfg(feature = "std")]
pub(crate) mod fork_closed;
#[cfg(any(
    target_os = "dragonfly",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_vendor = "apple"
))]
pub(crate) mod futex;
mod generation;
#[cfg(feature = "std")]
pub(crate) mod inherit;
#[cfg(not(any(target_os = "android", target_os = "linux")))]
mod other;
#[cfg(feature = "std")]
pub(crate) mod path_lock;
#[cfg(feature = "std")]
pub(crate) mod poller;
pub(crate) mod rlimits;
#[cfg(feature = "std")]
mod shared_object;
#[cfg(feature = "std")]
mod sigpipe;
#[cfg(feature = "std")]
pub(crate) mod socket;
#[cfg(feature = "std")]
pub(crate) mod socket_flags;
#[cfg(not(any(target_os = "android", target_os = "haiku")))]
pub(crate) mod sysv;
#[cfg(all(feature = "std", not(target_os = "solaris")))]
pub(crate) mod temporary_files;
#[cfg(feature = "std")]
pub(crate) mod thread;
#[cfg(feature = "std")]
pub(crate) mod trust;
pub(crate) mod user;

pub(crate) use rustix::fd::{BorrowedFd, OwnedFd};

#[cfg(not(target_os = "haiku"))]
pub(crate) use self::errno::last_errno;
pub(crate) use self::failed::{failed, failed_for, for_unprivileged};
#[cfg(any(
    not(any(target_os = "android", target_os = "linux")),
    shmem_apple_rules
))]
pub(crate) use self::fallback::*;
pub(crate) use self::fd::access;
#[cfg(not(target_os = "android"))]
pub(crate) use self::fd::becomes_writable;
pub(crate) use self::fd::{
    FileInfo, HAS_SINGLE_WRITER, SINGLE_WRITER_CANNOT_GROW, above_stdio, above_stdio_quietly,
    duplicate, is_read_only, map_fd, map_fd_as, write_at,
};
#[cfg(feature = "std")]
pub(crate) use self::fd::{duplicate_quietly, received};
pub(crate) use self::generation::generation;
#[cfg(not(any(target_os = "android", target_os = "linux")))]
pub(crate) use self::other::*;
#[cfg(feature = "std")]
pub(crate) use self::shared_object::SharedObject;
#[cfg(feature = "std")]
pub(crate) use self::socket_flags::pipe;
pub(crate) use self::user::check_owner;

/// Returns `true` if a process with this id exists, be it a zombie. Returns `None` if it is not
/// known.
#[cfg(feature = "std")]
pub(crate) fn process_exists(process: u32) -> Option<bool> {
    use rustix::io::Errno;
    use rustix::process::{Pid, test_kill_process};

    let process = i32::try_from(process).ok().and_then(Pid::from_raw)?;
    match test_kill_process(process) {
        Err(Errno::SRCH) => Some(false),
        // EPERM: it exists and belongs to another user.
        Ok(()) | Err(_) => Some(true),
    }
}
