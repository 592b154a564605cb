//! The service: keeps descriptors and hands them out, where an id alone cannot open a segment.
//!
//! `protocol` and `registry` are its core: bytes and bookkeeping, no input and no output. `wire`
//! moves frames through sockets and knows no bookkeeping; `server` is the loop that joins the two,
//! `client` the other side, with its `connection` and the `keeper` that notices when a service dies.
//! `address` says where they meet. What needs `unsafe` is in `sys`.
#![forbid(unsafe_code)]

// Public to the fuzzers, and without `std` used by nobody else.
#[cfg_attr(not(fuzzing), allow(dead_code, unreachable_pub))]
pub mod protocol;
#[cfg_attr(not(fuzzing), allow(dead_code, unreachable_pub))]
pub mod registry;

#[cfg(all(unix, feature = "std"))]
mod address;
// Without `std` there is only the registry, which needs a part of it.
#[cfg_attr(not(all(unix, feature = "std")), allow(dead_code))]
mod admission;
#[cfg(all(unix, feature = "std"))]
pub(crate) mod client;
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
