//! How close-on-exec and the like are asked for: with the call that makes the descriptor, or after it.

#[cfg(not(any(
    target_vendor = "apple",
    target_os = "haiku",
    target_os = "illumos",
    target_os = "solaris",
    shmem_apple_rules
)))]
mod atomic;
#[cfg(any(
    target_vendor = "apple",
    target_os = "haiku",
    target_os = "illumos",
    target_os = "solaris",
    shmem_apple_rules
))]
mod fallback;

#[cfg(not(any(
    target_vendor = "apple",
    target_os = "haiku",
    target_os = "illumos",
    target_os = "solaris",
    shmem_apple_rules
)))]
pub(crate) use self::atomic::*;
#[cfg(any(
    target_vendor = "apple",
    target_os = "haiku",
    target_os = "illumos",
    target_os = "solaris",
    shmem_apple_rules
))]
pub(crate) use self::fallback::*;
