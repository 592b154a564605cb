//! What only Linux has, and Android with it: `/proc`, leases, `memfd` identities, ashmem.

mod advice;
pub(crate) mod ashmem;
pub(crate) mod identity;
pub(crate) mod lease;
pub(crate) mod procfs;
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
#[path = "dev_shm.rs"]
pub(crate) mod shm_names;
#[cfg(target_os = "linux")]
pub(crate) mod sysv_orphans;

pub(crate) use self::advice::advice_is_heeded;
