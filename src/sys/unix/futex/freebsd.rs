//! `_umtx_op(2)`, with the operations that find the word by its memory object if its mapping is shared.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::AtomicU32;
use core::time::Duration;

use libc::{c_ulong, c_void};
use rustix::io::Errno;

use crate::sys::last_errno;

pub(super) const WAIT: &str = "_umtx_op(UMTX_OP_WAIT_UINT)";
pub(super) const WAKE: &str = "_umtx_op(UMTX_OP_WAKE)";

/// The longest wait of one call.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);

/// Returns `true`: every supported version has the call.
pub(crate) fn is_native() -> bool {
    true
}

pub(super) fn wait(word: &AtomicU32, value: u32, time: Duration) -> Result<(), Errno> {
    let mut time = libc::_umtx_time {
        _timeout: super::timespec(time),
        _flags: 0, // relative
        _clockid: libc::CLOCK_MONOTONIC.try_into().unwrap_or(0),
    };
    let size = ptr::without_provenance_mut::<c_void>(size_of::<libc::_umtx_time>());
    // SAFETY: the word is valid, and the kernel only compares it. The last argument points to a local value
    // of the size that the one before states.
    let result = unsafe {
        libc::_umtx_op(
            word.as_ptr().cast(),
            libc::UMTX_OP_WAIT_UINT,
            c_ulong::from(value),
            size,
            (&raw mut time).cast(),
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// Returns 0: the system does not report how many were woken.
pub(super) fn wake(word: &AtomicU32, most: u32) -> Result<usize, Errno> {
    let none = ptr::null_mut();
    // SAFETY: the word is valid, and the kernel only uses its address.
    let result = unsafe {
        libc::_umtx_op(
            word.as_ptr().cast(),
            libc::UMTX_OP_WAKE,
            c_ulong::from(most),
            none,
            none,
        )
    };
    match result {
        0 => Ok(0),
        _ => Err(last_errno()),
    }
}
