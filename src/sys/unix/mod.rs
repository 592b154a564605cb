//! What the mechanisms of Unix share: descriptors, users, limits, sockets.

#[cfg(not(any(target_os = "android", target_os = "haiku")))]
pub(crate) mod attachments;
mod errno;
mod fd;
#[cfg(feature = "std")]
pub(crate) mod fork_fd;
mod generation;
#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) mod lease;
pub(crate) mod limits;
#[cfg(not(target_os = "android"))]
mod posix_shm;
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
#[path = "dev_shm.rs"]
pub(crate) mod shm_names;
#[cfg(all(
    not(target_os = "android"),
    any(not(target_os = "linux"), shmem_apple_rules)
))]
pub(crate) mod shm_names;
#[cfg(feature = "std")]
pub(crate) mod site;
#[cfg(feature = "std")]
pub(crate) mod socket;
mod sparse;
#[cfg(not(any(target_os = "android", target_os = "haiku")))]
pub(crate) mod system_v;
#[cfg(feature = "std")]
pub(crate) mod thread;
#[cfg(feature = "std")]
pub(crate) mod trust;
mod tune;
pub(crate) mod user;
#[cfg(feature = "std")]
pub(crate) mod watch;

#[cfg(all(
    feature = "std",
    any(
        target_vendor = "apple",
        target_os = "haiku",
        target_os = "illumos",
        target_os = "solaris",
        shmem_apple_rules
    )
))]
#[path = "apple.rs"]
mod calls;
#[cfg(all(
    feature = "std",
    not(any(
        target_vendor = "apple",
        target_os = "haiku",
        target_os = "illumos",
        target_os = "solaris",
        shmem_apple_rules
    ))
))]
#[path = "flags.rs"]
mod calls;

#[cfg(any(target_os = "android", target_os = "linux"))]
mod advice;
#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) mod ashmem;
#[cfg(any(target_os = "android", target_os = "linux"))]
mod capabilities;
#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) mod identity;
#[cfg(target_os = "linux")]
mod orphans;
#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) mod procfs;

use rustix::io::Errno;

#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) use self::advice::advice_is_heeded;
#[cfg(feature = "std")]
pub(crate) use self::calls::pipe;
pub(crate) use self::errno::last_errno;
pub(crate) use self::fd::{
    Facts, above_stdio, above_stdio_quietly, duplicate, map_fd, refuse_huge_pages, write_at,
};
#[cfg(feature = "std")]
pub(crate) use self::fd::{Memory, duplicate_quietly};
#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) use self::fd::{PageSize, map_fd_aligned, map_private, page_size, reset_private};
pub(crate) use self::generation::generation;
#[cfg(not(target_os = "android"))]
pub(crate) use self::posix_shm::{reserve, reserve_existing};
pub(crate) use self::sparse::next_touched;
#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) use self::sparse::punch;
pub(crate) use self::tune::{populate_or_refuse, tune};
pub(crate) use self::user::{check_owner, check_user};
use crate::error::{Error, Result, Subject};

/// The error for a call that the system refused, with the limit behind it.
#[cold]
pub(crate) fn failed(call: &'static str, errno: Errno, subject: Subject) -> Error {
    let limit = limits::behind(call, errno);
    Error::Os {
        call,
        errno: errno.raw_os_error(),
        subject,
        limit,
    }
}

/// A random number, for one name alone.
#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) fn nonce() -> Result<u64> {
    identity::nonce()
}

/// A random number, for one name alone.
#[cfg(not(any(target_os = "android", target_os = "linux")))]
pub(crate) fn nonce() -> Result<u64> {
    let mut nonce = [0; size_of::<u64>()];
    super::random(&mut nonce)?;
    Ok(u64::from_ne_bytes(nonce))
}

/// Returns `true` if the process runs; on Linux a zombie does not. `None` if it is not known.
#[cfg(feature = "std")]
pub(crate) fn process_runs(process: u32) -> Option<bool> {
    use rustix::process::{Pid, test_kill_process};
    let process = i32::try_from(process).ok().and_then(Pid::from_raw)?;
    #[cfg(target_os = "linux")]
    {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        use rustix::process::{PidfdFlags, pidfd_open};
        if let Ok(fd) = pidfd_open(process, PidfdFlags::empty()) {
            // It becomes readable when the process ends.
            let mut ended = [PollFd::new(&fd, PollFlags::IN)];
            return poll(&mut ended, Some(&Timespec::default()))
                .ok()
                .map(|ready| ready == 0);
        }
    }
    match test_kill_process(process) {
        Err(Errno::SRCH) => Some(false),
        // EPERM: it exists and belongs to another user.
        Ok(()) | Err(_) => Some(true),
    }
}
