//! Waiting for other processes.

pub mod wake;
