//! The service: stores descriptors and hands them out, where an id alone cannot open a segment.
//!
//! Its core performs no I/O and is tested against models: `protocol` encodes and decodes messages,
//! `registry` knows which client holds which segment, `admission` decides who gets how much, `deadlines`
//! knows when something is due. `wire` moves frames through sockets. `server` is the loop that connects
//! these parts, and `host` runs it in a thread. `reaper` closes descriptors whose closing may block.
//!
//! `client` is the peer of the server, with its `connection` and the `monitor`, which notices when the host
//! dies. `address` decides where client and service meet. Everything that needs `unsafe` is in `sys`.
#![forbid(unsafe_code)]

// Public for the fuzz targets. Without `std` nothing else uses them.
#[cfg_attr(not(fuzzing), allow(dead_code, unreachable_pub))]
pub mod protocol;
#[cfg_attr(not(fuzzing), allow(dead_code, unreachable_pub))]
pub mod registry;

#[cfg(all(unix, feature = "std"))]
pub(crate) mod address;
// Without `std` there is only the registry, which needs a part of it.
#[cfg_attr(not(all(unix, feature = "std")), allow(dead_code))]
mod admission;
#[cfg(all(unix, feature = "std"))]
pub(crate) mod client;
#[cfg(all(unix, feature = "std"))]
mod deadlines;
#[cfg(feature = "std")]
pub(crate) mod dummy;
#[cfg(all(unix, feature = "std"))]
pub(crate) mod host;
#[cfg(all(unix, feature = "std"))]
mod reaper;
#[cfg(all(unix, feature = "std"))]
mod server;
#[cfg(all(unix, feature = "std"))]
mod wire;

#[cfg(all(test, unix, feature = "std"))]
mod tests;
