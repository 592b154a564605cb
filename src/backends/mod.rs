//! Which mechanism exists where. The first of the two tables of platforms; the other is
//! `defaults.rs`.
//!
//! Adding a mechanism is one file here and one row.

#[cfg(any(target_os = "android", target_os = "linux"))]
mod ashmem;
#[cfg(all(
    target_os = "linux",
    not(any(shmem_apple_rules, shmem_android_rules, shmem_freebsd_rules))
))]
pub(crate) mod auto;
#[cfg(any(target_os = "android", target_os = "linux"))]
mod memfd;
#[cfg(any(target_os = "freebsd", shmem_freebsd_rules))]
pub(crate) mod memfd_freebsd;
#[cfg(all(unix, not(target_os = "android")))]
mod posix;
#[cfg(all(unix, feature = "std"))]
mod served;
#[cfg(all(unix, not(any(target_os = "android", target_os = "haiku"))))]
pub(crate) mod sysv;
#[cfg(windows)]
mod win32;

#[cfg(any(target_os = "android", target_os = "linux"))]
pub use self::ashmem::{AshmemShMem, AshmemShMemProvider};
#[cfg(all(
    target_os = "linux",
    not(any(shmem_apple_rules, shmem_android_rules, shmem_freebsd_rules))
))]
pub use self::auto::Mechanism;
#[cfg(any(target_os = "android", target_os = "linux"))]
pub use self::memfd::{MemfdShMem, MemfdShMemProvider};
#[cfg(target_os = "freebsd")]
pub use self::memfd_freebsd::{MemfdShMem, MemfdShMemProvider};
#[cfg(all(unix, not(target_os = "android")))]
pub use self::posix::{MmapShMem, MmapShMemProvider};
#[cfg(all(unix, feature = "std"))]
pub use self::served::{DescriptorBacked, ServedShMem, ServedShMemProvider};
#[cfg(all(unix, not(any(target_os = "android", target_os = "haiku"))))]
pub use self::sysv::{CommonUnixShMem, CommonUnixShMemProvider};
#[cfg(windows)]
pub use self::win32::{Win32ShMem, Win32ShMemProvider};
