//! Synchronisation between processes.
//!
//! The types of this module lie in segments, as fields of structures or alone
//! ([`Shared::view`](crate::Shared::view), [`Typed`](crate::Typed)). Bytes that are zero are their initial state.
//! Nothing has to be cleaned up when a process is killed.
//!
//! | to | use |
//! | --- | --- |
//! | wait until a word changes, or one of several | [`wake`] |
//! | take turns: a request and its answer, a fuzzer and its target | [`Turn`] |
//! | wait until something has happened | [`Event`] |
//! | wait for each other | [`Barrier`] |
//! | change data that belongs together, even if a process is killed meanwhile | `Mutex`, `Condvar` |
//! | know whether another process is alive | `Presence` |
//! | wait in an event loop | `Doorbell` |
//!
//! `channel` has messages and values.
//!
//! There is no lock for many readers: the death of a reader has to be noticed as well, so that each read would
//! write a word of its own, as a `Mutex` does. Use a `Mutex`, or `channel::Latest`.

mod barrier;
#[cfg(feature = "std")]
mod condvar;
mod doorbell;
mod event;
pub(crate) mod event_count;
#[cfg(feature = "std")]
mod mutex;
#[cfg(feature = "std")]
mod presence;
mod turn;
pub mod wake;
pub(crate) mod word;

pub use self::barrier::{Barrier, BarrierOutcome};
#[cfg(feature = "std")]
pub use self::condvar::Condvar;
#[cfg(all(unix, feature = "std"))]
pub use self::doorbell::{Doorbell, Ringer};
pub use self::doorbell::{DoorbellId, DoorbellSlot, ParseDoorbellIdError};
pub use self::event::Event;
#[cfg(feature = "std")]
pub use self::mutex::{LockError, Mutex, MutexGuard};
#[cfg(feature = "std")]
pub use self::presence::{Presence, Slots};
pub use self::turn::Turn;
