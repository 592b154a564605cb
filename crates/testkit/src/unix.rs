//! What differs on Unix: which errors mean that the host lacks something, and what is open.

use std::fs;
use std::path::PathBuf;

use rustix::process::{Resource, getrlimit};
use shmem_providers::Error;

/// Returns a reason if this error, of the first segment that is created, means that the host lacks the
/// mechanism or has no room for the segment.
pub fn lacking(error: &Error) -> Option<String> {
    let missing = match error {
        Error::Unsupported { .. } => true,
        _ => matches!(
            error.raw_os_error(),
            Some(
                libc::ENOSYS
                    | libc::EPERM
                    | libc::EACCES
                    | libc::ENOENT
                    | libc::EROFS
                    | libc::ENOSPC
                    | libc::EMFILE
                    | libc::ENFILE
            )
        ),
    };
    missing.then(|| format!("not available here: {error}"))
}

/// Returns `true` if a peer's error says that no holder of a segment was found.
pub fn says_not_found(text: &str) -> bool {
    [
        "no holder of segment",
        "no process of this user holds segment",
        "knows no holder of segment",
        "no System V segment has the number",
        "no POSIX segment has the name",
        "no file has the id",
    ]
    .iter()
    .any(|part| text.contains(part))
}

/// Returns a reason if this process may not have as many descriptors as a test needs.
pub fn too_few_descriptors(needed: u64) -> Option<String> {
    let limit = getrlimit(Resource::Nofile).current?;
    (limit < needed).then(|| format!("RLIMIT_NOFILE is {limit}, and {needed} are needed"))
}

/// Returns what the descriptors of this process refer to, sorted.
pub fn open_files() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    // The descriptor of this directory shows as `/proc/PID/fd`.
    let mut links: Vec<_> = entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|link| !link.starts_with("/proc"))
        .collect();
    links.sort();
    links
}

/// Returns the size of a page in bytes.
#[allow(unsafe_code)]
pub fn page_size() -> usize {
    // SAFETY: the function has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).expect("pages have a size")
}

/// Returns the lines of the System V segments that these processes have created and that still exist.
pub fn system_v_segments(creators: &[u32]) -> Vec<String> {
    let table = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    let is_theirs = |line: &&str| {
        let creator = line
            .split_whitespace()
            .nth(4)
            .and_then(|pid| pid.parse().ok());
        creator.is_some_and(|creator| creators.contains(&creator))
    };
    table
        .lines()
        .skip(1)
        .filter(is_theirs)
        .map(str::to_owned)
        .collect()
}

/// Returns `true` if this POSIX name exists.
pub fn name_exists(id: &str) -> bool {
    fs::symlink_metadata(format!("/dev/shm{id}")).is_ok()
}

/// Calls `fork()`. SIGALRM ends the child after 40 seconds, so that a test that fails leaves no process.
///
/// # Safety
///
/// As `fork(2)` in a program with threads: the child may not use what another thread may have been changing.
#[allow(unsafe_code)]
pub unsafe fn fork() -> libc::pid_t {
    // SAFETY: the caller upholds the same.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: the call has no preconditions.
        unsafe { libc::alarm(40) };
    }
    child
}

/// Returns the lines of `/proc/self/maps` about shared mappings.
pub fn mappings() -> Vec<String> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let shared = |line: &&str| {
        line.split_whitespace()
            .nth(1)
            .is_some_and(|p| p.ends_with('s'))
    };
    maps.lines().filter(shared).map(str::to_owned).collect()
}

/// Returns `true` if the page at this address becomes writable (`mprotect(2)`), for all its life.
#[allow(unsafe_code)]
pub fn becomes_writable(page: *const u8) -> bool {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the memory stays readable, and nothing relies on a fault when it is written.
    unsafe { libc::mprotect(page.cast_mut().cast(), 1, protection) == 0 }
}
