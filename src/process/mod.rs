//! Values that belong to one process and not to the children that it forks.

#[cfg(all(unix, feature = "std"))]
pub(crate) mod fork_fd;
#[cfg(feature = "std")]
pub(crate) mod fork_lock;
mod owner;
#[cfg(all(unix, feature = "std"))]
mod published;
#[cfg(feature = "std")]
mod thread;

pub(crate) use self::owner::Owner;
#[cfg(all(unix, feature = "std"))]
pub(crate) use self::published::Published;
#[cfg(feature = "std")]
pub(crate) use self::thread::ThreadNumber;

#[cfg(all(test, unix))]
pub(crate) mod tests {
    #![allow(unsafe_code)]

    /// Forks, and returns the result of `check` in the child.
    pub(crate) fn in_child(check: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child uses nothing that another thread could have locked.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: `alarm` has no preconditions. It ends a child that hangs.
            unsafe { libc::alarm(40) };
            let code = i32::from(!check());
            // SAFETY: `_exit` has no preconditions.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: `status` is valid for writing.
        unsafe { libc::waitpid(child, &raw mut status, 0) == child && status == 0 }
    }
}
