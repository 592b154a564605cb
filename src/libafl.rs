//! [`Error`] as LibAFL's error: for the package in `libafl/`, which turns this feature on.
//!
//! LibAFL's crates return `libafl_core::Error` everywhere and put ours, unconverted, into the same
//! `Result`. So there the type has to be theirs; inside of this crate it stays the enum.

#[cfg(feature = "alloc")]
use alloc::string::{String, ToString};

use crate::error::Error;

/// Keeps the errno, which theirs can hold, and our text with the limit and the cure.
impl From<Error> for libafl_core::Error {
    fn from(error: Error) -> Self {
        let text = text(&error);
        match error {
            #[cfg(feature = "std")]
            Error::Os { errno, .. } => {
                Self::os_error(std::io::Error::from_raw_os_error(errno), text)
            }
            #[cfg(not(feature = "std"))]
            Error::Os { .. } => Self::unknown(text),
            #[cfg(feature = "std")]
            Error::Environment { .. } | Error::FromEnvironment { .. } => Self::empty(text),
            #[cfg(feature = "std")]
            Error::Service { .. } | Error::ForkPending => Self::illegal_state(text),
            #[cfg(feature = "zerocopy")]
            Error::InvalidValue => Self::illegal_state(text),
            #[cfg(feature = "std")]
            Error::NotServed { .. } => Self::key_not_found(text),
            Error::Gone { .. } | Error::NotFound { .. } => Self::key_not_found(text),
            Error::Unsupported { .. } => Self::unsupported(text),
            Error::InvalidSize { .. }
            | Error::TooLarge { .. }
            | Error::InvalidId { .. }
            | Error::Released { .. }
            | Error::Denied { .. }
            | Error::OtherUser { .. }
            | Error::Foreign { .. }
            | Error::OutOfBounds { .. }
            | Error::Misaligned { .. } => Self::illegal_argument(text),
        }
    }
}

#[cfg(feature = "alloc")]
fn text(error: &Error) -> String {
    error.to_string()
}

/// Where nothing can be allocated, LibAFL's errors hold text that is written in the program.
#[cfg(not(feature = "alloc"))]
fn text(error: &Error) -> &'static str {
    match error {
        Error::Os { call, .. } => call,
        Error::InvalidId { problem, .. } => problem,
        Error::Foreign { found } => found,
        Error::Unsupported { what } => what,
        Error::Gone { .. } => "no process of this user holds the segment",
        Error::Released { .. } => "this process has released the segment",
        Error::NotFound { .. } => "no holder of the segment was found, but not all could be seen",
        Error::Denied { .. } => {
            "the process that the id names does not let this one open its descriptors"
        }
        Error::OtherUser { .. } => "the segment belongs to another user",
        Error::InvalidSize { .. } => "no segment can have this size",
        Error::TooLarge { .. } => "the segment has fewer bytes than were asked for",
        Error::OutOfBounds { .. } => "the access reaches beyond the end of the segment",
        Error::Misaligned { .. } => "the memory is not aligned as the type needs it",
        #[cfg(feature = "zerocopy")]
        Error::InvalidValue => "the bytes in the segment are no value of the type",
    }
}
