//! A number that changes with every fork.
//!
//! On Linux it is stored in memory that the kernel zeroes in every child, whichever call created it
//! (`sys::linux::fork_page`).
//!
//! Elsewhere a handler of `pthread_atfork` counts the forks. It runs for `fork` only, so the
//! process id is part of the number: a child of `_Fork` or of a bare system call has another one,
//! unless it is in a new pid namespace. Systems that cannot wipe memory on fork have no such
//! namespaces, except for Linux before 4.14 and emulators: there, such a child has to be created by
//! `fork`.
#![allow(unsafe_code)]

use core::ffi::c_int;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicUsize};

use rustix::process::getpid;

use crate::sys::generation_in_page;

/// How many bits of the counted number hold the process id: all that it can have, or on 32-bit
/// machines all that Linux, the BSDs, macOS and Solaris use.
const PID_BITS: u32 = if usize::BITS >= 64 { 32 } else { 22 };

/// The latest generation of this process or, before it was forked, of its parent. It only increases
/// along a line of descent.
static LAST: AtomicUsize = AtomicUsize::new(1);

/// Returns the generation of this process. It differs from the generations of all its ancestors.
#[inline]
pub(crate) fn generation() -> usize {
    generation_in_page(|| LAST.fetch_add(1, Relaxed) + 1).unwrap_or_else(counted)
}

/// Returns the generation as the number of forks combined with the process id.
fn counted() -> usize {
    static IS_REGISTERED: AtomicBool = AtomicBool::new(false);

    unsafe extern "C" {
        fn pthread_atfork(
            prepare: Option<extern "C" fn()>,
            parent: Option<extern "C" fn()>,
            child: Option<extern "C" fn()>,
        ) -> c_int;
    }
    extern "C" fn in_child() {
        LAST.fetch_add(1, Relaxed);
    }

    // Two threads may both register the handler. Each fork counts twice then, which works as well.
    if !IS_REGISTERED.load(Acquire) {
        // SAFETY: the handler only changes an atomic variable, so it may run in any child. On
        // ENOMEM it is not registered, and until the next attempt only the process id tells
        // processes apart.
        let registered = unsafe { pthread_atfork(None, None, Some(in_child)) } == 0;
        IS_REGISTERED.store(registered, Release);
    }
    let pid = getpid().as_raw_nonzero().get().unsigned_abs() as usize;
    LAST.load(Relaxed).wrapping_shl(PID_BITS) ^ pid
}

#[cfg(all(test, feature = "std", target_os = "linux", not(target_arch = "s390x")))]
mod tests {
    use core::ptr;

    use super::generation;

    #[test]
    fn a_bare_system_call_changes_the_generation() {
        let parent = generation();
        let null = ptr::null_mut::<u8>();
        // SAFETY: without a stack and flags this call forks, and the child only compares and exits.
        let child =
            unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, null, null, null, null) };
        if child == 0 {
            let is_same = generation() == parent;
            // SAFETY: the function has no preconditions.
            unsafe { libc::_exit(i32::from(is_same)) };
        }
        let mut status = 0;
        let child = libc::pid_t::try_from(child).unwrap_or(-1);
        // SAFETY: the pointer is to a local variable of the type that the call writes.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!((waited, status), (child, 0));
        assert_eq!(generation(), parent);
    }
}
