//! What the test programs share: skipping with a reason, and counting what is open.

use std::fs;
use std::path::PathBuf;

use rustix::process::{Resource, getrlimit};
use shmem_providers::Error;

/// Why this error, of the first segment that is made, means that the host lacks the mechanism or has
/// no room for it, if it does.
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

/// Whether a peer's error says that no holder of a segment was found, known or not.
pub fn says_not_found(text: &str) -> bool {
    [
        "no holder of segment",
        "no process of this user holds segment",
        "knows no holder of segment",
        "no System V segment has the number",
        "no POSIX segment has the name",
    ]
    .iter()
    .any(|start| text.contains(start))
}

/// Why a test that needs so many descriptors cannot run, if it cannot.
pub fn too_few_descriptors(needed: u64) -> Option<String> {
    let limit = getrlimit(Resource::Nofile).current?;
    (limit < needed).then(|| format!("RLIMIT_NOFILE is {limit}, and {needed} are needed"))
}

/// What the descriptors of this process lead to, sorted.
pub fn open_files() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    // The directory's own descriptor leads to `/proc/PID/fd`, and is closed before the second link
    // is read.
    let mut links: Vec<_> = entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|link| !link.starts_with("/proc"))
        .collect();
    links.sort();
    links
}

/// How many bytes a page of this machine has.
#[allow(unsafe_code)]
pub fn page_size() -> usize {
    // SAFETY: the function has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).expect("pages have a size")
}

/// The System V segments that one of these processes has made and that still exist.
pub fn system_v_segments(makers: &[u32]) -> Vec<String> {
    let table = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    let made_by_them = |line: &&str| {
        let maker = line
            .split_whitespace()
            .nth(4)
            .and_then(|pid| pid.parse().ok());
        maker.is_some_and(|maker| makers.contains(&maker))
    };
    table
        .lines()
        .skip(1)
        .filter(made_by_them)
        .map(str::to_owned)
        .collect()
}

/// Whether this POSIX name exists.
pub fn name_exists(id: &str) -> bool {
    fs::symlink_metadata(format!("/dev/shm{id}")).is_ok()
}

/// `fork()`, of a child that ends by SIGALRM after 40 seconds if nobody ends it before, so that a test that
/// fails leaves no process.
///
/// # Safety
///
/// That of `fork(2)` in a program with threads: the child may not rely on what another one of them was
/// changing.
#[allow(unsafe_code)]
pub unsafe fn fork() -> libc::pid_t {
    // SAFETY: as of this function.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: no preconditions.
        unsafe { libc::alarm(40) };
    }
    child
}

/// The shared mappings of this process.
pub fn mappings() -> Vec<String> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let shared = |line: &&str| {
        line.split_whitespace()
            .nth(1)
            .is_some_and(|p| p.ends_with('s'))
    };
    maps.lines().filter(shared).map(str::to_owned).collect()
}
