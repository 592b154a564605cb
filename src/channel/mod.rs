//! Channels between processes: values that some of them write and others read.

mod latest;

pub use self::latest::{Latest, LatestReader, LatestWriter, Seen};
//! Messages between processes.

pub mod ring;

pub use self::ring::Ring;
