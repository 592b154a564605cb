//! [`Error`], which contains the call, the error number and the limit that was reached, and
//! [`ErrorKind`], by which programs tell errors apart.

pub(crate) mod kind;
pub(crate) mod limit;
mod message;
mod mismatch;
#[cfg(feature = "std")]
pub(crate) mod named;
pub(crate) mod search;
#[cfg(feature = "std")]
pub(crate) mod service;

pub use self::kind::ErrorKind;
pub use self::limit::Limit;
pub use self::mismatch::TypeMismatch;
#[cfg(feature = "std")]
pub use self::named::NamedError;
pub use self::search::{Denial, Search};
#[cfg(feature = "std")]
pub use self::service::{AddressOrigin, PathOwner, RejectedDirectory, ServiceError};
use crate::id::ShMemId;

/// The result of the functions of this crate.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Why a segment could not be created, opened or accessed.
///
/// [`Display`](core::fmt::Display) prints which call failed on what, the error number, the limit that
/// was reached and its value at that moment, and what to do about it. [`Debug`](core::fmt::Debug)
/// prints the same, so that a `main` that returns an error ends with a readable message. Programs use
/// [`kind`](Self::kind).
///
/// # Examples
///
/// ```
/// # #[cfg(target_os = "linux")] {
/// use shmem_providers::{Error, ErrorKind, ShMem, ShMemProvider, StdShMemProvider};
///
/// let mut provider = StdShMemProvider::new()?;
/// let segment = provider.new_shmem(4096)?;
/// let error = provider.shmem_from_id_and_size(segment.id(), 8192).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::TooLarge);
/// assert!(matches!(error, Error::TooLarge { asked: 8192, actual: 4096 }));
/// # }
/// # Ok::<(), shmem_providers::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a call.
    Os {
        /// The call, as its manual page names it: `memfd_create`, `shmget`, `mmap`, …
        call: &'static str,
        /// The error number that it set.
        errno: i32,
        /// What it was called on.
        subject: Subject,
        /// The limit that caused the refusal, if it is known.
        limit: Option<Limit>,
    },
    /// No segment can have this size: it is zero, or larger than `isize::MAX`.
    InvalidSize {
        /// The size asked for, in bytes.
        size: usize,
    },
    /// The segment is smaller than asked for.
    TooLarge {
        /// The size asked for, in bytes.
        asked: usize,
        /// The size of the segment according to the operating system, in bytes.
        actual: usize,
    },
    /// The segment cannot grow to the size asked for.
    NotReserved {
        /// The size asked for, in bytes.
        asked: usize,
        /// The size to which it can grow, in bytes.
        reserved: usize,
    },
    /// No segment can have this id.
    InvalidId {
        /// The id.
        id: ShMemId,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The id is valid, and no process of this user holds a segment with this id, as far as ids of
    /// its kind reach (this IPC namespace, this `/dev/shm`, this session).
    ///
    /// If some processes could not be searched, the error is [`NotFound`](Self::NotFound) instead.
    Gone {
        /// The id.
        id: ShMemId,
    },
    /// The id is valid, and no holder of the segment was found, but some processes could not be
    /// searched.
    NotFound {
        /// The id.
        id: ShMemId,
        /// What was searched, and what was not.
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
        /// The reason, as far as it is known.
        reason: Denial,
    },
    /// No doorbell ([`Doorbell`](crate::sync::Doorbell)) can be opened where its id says: the process has ended or
    /// dropped it, or does not let this process look.
    #[cfg(feature = "std")]
    NoDoorbell {
        /// The number of the process in `/proc`.
        process: u32,
        /// Why the process does not let this one open its descriptors, if that is the reason.
        denial: Option<Denial>,
    },
    /// The segment, or the process that the id names, belongs to another user.
    OtherUser {
        /// The user id of the owner, if the operating system reports it.
        owner: Option<u32>,
    },
    /// The id or descriptor leads to something that cannot be mapped safely.
    Foreign {
        /// What it is, or what it lacks.
        found: &'static str,
    },
    /// An access reaches beyond the end of the segment.
    OutOfBounds {
        /// Where the access starts, in bytes from the start of the segment.
        offset: usize,
        /// The number of bytes accessed.
        len: usize,
        /// The size of the segment, in bytes.
        size: usize,
    },
    /// The memory does not have the alignment that the type needs.
    Misaligned {
        /// The alignment needed, in bytes.
        align: usize,
    },
    /// The segment does not contain a [`Typed`](crate::Typed) value of the type asked for.
    WrongType {
        /// The id of the segment.
        id: ShMemId,
        /// How it differs.
        mismatch: TypeMismatch,
    },
    /// A process has overwritten words of a [`channel`](crate::channel) that only this crate writes, or a ring had
    /// two writers or two readers.
    Corrupt {
        /// What is wrong.
        what: &'static str,
    },
    /// Values were published faster than one of them could be copied.
    Lapped {
        /// How often it was attempted.
        attempts: u32,
    },
    /// A ring cannot have this capacity.
    RingTooLarge {
        /// The capacity asked for, in bytes.
        capacity: usize,
        /// The largest one, in bytes.
        max: usize,
    },
    /// A message does not fit into the ring, into what was reserved for it, or into the buffer.
    MessageTooLong {
        /// Its length, in bytes.
        len: usize,
        /// The largest length, in bytes.
        max: usize,
    },
    /// The bytes in the segment are not a value of the type asked for.
    #[cfg(feature = "zerocopy")]
    InvalidValue,
    /// An environment variable is missing or invalid.
    #[cfg(feature = "std")]
    Environment {
        /// The name of the variable.
        name: alloc::string::String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The segment that an environment variable names could not be attached to.
    #[cfg(feature = "std")]
    FromEnvironment {
        /// The name of the variable.
        name: alloc::string::String,
        /// The reason.
        error: alloc::boxed::Box<Self>,
        /// Why the descriptor that was [inherited](crate::ShMem::inherit) could not be used instead,
        /// if the environment names one.
        inherited: Option<alloc::boxed::Box<Self>>,
    },
    /// The service, or its address, is unusable.
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
    /// The directory of segments in files cannot be used: another user could replace or read what it
    /// contains.
    #[cfg(feature = "std")]
    Directory {
        /// Its path, or that of a directory or symbolic link on the way to it.
        path: alloc::string::String,
        /// What is wrong with it.
        problem: &'static str,
        /// The user id of its owner, if that is another user.
        owner: Option<u32>,
    },
    /// A name, or the directory of names, is unusable.
    #[cfg(feature = "std")]
    Named {
        /// The name, or nothing if the error is about all names.
        name: alloc::string::String,
        /// What is wrong.
        reason: NamedError,
    },
    /// All slots of a [`sync::Slots`](crate::sync::Slots) are taken by living participants.
    #[cfg(feature = "std")]
    NoSlot {
        /// The number of slots.
        slots: usize,
    },
    /// Another thread announced a `fork()` with [`pre_fork`](crate::ShMemProvider::pre_fork), and
    /// did not call [`post_fork`](crate::ShMemProvider::post_fork) within ten seconds.
    #[cfg(feature = "std")]
    ForkPending,
    /// This system, or the state that it is in, cannot do this.
    Unsupported {
        /// What is missing.
        what: &'static str,
    },
}

/// What a refused call was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subject {
    /// Nothing in particular.
    Nothing,
    /// A segment of this size, in bytes.
    Bytes(usize),
    /// The segment of this id.
    Id(ShMemId),
}

impl Error {
    /// Returns the error number of the refused call, if the error is about a refused call.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Os { errno, .. } => Some(*errno),
            #[cfg(feature = "std")]
            Self::Service { errno, .. } => *errno,
            #[cfg(feature = "std")]
            Self::Named { reason, .. } => reason.errno(),
            #[cfg(feature = "std")]
            Self::FromEnvironment { error, .. } => error.raw_os_error(),
            _ => None,
        }
    }

    /// Returns `true` if the id, or the name, is valid and no holder of the segment, or no such doorbell, was found, whether or
    /// not all processes could be searched.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Gone { .. } | Self::NotFound { .. } => true,
            #[cfg(feature = "std")]
            Self::NotServed { .. } | Self::NoDoorbell { denial: None, .. } => true,
            #[cfg(feature = "std")]
            Self::Named { reason, .. } => *reason == NamedError::Unknown,
            #[cfg(feature = "std")]
            Self::FromEnvironment { error, .. } => error.is_not_found(),
            _ => false,
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

/// Contains the error, and has the kind that the standard library gives to the same failure.
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
