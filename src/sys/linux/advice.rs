//! Whether `madvise(2)` does what it says.
#![allow(unsafe_code)]

use core::ptr;
use core::sync::atomic::AtomicU8;
use core::sync::atomic::Ordering::Relaxed;

/// No advice has this number.
const NONE: i32 = -1;

/// Whether advice is followed or refused, as the kernel does. An emulator of another machine may take
/// it all for hints, and report success for what it ignores, as `qemu-user` 7.2 does: then it also does
/// for advice that does not exist. Asked once; a forked child need not know better.
pub(crate) fn advice_is_heeded() -> bool {
    const UNKNOWN: u8 = 0;
    const HEEDED: u8 = 1;
    const IGNORED: u8 = 2;
    static ANSWER: AtomicU8 = AtomicU8::new(UNKNOWN);

    match ANSWER.load(Relaxed) {
        UNKNOWN => {
            // SAFETY: no byte is concerned, whatever the advice.
            let ignored = unsafe { libc::madvise(ptr::null_mut(), 0, NONE) } == 0;
            ANSWER.store(if ignored { IGNORED } else { HEEDED }, Relaxed);
            !ignored
        }
        answer => answer == HEEDED,
    }
}
