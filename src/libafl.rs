//! Converts [`Error`] to the error of LibAFL, which the traits of the package in `libafl/` return.

#[cfg(feature = "alloc")]
use alloc::string::{String, ToString};

use crate::error::{Error, ErrorKind};

/// Keeps the error number, which their error can contain, and the message.
impl From<Error> for libafl_core::Error {
    fn from(error: Error) -> Self {
        let text = text(&error);
        #[cfg(feature = "std")]
        if let Error::Os { errno, .. } = error {
            return Self::os_error(std::io::Error::from_raw_os_error(errno), text);
        }
        match error.kind() {
            ErrorKind::Os
            | ErrorKind::LimitReached
            | ErrorKind::PermissionDenied
            | ErrorKind::AlreadyExists => Self::unknown(text),
            ErrorKind::Environment => Self::empty(text),
            ErrorKind::Service
            | ErrorKind::ForkPending
            | ErrorKind::InvalidValue
            | ErrorKind::Corrupt
            | ErrorKind::NameBusy
            | ErrorKind::NameDirectory
            | ErrorKind::Lapped => Self::illegal_state(text),
            ErrorKind::Gone | ErrorKind::NotFound | ErrorKind::NotServed => {
                Self::key_not_found(text)
            }
            ErrorKind::Unsupported => Self::unsupported(text),
            ErrorKind::InvalidSize
            | ErrorKind::TooLarge
            | ErrorKind::InvalidId
            | ErrorKind::Released
            | ErrorKind::Denied
            | ErrorKind::OtherUser
            | ErrorKind::Foreign
            | ErrorKind::OutOfBounds
            | ErrorKind::Misaligned
            | ErrorKind::InvalidName
            | ErrorKind::WrongType => Self::illegal_argument(text),
        }
    }
}

#[cfg(feature = "alloc")]
fn text(error: &Error) -> String {
    error.to_string()
}

/// Without an allocator, the errors of LibAFL contain static text only.
#[cfg(not(feature = "alloc"))]
fn text(error: &Error) -> &'static str {
    match error {
        Error::Os { call, .. } => call,
        Error::InvalidId { problem, .. } => problem,
        Error::Foreign { found } => found,
        Error::Unsupported { what } => what,
        Error::Gone { .. } => "no process of this user holds the segment",
        Error::Released { .. } => "this process has released the segment",
        Error::NotFound { .. } => {
            "no holder of the segment was found, but some processes could not be searched"
        }
        Error::Denied { .. } => {
            "the process that the id names does not let this process open its descriptors"
        }
        Error::OtherUser { .. } => "the segment belongs to another user",
        Error::InvalidSize { .. } => "no segment can have this size",
        Error::TooLarge { .. } => "the segment is smaller than asked for",
        Error::NotReserved { .. } => "the segment cannot grow that far",
        Error::OutOfBounds { .. } => "the access reaches beyond the end of the segment",
        Error::Misaligned { .. } => "the memory does not have the alignment that the type needs",
        Error::WrongType { .. } => "the segment does not contain a value of this type",
        Error::Corrupt { what } => what,
        Error::Lapped { .. } => "values were published faster than one could be copied",
        Error::RingTooLarge { .. } => "no ring can have this capacity",
        Error::MessageTooLong { .. } => "the message does not fit",
        #[cfg(feature = "zerocopy")]
        Error::InvalidValue => "the bytes in the segment are not a valid value of the type",
    }
}
