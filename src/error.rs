//! What can go wrong: one enum that keeps the call, the errno and the limit that was hit.
//!
//! Everything inside the crate returns [`Error`] as defined here. Public signatures name
//! [`crate::Error`], which is an alias of it, or, with the feature `libafl`, that of `LibAFL`, into
//! which it is converted at the boundary: there `?` converts, and does nothing without the feature.

use core::fmt;

use crate::ShMemId;
pub use crate::limit::Limit;

/// What the functions inside the crate return.
pub(crate) type Result<T, E = Error> = core::result::Result<T, E>;

/// Why a segment could not be created, opened or accessed.
///
/// [`Display`](fmt::Display) says which call failed on what, with which errno, which limit was hit,
/// its value at that moment, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a call.
    Os {
        /// The call, as its manual page names it: `memfd_create`, `shmget`, `mmap`, …
        call: &'static str,
        /// The error number it set.
        errno: i32,
        /// What it was called on.
        subject: Subject,
        /// The limit behind the refusal, where it could be told.
        limit: Option<Limit>,
    },
    /// No segment can have this size, in bytes: it is zero, or more than `isize::MAX`.
    InvalidSize {
        /// The size asked for, in bytes.
        size: usize,
    },
    /// More was asked for than the segment has.
    TooLarge {
        /// The size asked for, in bytes.
        asked: usize,
        /// What the segment has according to the operating system, in bytes.
        actual: usize,
    },
    /// The text of the id names no segment, whatever exists at the moment.
    InvalidId {
        /// The id.
        id: ShMemId,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The id is well-formed, but no process holds its segment any more.
    Gone {
        /// The id.
        id: ShMemId,
    },
    /// The segment, or the process that the id names, belongs to another user.
    OtherUser {
        /// The user id of the owner, where the operating system tells it.
        owner: Option<u32>,
    },
    /// What stands under the id is not a segment that can be mapped safely.
    Foreign {
        /// What was found, or what it lacks.
        found: &'static str,
    },
    /// An access reaches beyond the end of the segment.
    OutOfBounds {
        /// Where the access starts, in bytes from the start of the segment.
        offset: usize,
        /// How many bytes it covers.
        len: usize,
        /// The size of the segment, in bytes.
        size: usize,
    },
    /// The memory does not have the alignment that the type needs.
    Misaligned {
        /// The alignment needed, in bytes.
        align: usize,
    },
    /// The bytes in the segment are not a value of the type asked for.
    #[cfg(feature = "zerocopy")]
    InvalidValue,
    /// A variable of the environment is missing or cannot be used.
    #[cfg(feature = "std")]
    Environment {
        /// The name of the variable.
        name: alloc::string::String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The service, or its address, is not what it should be.
    #[cfg(feature = "std")]
    Service {
        /// The path that it is about.
        address: alloc::string::String,
        /// What is wrong.
        problem: &'static str,
    },
    /// Another thread has announced a `fork()` ([`pre_fork`](crate::ShMemProvider::pre_fork)), and has
    /// not gone on to [`post_fork`](crate::ShMemProvider::post_fork) for ten seconds.
    #[cfg(feature = "std")]
    ForkPending,
    /// This system, or the state it is in, has no way to do it.
    Unsupported {
        /// What is missing.
        what: &'static str,
    },
}

/// What a refused call was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subject {
    /// Nothing that needs saying.
    Nothing,
    /// A segment of this size, in bytes.
    Bytes(usize),
    /// The segment of this id.
    Id(ShMemId),
}

impl Error {
    /// The error number of the refused call, if a refused call is what this error is about.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Os { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Os {
                call,
                errno,
                subject,
                limit,
            } => {
                write!(f, "{call}{subject}: ")?;
                describe(f, *errno)?;
                limit.map_or(Ok(()), |limit| write!(f, "; {limit}"))
            }
            Self::InvalidSize { size: 0 } => f.write_str("a segment cannot have zero bytes"),
            Self::InvalidSize { size } => {
                write!(
                    f,
                    "a segment cannot have {size} bytes: the most is {}",
                    isize::MAX
                )
            }
            Self::TooLarge { asked, actual } => write!(
                f,
                "{asked} bytes were asked for, but the segment has {actual}; ask for less, or \
                 attach without a size to get all of it"
            ),
            Self::InvalidId { id, problem } => write!(f, "id {id:?} names no segment: {problem}"),
            Self::Gone { id } => write!(f, "no process holds segment {id} any more"),
            Self::OtherUser { owner } => {
                f.write_str("the id belongs to a process of another user")?;
                owner.map_or(Ok(()), |uid| write!(f, " (uid {uid})"))?;
                f.write_str(
                    ", or to one that hides its descriptors (PR_SET_DUMPABLE, more privileges); \
                     segments are shared within one user: run both processes as the same one",
                )
            }
            Self::Foreign { found } => {
                write!(
                    f,
                    "what the id names is not a segment that is safe to map: {found}"
                )
            }
            Self::OutOfBounds { offset, len, size } => {
                write!(
                    f,
                    "{len} bytes at offset {offset} reach beyond the segment's {size} bytes"
                )
            }
            Self::Misaligned { align } => {
                write!(
                    f,
                    "the address is not a multiple of {align}, which the type needs"
                )
            }
            #[cfg(feature = "zerocopy")]
            Self::InvalidValue => f.write_str("the bytes in the segment are no value of the type"),
            #[cfg(feature = "std")]
            Self::Environment { name, problem } => {
                write!(f, "environment variable {name:?}: {problem}")
            }
            #[cfg(feature = "std")]
            Self::Service { address, problem } => {
                write!(f, "the service at {address:?}: {problem}")
            }
            #[cfg(feature = "std")]
            Self::ForkPending => f.write_str(
                "another thread has called pre_fork, and for ten seconds neither post_fork nor \
                 anything else of this provider; it has to call post_fork after fork(), on both \
                 sides, even if fork() failed",
            ),
            Self::Unsupported { what } => f.write_str(what),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::Bytes(size) => write!(f, " ({size} bytes)"),
            Self::Id(id) => write!(f, " (id {id})"),
        }
    }
}

impl core::error::Error for Error {}

/// The system's own words for an error number, where they can be had.
fn describe(f: &mut fmt::Formatter<'_>, errno: i32) -> fmt::Result {
    #[cfg(feature = "std")]
    return write!(f, "{}", std::io::Error::from_raw_os_error(errno));
    #[cfg(not(feature = "std"))]
    return write!(f, "os error {errno}");
}

/// Keeps the text, and the kind that the standard library gives to the same failure.
#[cfg(feature = "std")]
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        use std::io::ErrorKind;
        let kind = match &error {
            Error::Os { errno, .. } => std::io::Error::from_raw_os_error(*errno).kind(),
            Error::Gone { .. } => ErrorKind::NotFound,
            Error::OtherUser { .. } => ErrorKind::PermissionDenied,
            Error::Unsupported { .. } => ErrorKind::Unsupported,
            Error::Foreign { .. } => ErrorKind::InvalidData,
            Error::Service { .. } => ErrorKind::NotConnected,
            Error::ForkPending => ErrorKind::TimedOut,
            #[cfg(feature = "zerocopy")]
            Error::InvalidValue => ErrorKind::InvalidData,
            Error::InvalidSize { .. }
            | Error::TooLarge { .. }
            | Error::InvalidId { .. }
            | Error::OutOfBounds { .. }
            | Error::Misaligned { .. }
            | Error::Environment { .. } => ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}
