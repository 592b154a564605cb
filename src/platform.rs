//! Which mechanism bears the `Std` and the `Unix` names where. The second of the two tables of
//! platforms; the other is `providers/mod.rs`.
//!
//! On Linux an id alone opens a memfd, and Windows has names that end with their last holder. Where
//! there is nothing of the kind, the default is served, if the system tells the service who its
//! clients are.

#[cfg(all(
    target_os = "linux",
    not(any(shmem_apple_rules, shmem_android_rules, shmem_freebsd_rules))
))]
mod platform {
    pub use crate::backends::auto::{StdShMem, StdShMemProvider};
    #[cfg(feature = "std")]
    pub use crate::service::dummy::DummyShMemService as StdShMemService;

    /// The provider to take where an id alone does not open a segment, because the processes do not
    /// see each other's descriptors: in different pid namespaces, containers or sandboxes.
    #[cfg(feature = "std")]
    pub type StdServedShMemProvider =
        crate::ServedShMemProvider<crate::backends::MemfdShMemProvider>;

    /// A segment of [`StdServedShMemProvider`].
    #[cfg(feature = "std")]
    pub type StdServedShMem = crate::ServedShMem<crate::backends::MemfdShMemProvider>;
}

#[cfg(windows)]
mod platform {
    pub use crate::backends::{Win32ShMem as StdShMem, Win32ShMemProvider as StdShMemProvider};
    #[cfg(feature = "std")]
    pub use crate::service::dummy::DummyShMemService as StdShMemService;
}

#[cfg(any(target_os = "android", shmem_android_rules))]
mod platform {
    #[cfg(feature = "std")]
    pub use super::served::*;
    #[cfg(feature = "std")]
    pub(super) use crate::backends::AshmemShMemProvider as Memory;
    pub use crate::backends::{AshmemShMem as UnixShMem, AshmemShMemProvider as UnixShMemProvider};
}

#[cfg(any(
    target_vendor = "apple",
    target_os = "dragonfly",
    target_os = "illumos",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "solaris",
    shmem_apple_rules
))]
mod platform {
    #[cfg(feature = "std")]
    pub use super::served::*;
    #[cfg(feature = "std")]
    pub(super) use crate::backends::MmapShMemProvider as Memory;
}

#[cfg(any(target_os = "freebsd", shmem_freebsd_rules))]
mod platform {
    #[cfg(feature = "std")]
    pub use super::served::*;
    #[cfg(feature = "std")]
    pub(super) use crate::backends::memfd_freebsd::MemfdShMemProvider as Memory;
}

/// Haiku does not tell who is on the other side of a socket; of other systems nothing is known yet.
#[cfg(all(
    unix,
    not(any(
        target_vendor = "apple",
        target_os = "android",
        target_os = "dragonfly",
        target_os = "freebsd",
        target_os = "illumos",
        target_os = "linux",
        target_os = "netbsd",
        target_os = "openbsd",
        target_os = "solaris"
    ))
))]
mod platform {
    pub use crate::backends::{MmapShMem as StdShMem, MmapShMemProvider as StdShMemProvider};
    #[cfg(feature = "std")]
    pub use crate::service::dummy::DummyShMemService as StdShMemService;
}

/// The default where an id alone does not open a segment.
#[cfg(all(
    feature = "std",
    any(
        target_vendor = "apple",
        target_os = "android",
        target_os = "dragonfly",
        target_os = "freebsd",
        target_os = "illumos",
        target_os = "netbsd",
        target_os = "openbsd",
        target_os = "solaris",
        shmem_android_rules,
        shmem_apple_rules,
        shmem_freebsd_rules
    )
))]
mod served {
    use super::platform::Memory;
    use crate::ServedShMem;
    use crate::ServedShMemProvider;
    pub use crate::service::host::ShMemService as StdShMemService;

    /// Makes segments that end with their last holder, and shares them through a
    /// [service](crate::ShMemService), because on this system an id alone does not open a segment.
    ///
    /// There is nothing to be set up, except on Android: there an app has no folder for temporary
    /// files by default, so choose an address in one of its own, with
    /// [`at`](crate::Provider::at) or `SHMEM_SERVICE`.
    ///
    /// # Lifetime
    ///
    /// Until the last process that holds the segment drops it or ends, however it ends.
    pub type StdShMemProvider = ServedShMemProvider<Memory>;

    /// A segment of [`StdShMemProvider`].
    pub type StdShMem = ServedShMem<Memory>;

    /// The provider to take where an id alone does not open a segment: on this system the default.
    pub type StdServedShMemProvider = StdShMemProvider;

    /// A segment of [`StdServedShMemProvider`].
    pub type StdServedShMem = StdShMem;
}

#[cfg(any(unix, windows))]
pub use self::platform::*;
#[cfg(all(
    unix,
    not(any(target_os = "android", target_os = "haiku", shmem_android_rules))
))]
pub use crate::backends::sysv::{
    CommonUnixShMem as UnixShMem, CommonUnixShMemProvider as UnixShMemProvider,
};
