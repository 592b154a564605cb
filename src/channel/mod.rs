//! Messages between processes.

pub mod ring;

pub use self::ring::Ring;
