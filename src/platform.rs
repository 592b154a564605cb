//! The defaults of each platform: what the names that start with `Std` and `Unix` refer to.
//!
//! On Linux the id of a memfd is enough to open it, and Windows has names that end with their last
//! holder. On other systems the default is a served provider, if the system reports the user of the
//! peer of a socket. The other table of platforms is `backends/mod.rs`.

pub use self::default::*;
#[cfg(all(
    unix,
    not(any(target_os = "android", target_os = "haiku", shmem_android_rules))
))]
pub use crate::backends::{
    CommonUnixShMem as UnixShMem, CommonUnixShMemProvider as UnixShMemProvider,
};

/// The names that exist on every system.
pub(crate) mod aliases {
    use super::default::StdBackend;

    /// The [`ShMemPool`](crate::ShMemPool) of the default provider.
    #[cfg(feature = "std")]
    pub type StdShMemPool = crate::pool::ShMemPool<StdBackend>;
    /// The [`Slab`](crate::Slab) of the default provider.
    #[cfg(feature = "std")]
    pub type StdSlab = crate::slab::Slab<StdBackend>;
    /// An object of a [`StdSlab`].
    #[cfg(feature = "std")]
    pub type StdSlabObject = crate::slab::SlabObject<StdBackend>;
    /// The [`Snapshot`](crate::Snapshot) of the default provider.
    pub type StdSnapshot = crate::snapshot::Snapshot<StdBackend>;
    /// The [`View`](crate::View) of a [`StdSnapshot`].
    pub type StdView = crate::snapshot::View<StdBackend>;
}

#[cfg(all(
    target_os = "linux",
    not(any(shmem_apple_rules, shmem_android_rules, shmem_freebsd_rules))
))]
mod default {
    pub use crate::backends::auto::{AutoBackend as StdBackend, StdShMem, StdShMemProvider};
    #[cfg(feature = "std")]
    pub use crate::service::dummy::DummyShMemService as StdShMemService;

    /// The provider for processes that do not see each other's descriptors, so that an id alone
    /// does not open a segment: in different pid namespaces, containers or sandboxes.
    #[cfg(feature = "std")]
    pub type StdServedShMemProvider =
        crate::backends::ServedShMemProvider<crate::backends::MemfdBackend>;

    /// A segment of [`StdServedShMemProvider`].
    #[cfg(feature = "std")]
    pub type StdServedShMem = crate::backends::ServedShMem<crate::backends::MemfdBackend>;
}

#[cfg(windows)]
mod default {
    pub use crate::backends::{
        Win32Backend as StdBackend, Win32ShMem as StdShMem, Win32ShMemProvider as StdShMemProvider,
    };
    #[cfg(feature = "std")]
    pub use crate::service::dummy::DummyShMemService as StdShMemService;
}

#[cfg(any(target_os = "android", shmem_android_rules))]
mod default {
    #[cfg(feature = "std")]
    pub use super::served::*;
    #[cfg(feature = "std")]
    pub(super) use crate::backends::AshmemBackend as Memory;
    #[cfg(not(feature = "std"))]
    pub use crate::backends::AshmemBackend as StdBackend;
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
mod default {
    #[cfg(feature = "std")]
    pub use super::served::*;
    #[cfg(feature = "std")]
    pub(super) use crate::backends::PosixBackend as Memory;
    #[cfg(not(feature = "std"))]
    pub use crate::backends::PosixBackend as StdBackend;
}

#[cfg(any(target_os = "freebsd", shmem_freebsd_rules))]
mod default {
    #[cfg(feature = "std")]
    pub use super::served::*;
    #[cfg(feature = "std")]
    pub(super) use crate::backends::memfd_freebsd::MemfdBackend as Memory;
    #[cfg(not(feature = "std"))]
    pub use crate::backends::memfd_freebsd::MemfdBackend as StdBackend;
}

/// Haiku does not report the user of the peer of a socket, and other systems have not been examined
/// yet.
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
mod default {
    pub use crate::backends::{
        MmapShMem as StdShMem, MmapShMemProvider as StdShMemProvider, PosixBackend as StdBackend,
    };
    #[cfg(feature = "std")]
    pub use crate::service::dummy::DummyShMemService as StdShMemService;
}

/// The default on systems where an id alone does not open a segment.
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
    use super::default::Memory;
    use crate::backends::served::{ServedBackend, ServedShMem, ServedShMemProvider};
    pub use crate::service::host::ShMemService as StdShMemService;

    /// The backend of the default provider.
    pub type StdBackend = ServedBackend<Memory>;

    /// Creates segments that end with their last holder, and shares them through a
    /// [service](crate::ShMemService), because on this system an id alone does not open a segment.
    ///
    /// No setup is needed, except on Android. There an app has no directory for temporary files by
    /// default, so choose an address in one of its own directories, with
    /// [`at`](crate::Provider::at) or `SHMEM_SERVICE`.
    ///
    /// # Lifetime
    ///
    /// Until the last process that holds the segment drops it or ends, however it ends.
    pub type StdShMemProvider = ServedShMemProvider<Memory>;

    /// A segment of [`StdShMemProvider`].
    pub type StdShMem = ServedShMem<Memory>;

    /// The provider for processes in which an id alone does not open a segment: on this system the
    /// default.
    pub type StdServedShMemProvider = StdShMemProvider;

    /// A segment of [`StdServedShMemProvider`].
    pub type StdServedShMem = StdShMem;
}
