//! `shmem_providers` 0.17 where `LibAFL` expects 0.16: the same crate, with `libafl_core::Error` as its
//! error type, and with the modules that the original had.
//!
//! Which provider to take for which target, says `docs/fuzzing.md`; what differs from the original,
//! `docs/migration.md`.
#![no_std]

pub use shmem::*;

/// The mechanisms of Unix, and the modules that two of them had to themselves.
///
/// Each has all names of the crate, because which mechanism exists where is the crate's to say.
pub mod unix_shmem {
    pub use shmem::*;

    /// Descriptors of memory.
    pub mod memfd {
        pub use shmem::*;
    }

    /// Android's descriptors of memory.
    pub mod ashmem {
        pub use shmem::*;
    }
}

/// Segments shared through a service.
pub mod unix_shmem_server {
    pub use shmem::*;
}

/// Sections of Windows.
pub mod win32_shmem {
    pub use shmem::*;
}
