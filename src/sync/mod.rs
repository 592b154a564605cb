//! Synchronisation between processes.
//!
//! There is no lock for many readers: the death of a reader has to be noticed as well, so that each read
//! would write a word of its own, as a [`Mutex`] does. Use a [`Mutex`].

#[cfg(feature = "std")]
mod condvar;
#[cfg(feature = "std")]
mod mutex;
#[cfg(feature = "std")]
mod presence;
pub(crate) mod waiters;
pub mod wake;
pub(crate) mod word;

#[cfg(feature = "std")]
pub use self::condvar::Condvar;
#[cfg(feature = "std")]
pub use self::mutex::{LockError, Mutex, MutexGuard};
#[cfg(feature = "std")]
pub use self::presence::{Presence, Slots};
