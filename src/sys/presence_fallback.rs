//! Presence on systems without locks of open file descriptions: the service of a segment keeps the locks.

use alloc::boxed::Box;

use crate::error::{Error, Result};
use crate::sys::Descriptor;
use crate::sys::locks::Participant;

/// A participant in a served segment.
#[derive(Debug)]
pub(crate) struct Token(Box<dyn Participant>);

impl Token {
    /// Connects to the service of the segment. Returns [`Error::Unsupported`] if it has none.
    pub(crate) fn open(segment: Option<&Descriptor<'_>>) -> Result<Self> {
        let locks = segment.and_then(|segment| segment.1);
        let locks = locks.ok_or(Error::Unsupported {
            what: "this system has no locks that belong to an open file, so only the service of a segment can \
                   notice that a process has died: create the segment with `StdServedShMemProvider`, or use \
                   `sync::wake` with a timeout",
        })?;
        Ok(Self(locks.participant()?))
    }

    pub(crate) fn is_of_this_process(&self) -> bool {
        self.0.is_of_this_process()
    }

    pub(crate) fn try_lock(&mut self, byte: usize) -> Result<bool> {
        self.0.try_lock(byte)
    }

    pub(crate) fn is_locked(&self, byte: usize) -> Result<bool> {
        self.0.is_locked(byte)
    }
}
