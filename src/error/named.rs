//! [`NamedError`]: what can be wrong with a well-known name, or with the directory of names.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;
use core::time::Duration;

use crate::error::kind::os_kind;
use crate::error::message::describe;
use crate::error::service::write_reason;
use crate::error::{AddressOrigin, ErrorKind, ServiceError};

/// The environment variable with the directory of names.
pub(crate) const VARIABLE: &str = "SHMEM_NAMES";

/// The maximum length of a name, in bytes.
pub(crate) const MAX_LEN: usize = 200;

/// What is wrong with a name of [`Named`](crate::Named), or with the directory of names.
///
/// [`Display`](fmt::Display) prints the reason alone. That of [`Error::Named`](crate::Error::Named), which
/// contains it, also prints the name.
///
/// # Examples
///
/// ```
/// # #[cfg(any(unix, windows))] {
/// use shmem_providers::error::NamedError;
/// use shmem_providers::{Error, Named};
///
/// match Named::open("") {
///     Err(Error::Named { reason, .. }) => assert_eq!(reason, NamedError::Empty),
///     other => panic!("{other:?}"),
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NamedError {
    /// The name is empty.
    Empty,
    /// The name has more than 200 bytes.
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The name contains a zero byte.
    ContainsNul,
    /// No process holds a segment of this name.
    Unknown,
    /// Another process that is still running is initialising or removing the segment, and has not finished
    /// before the deadline.
    Busy {
        /// How long this process has waited.
        waited: Duration,
    },
    /// Other names in use have the same hash, so that there is no place left for this one.
    TooManyAlike,
    /// Something else stands where the entry of the name belongs. It was left alone.
    NotAnEntry {
        /// Its path.
        path: String,
    },
    /// The directory of names cannot be used.
    Directory {
        /// The path of the directory.
        path: String,
        /// Where the path comes from.
        origin: AddressOrigin,
        /// What is wrong with it.
        reason: Box<ServiceError>,
        /// The error number, if the system refused a call.
        errno: Option<i32>,
    },
    /// The system refused a call on a file in the directory of names.
    Os {
        /// The call.
        call: &'static str,
        /// The path that it was called on.
        path: String,
        /// The error number.
        errno: i32,
    },
}

impl NamedError {
    /// Returns the error number of the refused call, if there is one.
    pub(super) fn errno(&self) -> Option<i32> {
        match self {
            Self::Directory { errno, .. } => *errno,
            Self::Os { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::Empty | Self::TooLong { .. } | Self::ContainsNul => ErrorKind::InvalidName,
            Self::Unknown => ErrorKind::Gone,
            Self::Busy { .. } => ErrorKind::NameBusy,
            Self::Os { errno, .. } => os_kind(*errno),
            Self::TooManyAlike | Self::NotAnEntry { .. } | Self::Directory { .. } => {
                ErrorKind::NameDirectory
            }
        }
    }
}

impl fmt::Display for NamedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cure = "set SHMEM_NAMES, for all programs that share names, to a directory of this user to which \
                    it can write and no other user can (mode 0700)";
        match self {
            Self::Empty => f.write_str("a name has at least one byte"),
            Self::TooLong { len } => {
                write!(f, "a name has at most {MAX_LEN} bytes, and this one has {len}")
            }
            Self::ContainsNul => f.write_str("a name contains no zero byte"),
            Self::Unknown => f.write_str(
                "no process of this user holds a segment of this name: it was not created in this directory \
                 of names, its last holder is gone, or it is still being initialised",
            ),
            Self::Busy { waited } => write!(
                f,
                "another process is initialising or removing the segment, and has not finished within \
                 {waited:?}: it is slow (raise the timeout), stopped, or has itself asked for this name \
                 while initialising it"
            ),
            Self::TooManyAlike => f.write_str(
                "several names in use have the same hash as this one; choose another name",
            ),
            Self::NotAnEntry { path } => write!(
                f,
                "{path:?} stands where the entry of the name belongs, and is not a file of this user; not \
                 touching it: remove it"
            ),
            Self::Directory {
                path,
                origin,
                reason,
                errno,
            } => {
                write!(f, "the directory of names {path:?} ({origin}) cannot be used: ")?;
                write_reason(f, reason, *errno)?;
                write!(f, "; {cure}")
            }
            Self::Os { call, path, errno } => {
                write!(f, "{call} {path:?}: ")?;
                describe(f, *errno)?;
                write!(f, "; {cure}")
            }
        }
    }
}
