#![doc = include_str!("../README.md")]
#![no_std]
// Lints that apply to the library, but not to tests and examples.
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

#[cfg(any(unix, windows))]
#[cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "only the backends of Linux use all of it")
)]
mod backend;
#[cfg(any(unix, windows))]
mod backends;
#[cfg(all(any(unix, windows), feature = "alloc"))]
pub mod channel;
#[cfg(all(unix, feature = "std"))]
mod descriptor;
#[cfg_attr(
    not(any(target_os = "android", target_os = "linux")),
    allow(dead_code, reason = "only Linux searches processes")
)]
pub mod error;
#[cfg(any(unix, windows))]
mod freeze;
#[cfg(any(unix, windows))]
mod growth;
#[cfg(feature = "std")]
mod handover;
#[cfg(feature = "alloc")]
mod heap;
#[cfg_attr(
    not(any(unix, windows)),
    allow(dead_code, reason = "only backends reject ids")
)]
mod id;
#[cfg(all(any(unix, windows), feature = "std"))]
mod inherit;
#[cfg(feature = "libafl")]
mod libafl;
#[cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "only the backends of Linux use all of it")
)]
#[cfg_attr(
    not(any(unix, windows)),
    allow(unreachable_pub, reason = "only backends create mappings")
)]
mod memory;
#[cfg(all(any(unix, windows), feature = "std"))]
mod named;
#[cfg(any(unix, windows))]
#[cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "only the backends of Linux use all of it")
)]
mod options;
#[cfg(all(unix, feature = "std"))]
pub mod pipes;
#[cfg(any(unix, windows))]
mod platform;
#[cfg(all(any(unix, windows), feature = "std"))]
mod pool;
#[cfg(any(unix, windows, feature = "std"))]
#[cfg_attr(not(unix), allow(dead_code, reason = "only Unix has a service"))]
mod process;
#[cfg(any(unix, windows))]
mod provider;
mod read_only;
#[cfg(any(unix, windows))]
#[cfg_attr(
    any(target_os = "android", windows),
    allow(dead_code, reason = "only names of POSIX segments can be kept")
)]
mod segment;
#[cfg(feature = "alloc")]
mod service;
#[cfg(feature = "std")]
mod shared;
#[cfg(feature = "alloc")]
mod sharing;
#[cfg(all(any(unix, windows), feature = "std"))]
mod slab;
#[cfg(any(unix, windows))]
mod snapshot;
#[cfg(any(unix, windows))]
mod sparse;
#[cfg(any(unix, windows))]
pub mod sync;
#[cfg(any(unix, windows))]
mod sys;
mod traits;
mod util;

/// For the documentation: short programs, each about one way to share memory. `tests/cookbook.rs` runs them.
#[cfg(all(doc, not(doctest)))]
#[doc = include_str!("../docs/cookbook.md")]
pub mod cookbook {}
/// For the documentation: which provider to use for which target.
#[cfg(any(doc, doctest))]
#[doc = include_str!("../docs/fuzzing.md")]
pub mod fuzzing {}
/// For the documentation: migration from version 0.16, and from the crate of that name in `LibAFL`.
#[cfg(any(doc, doctest))]
#[doc = include_str!("../docs/migration.md")]
pub mod migration {}

#[cfg(any(unix, windows))]
pub use self::backend::{Backend, Exclusive, Growable, Snapshots, Sparse};
// Which of these exist depends on the system, as the table in `backends/mod.rs` says. Listing them here
// would repeat its conditions; `make api` prints those that exist on Linux.
#[cfg(any(unix, windows))]
pub use self::backends::*;
pub use self::error::{Error, ErrorKind, Result};
#[cfg(feature = "alloc")]
pub use self::heap::{NopShMem, NopShMemProvider};
#[cfg(feature = "alloc")]
pub use self::id::ParseIdError;
pub use self::id::ShMemId;
pub use self::id::description::ShMemDescription;
pub use self::id::kind::{IdKind, MemfdLocator};
pub use self::memory::access::Access;
#[cfg(feature = "std")]
pub use self::memory::cursor::ShMemCursor;
pub use self::memory::layout::SharedLayout;
pub use self::memory::read_access::ReadAccess;
pub use self::memory::read_only::ReadOnly;
#[cfg(all(any(unix, windows), feature = "std"))]
pub use self::named::{NameHold, Named, NamedInfo, NamedOptions, Persist};
#[cfg(any(unix, windows))]
pub use self::options::{HugePages, OptionReport, OptionStatus, ShMemOptions};
#[cfg(all(any(unix, windows), feature = "std"))]
pub use self::platform::aliases::{StdShMemPool, StdSlab, StdSlabObject};
#[cfg(any(unix, windows))]
pub use self::platform::aliases::{StdSnapshot, StdView};
// As for `backends`: the table is in `platform.rs`.
#[cfg(any(unix, windows))]
pub use self::platform::*;
/// For derived implementations of [`SharedLayout`].
#[doc(hidden)]
pub mod layout {
    pub use crate::memory::layout::fingerprint;
}
#[cfg(feature = "derive")]
pub use shmem_providers_derive::SharedLayout;
/// For the package in `libafl/`, which has traits of its own.
#[cfg(all(feature = "libafl", feature = "std"))]
#[doc(hidden)]
pub mod facade {
    pub use crate::handover::{read, variables};
    pub use crate::process::fork_lock::{ForkLock, Guard};
}
#[cfg(any(unix, windows))]
pub use self::freeze::FreezeError;
#[cfg(all(any(unix, windows), feature = "std"))]
pub use self::pool::{PooledShMem, ShMemPool};
#[cfg(any(unix, windows))]
pub use self::provider::Provider;
#[cfg(any(unix, windows))]
pub use self::segment::Segment;
/// For fuzzing: the parts of the service that read untrusted input.
#[cfg(fuzzing)]
#[allow(missing_docs)]
pub mod service_core {
    pub use crate::service::{protocol, registry};
}
#[cfg(feature = "std")]
pub use self::service::dummy::DummyShMemService;
#[cfg(all(unix, feature = "std"))]
pub use self::service::host::ShMemService;
#[cfg(feature = "std")]
pub use self::shared::{RcShMem, RcShMemProvider};
#[cfg(feature = "alloc")]
pub use self::sharing::{Shared, SharedRef, Typed};
#[cfg(all(any(unix, windows), feature = "std"))]
pub use self::slab::{Slab, SlabObject, SlabRef};
#[cfg(any(unix, windows))]
pub use self::snapshot::{Snapshot, View};
#[cfg(any(unix, windows))]
pub use self::sparse::DataRanges;
#[cfg(any(unix, windows))]
pub use self::sync::wake;
pub use self::traits::{ShMem, ShMemProvider};
