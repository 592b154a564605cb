//! Which mechanism bears the `Std` and the `Unix` names where. The second of the two tables of
//! platforms; the other is `providers/mod.rs`.

#[cfg(target_os = "linux")]
pub use crate::providers::ladder::{StdShMem, StdShMemProvider};
#[cfg(not(any(target_os = "android", target_os = "haiku")))]
pub use crate::providers::sysv::{
    CommonUnixShMem as UnixShMem, CommonUnixShMemProvider as UnixShMemProvider,
};

/// The provider to take where an id alone does not open a segment, because the processes do not see
/// each other's descriptors: in different pid namespaces, containers or sandboxes.
#[cfg(all(target_os = "linux", feature = "std"))]
pub type StdServedShMemProvider = crate::ServedShMemProvider<crate::providers::MemfdShMemProvider>;
/// The provider to take where an id alone does not open a segment.
#[cfg(all(not(any(target_os = "android", target_os = "linux")), feature = "std"))]
pub type StdServedShMemProvider = crate::ServedShMemProvider<crate::providers::MmapShMemProvider>;

/// A segment of [`StdServedShMemProvider`].
#[cfg(all(not(target_os = "android"), feature = "std"))]
pub type StdServedShMem = <StdServedShMemProvider as crate::ShMemProvider>::ShMem;

/// The service that the default provider needs: none.
#[cfg(all(target_os = "linux", feature = "std"))]
pub use crate::service::host::DummyShMemService as StdShMemService;

// Apple and Android get their defaults with the service that they need, the others with their rows
// of the platform table.
