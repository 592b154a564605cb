//! [`TypeMismatch`]: why a segment is not opened as a value of a type.

use core::fmt;

/// Why [`Typed`](crate::Typed) or a [`Ring`](crate::channel::Ring) does not open a segment as a value of a type.
///
/// # Examples
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use std::sync::atomic::{AtomicU16, AtomicU32};
/// use shmem_providers::error::TypeMismatch;
/// use shmem_providers::{Error, ShMemProvider, StdShMemProvider, Typed};
///
/// let mut provider = StdShMemProvider::new()?;
/// let counter = Typed::<AtomicU32>::create(&mut provider, |_| {})?;
/// match Typed::<AtomicU16>::open(&mut provider, counter.id()) {
///     Err(Error::WrongType { mismatch, .. }) => {
///         assert_eq!(mismatch, TypeMismatch::Size { found: 4, expected: 2 });
///     }
///     other => panic!("{other:?}"),
/// }
/// # }
/// # Ok::<(), shmem_providers::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TypeMismatch {
    /// It was not created as one, or is not initialised yet.
    NotTyped,
    /// Another version of this crate created it, with another header.
    Version {
        /// The version in the segment.
        found: u32,
    },
    /// The value has another size, in bytes.
    Size {
        /// That of the value in the segment.
        found: u64,
        /// That of the type.
        expected: u64,
    },
    /// The value has another alignment, in bytes.
    Alignment {
        /// That of the value in the segment.
        found: u64,
        /// That of the type.
        expected: u64,
    },
    /// The value has other fields: another name, type or order.
    Fields,
}

impl fmt::Display for TypeMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTyped => {
                f.write_str("it was not created as one, or its creator has not initialised it yet")
            }
            Self::Version { found } => write!(
                f,
                "version {found} of the header is not known: use one version of shmem_providers"
            ),
            Self::Size { found, expected } => {
                write!(f, "the value has {found} bytes, the type has {expected}")
            }
            Self::Alignment { found, expected } => write!(
                f,
                "the value is aligned to {found} bytes, the type to {expected}"
            ),
            Self::Fields => f.write_str(
                "the fields of the value have other names or types: build both programs with the \
                 same definition of the type",
            ),
        }
    }
}
