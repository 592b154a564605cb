//! Waiting for a word to change, across processes, on Apple's systems and the BSDs.
//!
//! Each file is about one system. Where an old version of it lacks the call, waiting polls.

#[cfg(target_vendor = "apple")]
#[path = "apple.rs"]
mod system;
#[cfg(target_os = "dragonfly")]
#[path = "dragonfly.rs"]
mod system;
#[cfg(target_os = "freebsd")]
#[path = "freebsd.rs"]
mod system;
#[cfg(target_os = "netbsd")]
#[path = "netbsd.rs"]
mod system;
#[cfg(target_os = "openbsd")]
#[path = "openbsd.rs"]
mod system;

use core::sync::atomic::AtomicU32;

use rustix::io::Errno;

pub(crate) use self::system::is_native;
use crate::error::{Result, Subject};
pub(crate) use crate::sys::polling::{Deadline, after, sleep_while_all};
use crate::sys::{failed, polling};

/// Blocks while the word has this value. Returns `false` if the deadline has passed. May also
/// return `true` spuriously.
pub(crate) fn sleep_while(
    word: &AtomicU32,
    value: u32,
    deadline: Option<&Deadline>,
) -> Result<bool> {
    if !is_native() {
        return polling::sleep_while(word, value, deadline);
    }
    // The systems take the time that is left. If it ends, the next call returns `false`.
    let Some(time) = polling::left(deadline, system::LONGEST) else {
        return Ok(false);
    };
    match system::wait(word, value, time) {
        // EAGAIN, and EBUSY on DragonFly: the word had another value already, or, on DragonFly, the time is
        // up. EINTR, and ECANCELED on OpenBSD: a signal arrived.
        Ok(())
        | Err(Errno::AGAIN | Errno::BUSY | Errno::CANCELED | Errno::INTR | Errno::TIMEDOUT) => {
            Ok(true)
        }
        Err(errno) => Err(failed(system::WAIT, errno, Subject::Nothing)),
    }
}

/// Wakes at most `most` waiters, and returns how many were woken, as far as the system reports it.
pub(crate) fn wake(word: &AtomicU32, most: u32) -> Result<usize> {
    if !is_native() {
        return polling::wake(word, most);
    }
    system::wake(word, most).map_err(|errno| failed(system::WAKE, errno, Subject::Nothing))
}

/// Converts a time that is at most `LONGEST`.
#[cfg(any(target_os = "freebsd", target_os = "netbsd", target_os = "openbsd"))]
#[allow(
    clippy::unnecessary_fallible_conversions,
    reason = "the fields are narrower on 32-bit systems"
)]
fn timespec(time: core::time::Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: time.as_secs().try_into().unwrap_or(1),
        tv_nsec: time.subsec_nanos().try_into().unwrap_or(0),
    }
}

/// Returns the same bits, for a call that declares the word as signed.
#[cfg(any(target_os = "dragonfly", target_os = "netbsd", target_os = "openbsd"))]
fn signed(value: u32) -> libc::c_int {
    libc::c_int::from_ne_bytes(value.to_ne_bytes())
}
