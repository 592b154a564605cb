//! Processes, their privileges, and the names of threads.
#![allow(unsafe_code)]

use core::ffi::CStr;

/// The system call filter of older Android versions kills a program that calls `pidfd_open`.
#[cfg(target_os = "android")]
pub(crate) use crate::sys::process_exists as process_runs;

/// Returns `true` if the process runs. A zombie does not, except before Linux 5.3. Returns `None` if
/// it is not known.
#[cfg(target_os = "linux")]
pub(crate) fn process_runs(process: u32) -> Option<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    let pid = i32::try_from(process).ok().and_then(Pid::from_raw)?;
    let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) else {
        return crate::sys::process_exists(process);
    };
    // It becomes readable when the process ends.
    let mut ended = [PollFd::new(&fd, PollFlags::IN)];
    let ready = poll(&mut ended, Some(&Timespec::default())).ok()?;
    Some(ready == 0)
}

/// Returns `true` if this program has more privileges than the user who started it and set its
/// environment (`getauxval(3)`, `AT_SECURE`).
pub(crate) fn has_more_rights() -> bool {
    // SAFETY: the function has no preconditions; it reads memory that never changes.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Names the calling thread, for debuggers and process lists.
pub(in crate::sys) fn set_thread_name(name: &CStr) {
    // If it fails, the thread keeps the name of the program.
    let _ = rustix::thread::set_name(name);
}
