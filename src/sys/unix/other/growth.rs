//! Objects that can grow: there are none.

use rustix::fd::OwnedFd;

use crate::error::Result;
use crate::memory::mapping::{Mapping, Protection};
use crate::options::NO_GROWTH;
use crate::sys::FileInfo;

/// What happens when a process accesses a page without memory.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Memory {
    Limited,
}

/// Returns `false`.
pub(crate) fn is_growable(_info: &FileInfo) -> bool {
    false
}

/// Returns an error: not every system can allocate the memory of a part of an object.
pub(crate) fn create(_fd: &OwnedFd, _size: usize, _max: usize, _memory: Memory) -> Result<Mapping> {
    Err(NO_GROWTH)
}

/// Returns an error.
pub(crate) fn attach(
    _fd: &OwnedFd,
    _info: &FileInfo,
    _asked: Option<usize>,
    _protection: Protection,
    _memory: Memory,
) -> Result<Mapping> {
    Err(NO_GROWTH)
}

/// Returns an error.
pub(crate) fn grow(
    _fd: &OwnedFd,
    _mapping: &mut Mapping,
    _len: usize,
    _memory: Memory,
) -> Result<()> {
    Err(NO_GROWTH)
}
