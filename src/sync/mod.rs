//! Synchronisation between processes.
//!
//! The types of this module lie in segments, as fields of structures or alone
//! ([`Shared::view`](crate::Shared::view), [`Typed`](crate::Typed)). Bytes that are zero are their initial state.
//! Nothing has to be cleaned up when a process is killed.

pub(crate) mod barrier;
pub(crate) mod event;
pub(crate) mod event_count;
pub(crate) mod turn;
pub(crate) mod waiters;
pub mod wake;
pub(crate) mod word;

pub use self::barrier::{Barrier, BarrierOutcome};
pub use self::event::Event;
pub use self::turn::Turn;
