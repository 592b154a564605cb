//! [`SharedObject`]: which object in memory a received descriptor refers to.

use rustix::fd::AsFd;

/// Identifies an object in memory, and tells its size. `sys::linux` and the portable fallback each
/// implement `behind` and `may_have`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SharedObject {
    /// In bytes.
    pub(in crate::sys) size: u64,
    pub(in crate::sys) device: u64,
    pub(in crate::sys) inode: u64,
}

impl SharedObject {
    /// Returns what `fstat` reports about the object.
    pub(in crate::sys) fn from_stat(fd: impl AsFd) -> Option<Self> {
        let stat = rustix::fs::fstat(fd).ok()?;
        #[allow(
            clippy::useless_conversion,
            reason = "the types differ between systems"
        )]
        Some(Self {
            size: stat.st_size.try_into().ok()?,
            #[allow(
                clippy::cast_lossless,
                clippy::cast_sign_loss,
                reason = "an identifier, not a number, and of different types"
            )]
            device: stat.st_dev as u64,
            #[allow(
                clippy::cast_sign_loss,
                clippy::unnecessary_cast,
                reason = "an identifier, not a number, and of different types"
            )]
            inode: stat.st_ino as u64,
        })
    }
}
