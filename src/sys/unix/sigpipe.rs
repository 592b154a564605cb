//! Writing to a pipe without `SIGPIPE`. No flag of a call prevents it on all systems, as there is for sockets.
#![allow(unsafe_code)]

use core::mem::MaybeUninit;
use core::ptr;

use rustix::io::{self, Errno};

/// Calls `write` while this thread blocks `SIGPIPE`, which the system sends to the thread that writes, and removes
/// the signal if the pipe has no reader.
///
/// A `SIGPIPE` that was pending before remains pending.
pub(super) fn without_sigpipe<T>(write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let pipe = only_sigpipe();
    let mut before = pipe;
    // SAFETY: both pointers are to sets of signals. The call changes only the mask of this thread, and it is
    // undone below.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const pipe, &raw mut before) };
    let was_pending = contains(&before) && is_pending();
    let result = write();
    if matches!(result, Err(Errno::PIPE)) && !was_pending && is_pending() {
        let mut signal = 0;
        // SAFETY: both pointers are valid. The signal is pending, so that the call does not block.
        unsafe { libc::sigwait(&raw const pipe, &raw mut signal) };
    }
    // SAFETY: the pointer is to the mask that the first call has returned.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut()) };
    result
}

fn only_sigpipe() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the pointer is valid for writes of a set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set has been initialised, and the signal exists.
    unsafe { libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE) };
    // SAFETY: `sigemptyset` has initialised it.
    unsafe { set.assume_init() }
}

fn contains(set: &libc::sigset_t) -> bool {
    // SAFETY: the pointer is to a set.
    unsafe { libc::sigismember(ptr::from_ref(set), libc::SIGPIPE) == 1 }
}

fn is_pending() -> bool {
    let mut set = only_sigpipe();
    // SAFETY: the pointer is valid for writes of a set.
    let known = unsafe { libc::sigpending(&raw mut set) } == 0;
    known && contains(&set)
}
