#![doc = include_str!("../README.md")]
#![no_std]
// Elsewhere fewer mechanisms exist, and leave idle what only they use.
#![cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, unreachable_pub, unused_imports)
)]
// What only the library has to keep to.
#![warn(
    clippy::alloc_instead_of_core,
    clippy::std_instead_of_alloc,
    clippy::std_instead_of_core,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod access;
#[cfg(feature = "std")]
mod cursor;
#[cfg(unix)]
mod defaults;
mod description;
#[cfg(feature = "std")]
mod env;
pub mod error;
#[cfg(feature = "std")]
mod fork_lock;
#[cfg(feature = "alloc")]
mod heap;
mod id;
mod limit;
mod mapping;
#[cfg(unix)]
mod options;
#[cfg(all(unix, feature = "std"))]
pub mod pipes;
#[cfg(all(unix, feature = "std"))]
mod pool;
#[cfg(unix)]
mod providers;
#[cfg(feature = "std")]
mod rc;
#[cfg(unix)]
mod segment;
#[cfg(feature = "alloc")]
mod service;
mod shmem;
#[cfg(all(unix, feature = "std"))]
mod slab;
#[cfg(unix)]
mod snapshot;
#[cfg(unix)]
mod sparse;
#[cfg(unix)]
mod sys;
mod text;
#[cfg(unix)]
pub mod wake;

pub use self::access::Access;
#[cfg(feature = "std")]
pub use self::cursor::ShMemCursor;
#[cfg(unix)]
pub use self::defaults::*;
pub use self::description::ShMemDescription;
#[cfg(feature = "alloc")]
pub use self::heap::{NopShMem, NopShMemProvider};
pub use self::id::ShMemId;
#[cfg(unix)]
pub use self::options::{Grant, Grants, HugePages, ShMemOptions};
#[cfg(all(unix, feature = "std"))]
pub use self::pool::{OverMechanism, Pool, Pooled, PooledShMem, ShMemPool};
#[cfg(unix)]
pub use self::providers::*;
#[cfg(feature = "std")]
pub use self::rc::{RcShMem, RcShMemProvider};
#[cfg(unix)]
pub use self::segment::{Provider, Segment};
/// For fuzzing: the parts of the service that read what strangers send.
#[cfg(fuzzing)]
pub use self::service as service_core;
#[cfg(all(unix, feature = "std"))]
pub use self::service::host::{DummyShMemService, ShMemService};
pub use self::shmem::{ShMem, ShMemProvider};
#[cfg(all(unix, feature = "std"))]
pub use self::slab::{Place, Slab, SlabObject};
#[cfg(unix)]
pub use self::snapshot::{Snapshot, View};
#[cfg(unix)]
pub use self::sparse::TouchedRanges;

/// What the functions of this crate return when they fail: [`error::Error`].
pub type Error = error::Error;
