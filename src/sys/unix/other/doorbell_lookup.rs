//! Doorbells on systems where no process can open the pipe of another one.
#![cfg_attr(target_vendor = "apple", allow(unsafe_code))]

use rustix::fd::OwnedFd;

use crate::error::{Error, Result};

const NO_IDS: Error = Error::Unsupported {
    what: "on this system a doorbell cannot be opened by its id: pass the descriptor `Doorbell::ringer_fd` to \
           `Ringer::from_fd`",
};

/// Always returns [`Error::Unsupported`].
pub(crate) fn locate(_fd: &OwnedFd) -> Result<(u32, u32, u64)> {
    Err(NO_IDS)
}

/// Always returns [`Error::Unsupported`].
pub(crate) fn open(_process: u32, _number: u32, _inode: u64) -> Result<OwnedFd> {
    Err(NO_IDS)
}

/// Leaves the pipe as it is: its size is fixed.
pub(in crate::sys) fn shrink(_pipe: &OwnedFd) {}

/// Returns the descriptor itself. On Apple's systems, writing to it raises no `SIGPIPE` from now on: the signal
/// could be sent to another thread than the one that writes.
pub(in crate::sys) fn own_description(pipe: OwnedFd) -> OwnedFd {
    #[cfg(target_vendor = "apple")]
    {
        use rustix::fd::AsRawFd;

        // SAFETY: the call takes only integers, and changes a flag of this descriptor.
        unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETNOSIGPIPE, 1) };
    }
    pipe
}
