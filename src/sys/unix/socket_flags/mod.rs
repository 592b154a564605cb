//! How a new descriptor becomes close-on-exec and non-blocking: by flags of the call that creates
//! it, or by later calls.

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
