//! Whether `madvise(2)` has an effect.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::AtomicU8;
use core::sync::atomic::Ordering::Relaxed;

/// An advice value that does not exist.
const INVALID: i32 = -1;

/// Returns `true` if the system follows advice or rejects it, as the kernel does.
///
/// Emulators of other machines may ignore all advice and report success, as `qemu-user` 7.2 does.
/// This is detected by an invalid advice value, which the kernel rejects. The answer is cached; it
/// is the same in a forked child.
pub(crate) fn advice_is_heeded() -> bool {
    const UNKNOWN: u8 = 0;
    const HEEDED: u8 = 1;
    const IGNORED: u8 = 2;
    static ANSWER: AtomicU8 = AtomicU8::new(UNKNOWN);

    match ANSWER.load(Relaxed) {
        UNKNOWN => {
            // SAFETY: the range is empty, so no memory is affected, whatever the advice.
            let ignored = unsafe { libc::madvise(ptr::null_mut(), 0, INVALID) } == 0;
            ANSWER.store(if ignored { IGNORED } else { HEEDED }, Relaxed);
            !ignored
        }
        answer => answer == HEEDED,
    }
}
