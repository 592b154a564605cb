//! What belongs to one process, and not to the children that it forks.

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

    /// Forks, and returns whether all is right in the child.
    pub(crate) fn in_child(check: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child does nothing that another thread could have a lock for.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: no preconditions. So a child that hangs does not do so for ever.
            unsafe { libc::alarm(40) };
            let code = i32::from(!check());
            // SAFETY: no preconditions.
            unsafe { libc::_exit(code) };
        }
        let mut status = 0;
        // SAFETY: the pointer is valid for the write of a status.
        unsafe { libc::waitpid(child, &raw mut status, 0) == child && status == 0 }
    }
}
