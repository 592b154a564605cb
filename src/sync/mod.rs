//! Synchronisation between processes.
//!
//! The types of this module lie in segments, as fields of structures or alone
//! ([`Shared::view`](crate::Shared::view), [`Typed`](crate::Typed)). Bytes that are zero are their initial state.
//! Nothing has to be cleaned up when a process is killed.

pub(crate) mod barrier;
pub(crate) mod event;
pub(crate) mod event_count;
pub(crate) mod turn;
pub(crate) mod doorbell;
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

pub use self::barrier::{Barrier, BarrierOutcome};
pub use self::event::Event;
pub use self::turn::Turn;
#[cfg(all(unix, feature = "std"))]
pub use self::doorbell::{Doorbell, Ringer};
pub use self::doorbell::{DoorbellId, DoorbellSlot, ParseDoorbellIdError};
#[cfg(feature = "std")]
pub use self::condvar::Condvar;
#[cfg(feature = "std")]
pub use self::mutex::{LockError, Mutex, MutexGuard};
#[cfg(feature = "std")]
pub use self::presence::{Presence, Slots};
