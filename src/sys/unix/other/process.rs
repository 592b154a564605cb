//! Processes, their privileges, and the names of threads.
#![allow(unsafe_code)]

use core::ffi::CStr;

pub(crate) use crate::sys::process_exists as process_runs;

/// Returns `true` if this program has more privileges than the user who started it and set its
/// environment (`issetugid(2)`).
#[cfg(any(
    target_vendor = "apple",
    target_os = "dragonfly",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd"
))]
pub(crate) fn has_more_rights() -> bool {
    // SAFETY: the function has no preconditions.
    unsafe { libc::issetugid() != 0 }
}

/// Returns `true` if this program has more privileges than the user who started it and set its
/// environment.
#[cfg(not(any(
    target_vendor = "apple",
    target_os = "dragonfly",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd"
)))]
pub(crate) fn has_more_rights() -> bool {
    use rustix::process::{getegid, geteuid, getgid, getuid};
    geteuid() != getuid() || getegid() != getgid()
}

/// Names the calling thread, for debuggers and process lists.
#[cfg(target_vendor = "apple")]
pub(in crate::sys) fn set_thread_name(name: &CStr) {
    // SAFETY: a `CStr` ends with a zero.
    unsafe { libc::pthread_setname_np(name.as_ptr()) };
}

/// Names the calling thread, for debuggers and process lists.
#[cfg(any(target_os = "dragonfly", target_os = "freebsd", target_os = "openbsd"))]
pub(in crate::sys) fn set_thread_name(name: &CStr) {
    // SAFETY: the function has no preconditions.
    let this = unsafe { libc::pthread_self() };
    // SAFETY: `this` is the calling thread, and a `CStr` ends with a zero.
    unsafe { libc::pthread_set_name_np(this, name.as_ptr()) };
}

/// Does nothing: the system has no such call, or one with other parameters.
#[cfg(not(any(
    target_vendor = "apple",
    target_os = "dragonfly",
    target_os = "freebsd",
    target_os = "openbsd"
)))]
pub(in crate::sys) fn set_thread_name(_name: &CStr) {}
