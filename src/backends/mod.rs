//! The backends: one file for each mechanism, and the table of the systems that have it.
//!
//! The other table of platforms is `platform.rs`, which selects the defaults. A new backend is one
//! file here and one row in the table.

#[cfg(any(target_os = "android", target_os = "linux"))]
mod ashmem;
#[cfg(all(
    target_os = "linux",
    not(any(shmem_apple_rules, shmem_android_rules, shmem_freebsd_rules))
))]
pub(crate) mod auto;
#[cfg(all(unix, feature = "std", not(target_os = "solaris")))]
pub(crate) mod file;
#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) mod memfd;
#[cfg(any(target_os = "freebsd", shmem_freebsd_rules))]
#[cfg_attr(
    shmem_freebsd_rules,
    allow(dead_code, unreachable_pub, reason = "the names are those of `memfd`")
)]
pub(crate) mod memfd_freebsd;
#[cfg(all(unix, not(target_os = "android")))]
pub(crate) mod posix;
#[cfg(all(unix, feature = "std"))]
pub(crate) mod served;
#[cfg(all(unix, not(any(target_os = "android", target_os = "haiku"))))]
#[cfg_attr(
    shmem_android_rules,
    allow(dead_code, reason = "pools on Android have no fork witness")
)]
pub(crate) mod sysv;
#[cfg(windows)]
mod win32;

#[cfg(any(target_os = "android", target_os = "linux"))]
pub use self::ashmem::{AshmemBackend, AshmemShMem, AshmemShMemProvider};
#[cfg(all(
    target_os = "linux",
    not(any(shmem_apple_rules, shmem_android_rules, shmem_freebsd_rules))
))]
pub use self::auto::{AutoBackend, Mechanism};
#[cfg(all(unix, feature = "std", not(target_os = "solaris")))]
pub use self::file::{FileBackend, FileShMem, FileShMemProvider};
#[cfg(any(target_os = "android", target_os = "linux"))]
pub use self::memfd::{MemfdBackend, MemfdShMem, MemfdShMemProvider};
#[cfg(target_os = "freebsd")]
pub use self::memfd_freebsd::{MemfdBackend, MemfdShMem, MemfdShMemProvider};
#[cfg(all(unix, not(target_os = "android")))]
pub use self::posix::{MmapShMem, MmapShMemProvider, PosixBackend};
#[cfg(all(unix, feature = "std"))]
pub use self::served::{ServedBackend, ServedShMem, ServedShMemProvider};
#[cfg(all(unix, not(any(target_os = "android", target_os = "haiku"))))]
pub use self::sysv::{CommonUnixShMem, CommonUnixShMemProvider, SystemVBackend};
#[cfg(windows)]
pub use self::win32::{Win32Backend, Win32ShMem, Win32ShMemProvider};
