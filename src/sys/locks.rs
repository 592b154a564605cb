//! Locks of the bytes of a segment that something else than the kernel keeps: a service.

use alloc::boxed::Box;
use core::fmt::Debug;

use crate::error::Result;

/// A segment whose bytes can be locked.
#[allow(
    dead_code,
    reason = "systems with locks of open files do not ask the service"
)]
pub trait Locks: Debug + Send + Sync {
    /// Creates a participant, which has no lock yet.
    ///
    /// # Errors
    ///
    /// If the service cannot be reached, or does not know all locks in the segment.
    fn participant(&self) -> Result<Box<dyn Participant>>;
}

/// Has one lock at most, which ends when it is dropped, or when its process ends or executes another program.
#[allow(
    dead_code,
    reason = "systems with locks of open files do not ask the service"
)]
pub trait Participant: Debug + Send + Sync {
    /// Returns `false` in a forked child.
    fn is_of_this_process(&self) -> bool;

    /// Locks a byte. Returns `false` if any participant has locked it.
    ///
    /// # Errors
    ///
    /// As [`is_locked`](Self::is_locked).
    fn try_lock(&mut self, byte: usize) -> Result<bool>;

    /// Returns `true` if any participant has locked the byte.
    ///
    /// # Errors
    ///
    /// If that is not known.
    fn is_locked(&self, byte: usize) -> Result<bool>;
}
