//! Processes, their privileges, and the names of threads.
#![allow(unsafe_code)]

use core::ffi::CStr;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::sys::process_exists;

/// Returns `true` if the process runs. A zombie does not, except on Android and before Linux 5.3.
/// Returns `None` if it is not known.
pub(crate) fn process_runs(process: u32) -> Option<bool> {
    // The system call filter of older Android versions kills a program that makes this call.
    if cfg!(target_os = "linux") {
        let pid = i32::try_from(process).ok().and_then(Pid::from_raw)?;
        if let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) {
            // It becomes readable when the process ends.
            let mut ended = [PollFd::new(&fd, PollFlags::IN)];
            return poll(&mut ended, Some(&Timespec::default()))
                .ok()
                .map(|ready| ready == 0);
        }
    }
    process_exists(process)
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
