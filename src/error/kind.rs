//! [`ErrorKind`]: errors for programs, with stable numbers. The only table of them.

use core::fmt;

use crate::error::{Error, Limit};

/// Declares the kinds: for each its number, its name in C and Python, the kind of the standard library
/// that is closest, and what it means.
macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident = $code:literal, $name:literal, $io:ident;)+) => {
        /// What kind of [`Error`] it is: for programs, which cannot read the message.
        ///
        /// The numbers are stable: no kind ever changes its number, and new kinds get new ones. Other
        /// languages use the same numbers.
        ///
        /// # Examples
        ///
        /// ```
        /// use shmem_providers::{ErrorKind, ShMemProvider, StdShMemProvider};
        ///
        /// let error = StdShMemProvider::new()?.new_shmem(0).unwrap_err();
        /// assert_eq!(error.kind(), ErrorKind::InvalidSize);
        /// assert_eq!(ErrorKind::from_code(error.kind().code()), Some(ErrorKind::InvalidSize));
        /// # Ok::<(), shmem_providers::Error>(())
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(i32)]
        pub enum ErrorKind {
            $($(#[doc = $doc])+ $kind = $code,)+
        }

        impl ErrorKind {
            /// All kinds, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$kind),+];

            /// Returns the number of the kind, which is never 0.
            #[must_use]
            pub const fn code(self) -> i32 {
                match self {
                    $(Self::$kind => $code,)+
                }
            }

            /// Returns the kind with this number.
            #[must_use]
            pub const fn from_code(code: i32) -> Option<Self> {
                match code {
                    $($code => Some(Self::$kind),)+
                    _ => None,
                }
            }

            /// Returns the name of the kind in lower case, with underscores.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)+
                }
            }

            /// Returns the kind of the standard library that is closest.
            #[cfg(feature = "std")]
            pub(crate) fn io_kind(self) -> std::io::ErrorKind {
                match self {
                    $(Self::$kind => std::io::ErrorKind::$io,)+
                }
            }
        }
    };
}

kinds! {
    /// The operating system refused a call for a reason that is none of the others.
    Os = 1, "os", Other;
    /// A limit was reached, or memory, descriptors or space ran out.
    LimitReached = 2, "limit_reached", OutOfMemory;
    /// The operating system denied access.
    PermissionDenied = 3, "permission_denied", PermissionDenied;
    /// The name is taken.
    AlreadyExists = 4, "already_exists", AlreadyExists;
    /// No segment, and no ring, can have this size.
    InvalidSize = 5, "invalid_size", InvalidInput;
    /// The segment is smaller than asked for, or the message does not fit.
    TooLarge = 6, "too_large", InvalidInput;
    /// The id names no segment, whatever exists.
    InvalidId = 7, "invalid_id", InvalidInput;
    /// No process holds the segment any more.
    Gone = 8, "gone", NotFound;
    /// No holder of the segment was found, but not all processes could be searched.
    NotFound = 9, "not_found", NotFound;
    /// The service knows no holder of the segment.
    NotServed = 10, "not_served", NotFound;
    /// This process has released the segment.
    Released = 11, "released", InvalidInput;
    /// The process that the id names does not let this process open its descriptors.
    Denied = 12, "denied", PermissionDenied;
    /// The segment belongs to another user.
    OtherUser = 13, "other_user", PermissionDenied;
    /// The id or descriptor leads to something that cannot be mapped safely.
    Foreign = 14, "foreign", InvalidData;
    /// An access reaches beyond the end of the segment.
    OutOfBounds = 15, "out_of_bounds", InvalidInput;
    /// The memory does not have the alignment that the type needs.
    Misaligned = 16, "misaligned", InvalidInput;
    /// The bytes are not a value of the type.
    InvalidValue = 17, "invalid_value", InvalidData;
    /// An environment variable is missing or invalid.
    Environment = 18, "environment", InvalidInput;
    /// The service, or its address, is unusable.
    Service = 19, "service", NotConnected;
    /// Another thread has announced a `fork()` and not completed it.
    ForkPending = 20, "fork_pending", TimedOut;
    /// This system cannot do it.
    Unsupported = 21, "unsupported", Unsupported;
    /// The segment contains no value, or a value of another type.
    WrongType = 22, "wrong_type", InvalidData;
    /// No segment can have this name.
    InvalidName = 23, "invalid_name", InvalidInput;
    /// Another process has not finished initialising the segment of the name.
    NameBusy = 24, "name_busy", TimedOut;
    /// The directory of names, or the entry of the name, is unusable.
    NameDirectory = 25, "name_directory", Other;
    /// A process has overwritten words of a channel that only this crate writes.
    Corrupt = 26, "corrupt", InvalidData;
    /// Values were published faster than one of them could be copied.
    Lapped = 27, "lapped", ResourceBusy;
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Error {
    /// Returns the kind of the error.
    ///
    /// An error about an environment variable that names a segment has the kind of the reason why the
    /// segment could not be attached to.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Os { errno, limit, .. } => match limit {
                // Not a limit, but what stands in the way.
                None
                | Some(
                    Limit::DevShmMount { .. }
                    | Limit::Privilege { .. }
                    | Limit::Sandbox
                    | Limit::TemporaryDirectory { .. },
                ) => os_kind(*errno),
                Some(_) => ErrorKind::LimitReached,
            },
            Self::InvalidSize { .. } | Self::RingTooLarge { .. } => ErrorKind::InvalidSize,
            Self::TooLarge { .. } | Self::NotReserved { .. } | Self::MessageTooLong { .. } => {
                ErrorKind::TooLarge
            }
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::InvalidId { .. } => ErrorKind::InvalidId,
            Self::Gone { .. } => ErrorKind::Gone,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Released { .. } => ErrorKind::Released,
            Self::Denied { .. } => ErrorKind::Denied,
            Self::OtherUser { .. } => ErrorKind::OtherUser,
            Self::Foreign { .. } => ErrorKind::Foreign,
            Self::OutOfBounds { .. } => ErrorKind::OutOfBounds,
            Self::Misaligned { .. } => ErrorKind::Misaligned,
            Self::WrongType { .. } => ErrorKind::WrongType,
            Self::Lapped { .. } => ErrorKind::Lapped,
            #[cfg(feature = "zerocopy")]
            Self::InvalidValue => ErrorKind::InvalidValue,
            #[cfg(feature = "std")]
            Self::NoDoorbell { denial: None, .. } => ErrorKind::NotFound,
            #[cfg(feature = "std")]
            Self::NoDoorbell { .. } => ErrorKind::Denied,
            #[cfg(feature = "std")]
            Self::NotServed { .. } => ErrorKind::NotServed,
            #[cfg(feature = "std")]
            Self::Environment { .. } => ErrorKind::Environment,
            #[cfg(feature = "std")]
            Self::FromEnvironment { error, .. } => error.kind(),
            #[cfg(feature = "std")]
            Self::Service { .. } => ErrorKind::Service,
            #[cfg(feature = "std")]
            Self::Directory { owner: Some(_), .. } => ErrorKind::OtherUser,
            #[cfg(feature = "std")]
            Self::Directory { .. } => ErrorKind::PermissionDenied,
            #[cfg(feature = "std")]
            Self::Named { reason, .. } => reason.kind(),
            #[cfg(feature = "std")]
            Self::NoSlot { .. } => ErrorKind::LimitReached,
            #[cfg(feature = "std")]
            Self::ForkPending => ErrorKind::ForkPending,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
        }
    }
}

/// Returns the kind of a refused call behind which no limit was found.
#[cfg(feature = "std")]
pub(super) fn os_kind(errno: i32) -> ErrorKind {
    use std::io;

    match io::Error::from_raw_os_error(errno).kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        io::ErrorKind::OutOfMemory | io::ErrorKind::StorageFull => ErrorKind::LimitReached,
        _ => ErrorKind::Os,
    }
}

/// Without the standard library nothing tells what an error number means.
#[cfg(not(feature = "std"))]
fn os_kind(_errno: i32) -> ErrorKind {
    ErrorKind::Os
}
