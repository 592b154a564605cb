//! Synchronisation between processes.

pub(crate) mod waiters;
pub mod wake;
pub(crate) mod word;
