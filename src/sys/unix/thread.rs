//! Threads of ours in other people's processes: they take no signals, and need not share the
//! descriptors.
#![allow(unsafe_code)]

use core::mem::MaybeUninit;
use core::ptr;
use std::io;
use std::thread::{Builder, JoinHandle};

use rustix::fd::OwnedFd;

/// Starts a thread that no signal is delivered to: the program's handlers belong to its own
/// threads.
pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    const STACK: usize = 256 << 10;
    Builder::new()
        .name(name.into())
        .stack_size(STACK)
        .spawn(|| {
            block_signals();
            work()
        })
}

fn block_signals() {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is valid for the write of a set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the set is initialised, and the old one may be null.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), ptr::null_mut()) };
}

/// Gives the calling thread a table of descriptors of its own, in which nothing is open but `kept`
/// and, at 0 to 2, `/dev/null`. Returns its own `kept`, under the same number.
///
/// So a child that the program forks inherits nothing of what this thread opens from now on, and
/// this thread keeps nothing open that the program closes. What it must not do any more is to use
/// a descriptor of the program by its number.
///
/// `None` where the system cannot do that.
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
pub(crate) fn own_descriptors(kept: rustix::fd::BorrowedFd<'_>) -> Option<OwnedFd> {
    use rustix::fd::{AsRawFd, FromRawFd};
    use rustix::fs::{CWD, Mode, OFlags, openat};

    let number = kept.as_raw_fd();
    let first = u32::try_from(number).ok()?;
    if first < 3 {
        return None;
    }
    if !close_range(first + 1, u32::MAX, true) {
        return None;
    }
    if first > 3 && !close_range(3, first - 1, false) {
        // The same call has worked a moment ago.
        return None;
    }
    // SAFETY: the table of this thread is a copy by now, and its `kept` has no owner yet.
    let kept = unsafe { OwnedFd::from_raw_fd(number) };
    if let Ok(null) = openat(
        CWD,
        "/dev/null",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        for standard in 0..3 {
            // SAFETY: no memory is involved; in the table of this thread nobody uses them.
            unsafe { libc::dup2(null.as_raw_fd(), standard) };
        }
    }
    Some(kept)
}

/// `close_range(2)`, since Linux 5.9; the kernel may unshare the table first. Whether it worked.
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
fn close_range(first: u32, last: u32, unshare: bool) -> bool {
    const CLOSE_RANGE_UNSHARE: u32 = 2;
    let flags = if unshare { CLOSE_RANGE_UNSHARE } else { 0 };
    // SAFETY: either the table is a copy for this thread alone, or it is made one by the call. No
    // code of this thread owns a descriptor in it, but the one that is spared.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) == 0 }
}

/// Elsewhere threads share their descriptors.
#[cfg(any(not(target_os = "linux"), shmem_apple_rules))]
pub(crate) fn own_descriptors(_kept: rustix::fd::BorrowedFd<'_>) -> Option<OwnedFd> {
    None
}
