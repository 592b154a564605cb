//! [`Poller`]: waits until one of many descriptors is readable.

#[cfg(all(
    any(target_os = "android", target_os = "linux"),
    not(shmem_apple_rules)
))]
mod epoll;
#[cfg(not(all(
    any(target_os = "android", target_os = "linux"),
    not(shmem_apple_rules)
)))]
mod poll;

use core::time::Duration;

use rustix::event::Timespec;

#[cfg(all(
    any(target_os = "android", target_os = "linux"),
    not(shmem_apple_rules)
))]
pub(crate) use self::epoll::Poller;
#[cfg(not(all(
    any(target_os = "android", target_os = "linux"),
    not(shmem_apple_rules)
)))]
pub(crate) use self::poll::Poller;

/// Converts a timeout to the system's type. `None` is no timeout, and so is a time that does not
/// fit.
pub(in crate::sys) fn timespec(timeout: Option<Duration>) -> Option<Timespec> {
    timeout.and_then(|timeout| Timespec::try_from(timeout).ok())
}
