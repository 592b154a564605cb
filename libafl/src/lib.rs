//! `shmem_providers` 1.0 where `LibAFL` expects 0.16: the same providers, with `libafl_core::Error` as
//! the error type of the traits, and with the modules of the original.
//!
//! `docs/fuzzing.md` explains which provider to use for which target; `docs/migration.md` lists the
//! differences from the original.
#![no_std]

#[cfg(feature = "std")]
extern crate std;

#[cfg(feature = "std")]
mod shared;
mod traits;

pub use libafl_core::Error;
pub use shmem::*;

#[cfg(all(unix, feature = "std"))]
pub use self::served::{DescriptorBacked, ServedShMem, ServedShMemProvider};
#[cfg(feature = "std")]
pub use self::shared::{RcShMem, RcShMemProvider};
pub use self::traits::{ShMem, ShMemProvider};

#[cfg(all(unix, feature = "std"))]
mod served {
    use std::os::fd::OwnedFd;

    use shmem::{Backend, Provider};

    /// The providers whose segments are file descriptors.
    pub trait DescriptorBacked {
        /// The backend of the provider.
        type Backend: Backend<Handle = OwnedFd>;
    }

    impl<B: Backend<Handle = OwnedFd>> DescriptorBacked for Provider<B> {
        type Backend = B;
    }

    /// As [`shmem::ServedShMemProvider`], but its parameter is the provider of the memory, as in 0.16, and
    /// not the backend.
    pub type ServedShMemProvider<P> = shmem::ServedShMemProvider<<P as DescriptorBacked>::Backend>;

    /// A segment of [`ServedShMemProvider`].
    pub type ServedShMem<P> = shmem::ServedShMem<<P as DescriptorBacked>::Backend>;
}

/// The mechanisms of Unix, and the modules of two of them.
///
/// Each module exports all names of the crate, so that this package does not repeat which mechanism exists on
/// which system.
pub mod unix_shmem {
    pub use crate::*;

    /// Segments of `memfd_create`.
    pub mod memfd {
        pub use crate::*;
    }

    /// Segments of Android.
    pub mod ashmem {
        pub use crate::*;
    }
}

/// Segments shared through a service.
pub mod unix_shmem_server {
    pub use crate::*;
}

/// Sections of Windows.
pub mod win32_shmem {
    pub use crate::*;
}
