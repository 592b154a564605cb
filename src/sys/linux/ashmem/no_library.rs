//! Linux without Android's library: only the device exists, if its kernel module is loaded.

use rustix::fd::OwnedFd;

use crate::error::Result;

/// Returns `None`: the system does not have the function.
pub(super) fn create(_size: usize) -> Option<Result<OwnedFd>> {
    None
}
