//! Synchronisation between processes.

pub(crate) mod doorbell;
pub(crate) mod waiters;
pub mod wake;
pub(crate) mod word;

#[cfg(all(unix, feature = "std"))]
pub use self::doorbell::{Doorbell, Ringer};
pub use self::doorbell::{DoorbellId, DoorbellSlot, ParseDoorbellIdError};
