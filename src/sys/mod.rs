//! What the mechanisms of one family of systems share. Which family it is, says this table.
//!
//! Together with the two tables of mechanisms (`providers/mod.rs`, `defaults.rs`) this folder is
//! where code may ask which system it is on.

pub(crate) mod futex;
#[cfg(any(target_os = "android", target_os = "linux"))]
mod linux;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) use self::linux::*;
#[cfg(unix)]
pub(crate) use self::unix::*;
#[cfg(windows)]
pub(crate) use self::windows::*;
use crate::error::{Error, Result, Subject};

/// Fills the buffer with random bytes, fit for what others shall not guess.
pub(crate) fn random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| Error::Os {
        call: "getrandom",
        errno: error.raw_os_error().unwrap_or(0),
        subject: Subject::Nothing,
        limit: None,
    })
}
