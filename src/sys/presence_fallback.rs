//! Presence on systems without locks of open file descriptions.

use crate::error::{Error, Result};
use crate::id::ShMemId;
use crate::sys::BorrowedFd;

/// There is none.
#[derive(Debug)]
pub(crate) enum Token {}

impl Token {
    /// Always returns [`Error::Unsupported`].
    pub(crate) fn open(
        _descriptor: Option<BorrowedFd<'_>>,
        _id: &ShMemId,
        _table: *const u8,
    ) -> Result<Self> {
        Err(Error::Unsupported {
            what: "this system has no locks that belong to an open file: a process that dies while it holds a \
                   mutex cannot be noticed; use `sync::wake` with a timeout",
        })
    }

    pub(crate) fn is_of_this_process(&self) -> bool {
        match *self {}
    }

    pub(crate) fn try_lock(&mut self, _byte: usize) -> Result<bool> {
        match *self {}
    }

    pub(crate) fn is_locked(&self, _byte: usize) -> Result<bool> {
        match *self {}
    }
}
