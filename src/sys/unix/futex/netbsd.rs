//! `__futex(2)`, without `FUTEX_PRIVATE_FLAG`, from NetBSD 10 on.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};
use core::time::Duration;

use libc::c_int;
use rustix::io::Errno;
use rustix::system::uname;

use crate::sys::last_errno;

pub(super) const WAIT: &str = "__futex(FUTEX_WAIT)";
pub(super) const WAKE: &str = "__futex(FUTEX_WAKE)";

/// The longest wait of one call.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);

/// The number of the call (`sys/syscall.h`), which libc lacks.
const SYS_FUTEX: c_int = 166;

/// The first version with the call. Earlier ones end a process that makes it, by SIGSYS.
const FIRST: u32 = 10;

/// Returns `true` if this version of the system has the call.
pub(crate) fn is_native() -> bool {
    const UNKNOWN: u8 = 2;
    static KNOWN: AtomicU8 = AtomicU8::new(UNKNOWN);

    match KNOWN.load(Relaxed) {
        UNKNOWN => {
            let has_call = has_call(uname().release().to_bytes());
            KNOWN.store(u8::from(has_call), Relaxed);
            has_call
        }
        known => known == 1,
    }
}

/// Returns `true` if a release has the call: `10.1_STABLE`, for example.
fn has_call(release: &[u8]) -> bool {
    let digits = release.iter().take_while(|byte| byte.is_ascii_digit());
    let major = digits.fold(0_u32, |major, digit| {
        major
            .saturating_mul(10)
            .saturating_add(u32::from(digit - b'0'))
    });
    major >= FIRST
}

pub(super) fn wait(word: &AtomicU32, value: u32, time: Duration) -> Result<(), Errno> {
    let time = super::timespec(time);
    call(
        word,
        libc::FUTEX_WAIT,
        super::signed(value),
        &raw const time,
    )
    .map(|_| ())
}

pub(super) fn wake(word: &AtomicU32, most: u32) -> Result<usize, Errno> {
    let most = c_int::try_from(most).unwrap_or(c_int::MAX);
    call(word, libc::FUTEX_WAKE, most, ptr::null())
}

/// `time` is null or points to a valid value.
fn call(
    word: &AtomicU32,
    operation: c_int,
    value: c_int,
    time: *const libc::timespec,
) -> Result<usize, Errno> {
    let second = ptr::null_mut::<u32>();
    // SAFETY: the word is valid, the kernel only compares it, and the caller passes a valid time or null. The
    // other three arguments are not used by these operations.
    let result = unsafe {
        libc::syscall(
            SYS_FUTEX,
            word.as_ptr(),
            operation,
            value,
            time,
            second,
            0 as c_int,
            0 as c_int,
        )
    };
    usize::try_from(result).map_err(|_| last_errno())
}
