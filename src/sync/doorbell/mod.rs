//! Doorbells: waiting for other processes in an event loop.
//!
//! A [`Doorbell`] is a pipe. Its read end belongs to the process that waits, for `poll`, `epoll`, `mio` or `tokio`.
//! Other processes of the user open the write end by a [`DoorbellId`], or get it as a descriptor, and ring by one
//! byte. A [`DoorbellSlot`] next to the shared words tells whether anybody waits at all.

mod id;
#[cfg(all(unix, feature = "std"))]
mod owner;
#[cfg(all(unix, feature = "std"))]
mod ringer;
#[cfg_attr(
    not(all(unix, feature = "std")),
    allow(dead_code, reason = "there are no doorbells, only the layout")
)]
mod slot;

pub use self::id::{DoorbellId, ParseDoorbellIdError};
#[cfg(all(unix, feature = "std"))]
pub use self::owner::Doorbell;
#[cfg(all(unix, feature = "std"))]
pub use self::ringer::Ringer;
pub use self::slot::DoorbellSlot;
