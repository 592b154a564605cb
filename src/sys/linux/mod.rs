//! What only Linux and Android have: `/proc`, memfd ids, leases, ashmem, and calls with which
//! `unix` does more here than elsewhere.

mod advice;
mod allocate;
pub(crate) mod ashmem;
mod capabilities;
#[cfg(all(feature = "std", not(shmem_apple_rules)))]
mod close_range;
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
pub(crate) mod dev_shm;
#[cfg(feature = "std")]
pub(in crate::sys) mod doorbell_lookup;
#[cfg(not(shmem_apple_rules))]
mod fork_page;
#[cfg_attr(
    any(not(target_os = "linux"), shmem_apple_rules),
    allow(dead_code, reason = "without std, only POSIX segments on Linux use it")
)]
pub(in crate::sys) mod found_file;
#[cfg(not(any(shmem_apple_rules, shmem_freebsd_rules)))]
pub(crate) mod futex;
pub(crate) mod growth;
mod huge_pages;
pub(crate) mod identity;
pub(crate) mod lease;
pub(crate) mod limits;
mod mapping;
mod options;
#[cfg(all(feature = "std", not(shmem_apple_rules)))]
pub(crate) mod passed_fds;
#[cfg(feature = "std")]
pub(crate) mod peer;
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
mod posix_shm;
#[cfg(all(feature = "std", not(any(shmem_apple_rules, shmem_freebsd_rules))))]
pub(crate) mod presence;
#[cfg(feature = "std")]
mod process;
pub(crate) mod procfs;
mod reopen;
#[cfg(all(any(target_os = "linux", feature = "std"), not(shmem_apple_rules)))]
mod reservation;
#[cfg(all(feature = "std", not(shmem_apple_rules)))]
mod shared_object;
mod sparse;
#[cfg(target_os = "linux")]
pub(crate) mod sysv_ext;
#[cfg(target_os = "linux")]
mod sysv_orphans;
mod user_namespace;
mod wipe_on_fork;
mod write_witness;

#[cfg(feature = "std")]
use rustix::fs::OFlags;

pub(crate) use self::advice::advice_is_heeded;
#[cfg(all(feature = "std", not(shmem_apple_rules)))]
pub(crate) use self::close_range::own_descriptors;
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
pub(crate) use self::dev_shm as shm_names;
#[cfg(not(shmem_apple_rules))]
pub(in crate::sys) use self::fork_page::generation_in_page;
pub(crate) use self::huge_pages::PageSize;
#[cfg(target_os = "linux")]
pub(crate) use self::huge_pages::refuse_huge_pages;
#[cfg(any(target_os = "linux", feature = "std"))]
pub(crate) use self::identity::nonce;
pub(crate) use self::mapping::{map_fd_aligned, map_private, page_size, reset_private};
pub(crate) use self::options::{apply_options, populate_or_refuse};
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
pub(crate) use self::posix_shm::{reserve, reserve_existing};
#[cfg(feature = "std")]
pub(in crate::sys) use self::process::set_thread_name;
#[cfg(feature = "std")]
pub(crate) use self::process::{has_more_rights, process_runs};
pub(crate) use self::reopen::map_for_reading;
pub(crate) use self::reopen::{map_file_for_reading, reopen};
#[cfg(all(feature = "std", not(shmem_apple_rules)))]
pub(crate) use self::reservation::reserve_file;
pub(crate) use self::sparse::{next_data, punch_hole};
pub(in crate::sys) use self::user_namespace::is_distinct;
pub(crate) use self::write_witness::WriteWitness;

/// How to open a directory to look up names in it.
#[cfg(feature = "std")]
pub(in crate::sys) const SEARCH: OFlags = OFlags::PATH;
