//! Synchronisation between processes.

pub mod wake;
