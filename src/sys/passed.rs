//! [`Passed`]: a descriptor that a started program is to inherit, as its environment describes it.

use crate::error::Error;

/// The number of an inherited descriptor, and the object that it refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passed {
    pub(crate) number: i32,
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// Why an inherited descriptor was not taken over. Its number was left alone.
#[derive(Debug)]
#[cfg_attr(windows, allow(dead_code, reason = "handles are not passed on there"))]
pub(crate) enum Unclaimed {
    /// The number is not that of the segment.
    Other(&'static str),
    /// It is that of the segment, which cannot be used.
    Refused(Error),
}
