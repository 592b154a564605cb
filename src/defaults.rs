//! Which mechanism bears the `Std` and the `Unix` names where. The second of the two tables of
//! platforms; the other is `providers/mod.rs`.

#[cfg(target_os = "linux")]
pub use crate::providers::ladder::{StdShMem, StdShMemProvider};
#[cfg(all(unix, not(any(target_os = "android", target_os = "haiku"))))]
pub use crate::providers::sysv::{
    CommonUnixShMem as UnixShMem, CommonUnixShMemProvider as UnixShMemProvider,
};
#[cfg(windows)]
pub use crate::providers::{Win32ShMem as StdShMem, Win32ShMemProvider as StdShMemProvider};

/// The provider to take where an id alone does not open a segment, because the processes do not see
/// each other's descriptors: in different pid namespaces, containers or sandboxes.
#[cfg(all(target_os = "linux", feature = "std"))]
pub type StdServedShMemProvider = crate::ServedShMemProvider<crate::providers::MemfdShMemProvider>;
/// The provider to take where an id alone does not open a segment.
#[cfg(all(
    unix,
    not(any(target_os = "android", target_os = "linux")),
    feature = "std"
))]
pub type StdServedShMemProvider = crate::ServedShMemProvider<crate::providers::MmapShMemProvider>;

/// The service that the default provider needs: none.
#[cfg(all(any(target_os = "linux", windows), feature = "std"))]
pub use crate::service::dummy::DummyShMemService as StdShMemService;

// Apple and Android get their defaults with the service that they need, the others with their rows
// of the platform table.
