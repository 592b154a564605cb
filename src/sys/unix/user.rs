//! Who this process acts for.
#![allow(unsafe_code)]

use rustix::process::geteuid;

use crate::error::{Error, Result};

/// An error for what belongs to another user.
pub(crate) fn check_owner(uid: u32) -> Result<()> {
    if is_me(uid) {
        Ok(())
    } else {
        Err(Error::OtherUser { owner: Some(uid) })
    }
}

/// Whether `uid` is the user this process acts for, or, on Linux, the one it was started for.
///
/// The second is known without a system call, and is as trustworthy: it started this process.
pub(crate) fn is_me(uid: u32) -> bool {
    started_for() == Some(uid) || geteuid().as_raw() == uid
}

/// The effective user when the program was loaded, as the kernel left it in the auxiliary vector
/// (`getauxval(3)`).
#[cfg(target_os = "linux")]
fn started_for() -> Option<u32> {
    // SAFETY: the function reads memory that is never written, and has no preconditions.
    let user = unsafe { libc::getauxval(libc::AT_EUID) };
    #[allow(clippy::useless_conversion, reason = "the type is narrower on 32 bits")]
    u32::try_from(user).ok()
}

#[cfg(not(target_os = "linux"))]
fn started_for() -> Option<u32> {
    None
}
