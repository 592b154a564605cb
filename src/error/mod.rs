//! [`Error`], which keeps the call, the error number and the limit that was reached, and [`ErrorKind`],
//! by which programs tell errors apart.

pub(crate) mod kind;
pub(crate) mod limit;
pub(crate) mod search;
#[cfg(feature = "std")]
pub(crate) mod service;

use core::fmt;

pub use self::kind::ErrorKind;
pub use self::limit::Limit;
pub use self::search::{Denial, Search};
#[cfg(feature = "std")]
pub use self::service::{AddressOrigin, PathOwner, RejectedDirectory, ServiceError};
use crate::error::search::CURES;
use crate::id::ShMemId;
use crate::id::kind::IdKind;

/// The result of the functions of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Why a segment could not be created, opened or accessed.
///
/// [`Display`](fmt::Display) tells which call failed on what, the error number, the limit that was reached
/// and its value at that moment, and what to do about it. [`Debug`](fmt::Debug) prints the same, so that a
/// `main` that returns an error ends with a readable message. Programs use [`kind`](Self::kind).
#[derive(Clone, PartialEq, Eq)]
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
    /// The id is well-formed, and nothing on this system that this process can name has it: no
    /// process of this user holds the segment.
    ///
    /// Where that is not known, the error is [`NotFound`](Self::NotFound).
    Gone {
        /// The id.
        id: ShMemId,
    },
    /// The id is well-formed, and no holder of its segment was found, but some processes could not be
    /// looked into.
    NotFound {
        /// The id.
        id: ShMemId,
        /// What was looked at, and what was not.
        search: Search,
    },
    /// This process has released the segment; others may hold it.
    Released {
        /// The id.
        id: ShMemId,
    },
    /// The service at this address knows no holder of the segment.
    #[cfg(feature = "std")]
    NotServed {
        /// The id.
        id: ShMemId,
        /// The path of the service's socket.
        address: alloc::string::String,
    },
    /// The process that the id names belongs to this user, but does not let this process open its
    /// descriptors.
    Denied {
        /// The id.
        id: ShMemId,
        /// The number of the process in `/proc`.
        process: u32,
        /// Why, as far as can be seen.
        reason: Denial,
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
    /// What a variable of the environment names could not be attached to.
    #[cfg(feature = "std")]
    FromEnvironment {
        /// The name of the variable.
        name: alloc::string::String,
        /// Why.
        error: alloc::boxed::Box<Self>,
    },
    /// The service, or its address, is not what it should be.
    #[cfg(feature = "std")]
    Service {
        /// The path of its socket. If no directory can be used, the first one that was tried.
        address: alloc::string::String,
        /// Where the address comes from.
        origin: AddressOrigin,
        /// What is wrong.
        reason: ServiceError,
        /// The error number, if the system refused a call.
        errno: Option<i32>,
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
            #[cfg(feature = "std")]
            Self::Service { errno, .. } => *errno,
            #[cfg(feature = "std")]
            Self::FromEnvironment { error, .. } => error.raw_os_error(),
            _ => None,
        }
    }

    /// Returns `true` if the id is well-formed and no holder of its segment was found, whether or not
    /// it is known that there is none.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Gone { .. } | Self::NotFound { .. } => true,
            #[cfg(feature = "std")]
            Self::NotServed { .. } => true,
            #[cfg(feature = "std")]
            Self::FromEnvironment { error, .. } => error.is_not_found(),
            _ => false,
        }
    }
}

impl fmt::Display for Error {
    #[expect(clippy::too_many_lines, reason = "one sentence for each error")]
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
            Self::Gone { id } => gone(f, id),
            Self::NotFound { id, search } => {
                write!(
                    f,
                    "no holder of segment {} was found: {search}",
                    Escaped(id)
                )
            }
            Self::Released { id } => {
                write!(f, "this process has released segment {}", Escaped(id))
            }
            #[cfg(feature = "std")]
            Self::NotServed { id, address } => write!(
                f,
                "the service at {address:?} knows no holder of segment {}: its last holder is \
                 gone, or it was made at another address (set SHMEM_SERVICE to the same path on \
                 both sides)",
                Escaped(id)
            ),
            Self::Denied {
                id,
                process,
                reason,
            } => write!(
                f,
                "process {process} of this user, which the id {} names, does not let this process \
                 open its descriptors: {reason}. Otherwise, {CURES}",
                Escaped(id)
            ),
            Self::OtherUser { owner } => {
                f.write_str("the id leads to what belongs to another user")?;
                owner.map_or(Ok(()), |uid| write!(f, " (uid {uid})"))?;
                f.write_str(
                    "; segments are shared within one user: run both processes as the same one",
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
            Self::FromEnvironment { name, error } => {
                write!(f, "environment variable {name:?}: {error}")
            }
            #[cfg(feature = "std")]
            Self::Service {
                address,
                origin,
                reason,
                errno,
            } => service::write(f, address, *origin, reason, *errno),
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
            Self::Id(id) => write!(f, " (id {})", Escaped(id)),
        }
    }
}

/// Says that nothing has the id, as far as its kind reaches.
fn gone(f: &mut fmt::Formatter<'_>, id: &ShMemId) -> fmt::Result {
    let escaped = Escaped(id);
    match id.kind() {
        IdKind::SystemV { .. } => write!(
            f,
            "no System V segment has the number {escaped} in this IPC namespace: its last holder is \
             gone, or it was made in another IPC namespace (container)"
        ),
        IdKind::Posix => write!(
            f,
            "no POSIX segment has the name {escaped} here: its creator has removed it, it was never \
             made, or it was made where another /dev/shm is mounted (container)"
        ),
        IdKind::Section => write!(
            f,
            "no process of this session holds segment {escaped}: its last holder is gone, or it was \
             made in another session"
        ),
        _ => write!(f, "no process of this user holds segment {escaped}"),
    }
}

/// An id in a message: what could act on a terminal is escaped.
struct Escaped<'a>(&'a ShMemId);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.as_str().escape_debug(), f)
    }
}

/// The text of [`Display`](fmt::Display); with `{:#?}` also the [kind](Error::kind).
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            f.debug_struct("Error")
                .field("kind", &self.kind())
                .field("message", &format_args!("{self}"))
                .finish()
        } else {
            fmt::Display::fmt(self, f)
        }
    }
}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            #[cfg(feature = "std")]
            Self::FromEnvironment { error, .. } => Some(&**error),
            _ => None,
        }
    }
}

/// The system's own words for an error number, where they can be had.
fn describe(f: &mut fmt::Formatter<'_>, errno: i32) -> fmt::Result {
    #[cfg(feature = "std")]
    return write!(f, "{}", std::io::Error::from_raw_os_error(errno));
    #[cfg(not(feature = "std"))]
    return write!(f, "os error {errno}");
}

/// Keeps the error, with the kind that the standard library gives to the same failure.
#[cfg(feature = "std")]
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.raw_os_error() {
            Some(errno) => Self::from_raw_os_error(errno).kind(),
            None => error.kind().io_kind(),
        };
        Self::new(kind, error)
    }
}
