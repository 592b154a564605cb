//! [`Ringer`]: the end by which others ring.

use core::sync::atomic::AtomicU32;
use std::os::fd::OwnedFd;

use super::id::DoorbellId;
use super::slot::{Address, DoorbellSlot};
use crate::error::{Error, Result};
use crate::sys;

const NO_ID: Error = Error::Unsupported {
    what: "the slot is armed, but names no doorbell that can be opened by its id: pass the descriptor \
           `Doorbell::ringer_fd` to this process, and call `Ringer::from_fd`",
};

/// Rings the doorbell of another process.
///
/// # Examples
///
/// ```
/// use shmem_providers::sync::{Doorbell, Ringer};
///
/// let doorbell = Doorbell::new()?;
/// let fd = doorbell.ringer_fd().try_clone_to_owned()?; // passed to another process
/// let ringer = Ringer::from_fd(fd)?;
/// assert!(ringer.ring()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Ringer {
    fd: OwnedFd,
    /// `None` for a descriptor that was passed.
    id: Option<DoorbellId>,
}

impl Ringer {
    /// Opens the doorbell of another process of this user, or of this one.
    ///
    /// Nothing is opened that is not a doorbell of this user with this id, and nothing blocks.
    ///
    /// # Errors
    ///
    /// * [`Error::NoDoorbell`] if the process has ended, has dropped the doorbell, or does not let this process look.
    /// * [`Error::OtherUser`] if the process belongs to another user.
    /// * [`Error::Unsupported`] on systems without `/proc`.
    /// * [`Error::Os`] if no descriptor is left.
    pub fn open(id: DoorbellId) -> Result<Self> {
        let fd = sys::doorbell::open(id.process, id.number, id.inode)?;
        Ok(Self { fd, id: Some(id) })
    }

    /// Takes over a descriptor that another process has passed: its [`Doorbell::ringer_fd`](super::Doorbell::ringer_fd).
    ///
    /// [`DoorbellSlot::ring`] uses it for any slot, whatever the id there is.
    ///
    /// # Errors
    ///
    /// [`Error::Foreign`] if it is not a pipe that is open for writing, [`Error::Os`] if the system refuses.
    ///
    /// # Platform notes
    ///
    /// Where `/proc` is not mounted, the descriptor shares its flags with the one of the process that passed it,
    /// which can make it block again.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        let fd = sys::doorbell::adopt(fd)?;
        Ok(Self { fd, id: None })
    }

    /// Rings. Returns `false` if no process waits at the other end any more: the owner has ended or dropped the
    /// doorbell.
    ///
    /// Never blocks, and never raises `SIGPIPE`. A doorbell that has been rung and not cleared stays rung.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if the system refuses.
    pub fn ring(&self) -> Result<bool> {
        sys::doorbell::ring(&self.fd)
    }
}

impl DoorbellSlot {
    /// Rings the doorbell that is armed here, if there is one. Change the words first whose changes the other
    /// process waits for.
    ///
    /// Returns `true` if it was rung, and `false` if nobody waits or the process that waited has ended. It makes no
    /// system call unless the doorbell is armed. `ringer` is a cache: start with `None`, or with a
    /// [`Ringer::from_fd`], and keep it for the next call. The doorbell is opened once, and closed if its owner has
    /// ended or another doorbell has been armed.
    ///
    /// # Errors
    ///
    /// Those of [`Ringer::open`], except that a doorbell that is gone is no error, and of [`Ringer::ring`]. The
    /// doorbell then remains armed. [`Error::Unsupported`] if the slot contains no valid id.
    pub fn ring(&self, ringer: &mut Option<Ringer>) -> Result<bool> {
        self.ring_by(|address| address.ring(ringer))
    }
}

impl Address<AtomicU32> {
    /// Rings this doorbell, for callers that have found it armed.
    pub(crate) fn ring(&self, ringer: &mut Option<Ringer>) -> Result<bool> {
        let id = self.read();
        let opened = match ringer.take() {
            Some(opened) if opened.id.is_none() || opened.id == id => opened,
            _ => match Ringer::open(id.ok_or(NO_ID)?) {
                Ok(opened) => opened,
                Err(error) if error.is_not_found() => return Ok(false),
                Err(error) => return Err(error),
            },
        };
        let rung = opened.ring()?;
        if rung {
            *ringer = Some(opened);
        }
        Ok(rung)
    }
}
