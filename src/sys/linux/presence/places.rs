//! The descriptors of tokens, which forked children close.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::ffi::c_int;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicI32};

use alloc::boxed::Box;
use rustix::fd::{FromRawFd, IntoRawFd, OwnedFd};
use rustix::io::Errno;

use crate::error::{Result, Subject};
use crate::process::Published;
use crate::sys::failed;

/// A place for the descriptor of a token. Places are reused and never freed, so that the handler can
/// visit them in a child.
#[derive(Debug)]
pub(super) struct Place {
    /// -1 if the place is free.
    number: AtomicI32,
    next: Option<&'static Place>,
}

static PLACES: Published<Place> = Published::new();
/// Held while the places or their descriptors change, and during a fork, so that a child inherits no
/// descriptor that is in no place.
static IS_CHANGING: AtomicBool = AtomicBool::new(false);
/// Which signals the holder of `IS_CHANGING` had blocked before.
static SIGNALS_BEFORE: Signals = Signals(UnsafeCell::new(MaybeUninit::uninit()));

struct Signals(UnsafeCell<MaybeUninit<libc::sigset_t>>);

// SAFETY: only the thread that holds `IS_CHANGING` reads and writes the value.
unsafe impl Sync for Signals {}

/// The lock of `IS_CHANGING`.
pub(super) struct Changing(());

impl Changing {
    pub(super) fn begin() -> Self {
        hold();
        Self(())
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        release();
    }
}

/// Blocks the signals of this thread as well: a handler that forked would wait for the thread that it has
/// interrupted.
extern "C" fn hold() {
    let before = block_signals();
    while IS_CHANGING
        .compare_exchange_weak(false, true, Acquire, Relaxed)
        .is_err()
    {
        std::thread::yield_now();
    }
    // SAFETY: this thread holds `IS_CHANGING`.
    unsafe { *SIGNALS_BEFORE.0.get() = before };
}

extern "C" fn release() {
    // SAFETY: this thread holds `IS_CHANGING`.
    let before = unsafe { *SIGNALS_BEFORE.0.get() };
    IS_CHANGING.store(false, Release);
    // SAFETY: `hold` has stored the mask of this thread, and the pointer for the old one may be null.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
}

/// Closes all tokens, which are those of the parent.
extern "C" fn release_in_child() {
    for place in places() {
        place.close();
    }
    release();
}

/// Returns the mask from before.
fn block_signals() -> MaybeUninit<libc::sigset_t> {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::uninit();
    // SAFETY: the pointer is to a local variable of the type that the call initialises.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the set was initialised above, and the other pointer is to a local variable that the call
    // initialises.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
    before
}

fn places() -> impl Iterator<Item = &'static Place> {
    core::iter::successors(PLACES.get(), |place| place.next)
}

impl Place {
    /// Puts a descriptor into a free place.
    pub(super) fn of(fd: OwnedFd, _: &Changing) -> &'static Self {
        let free = places().find(|place| place.number.load(Relaxed) == -1);
        let place = free.unwrap_or_else(|| {
            let first = PLACES.get();
            let number = AtomicI32::new(-1);
            let place = Box::leak(Box::new(Self {
                number,
                next: first,
            }));
            // Only the holder of `IS_CHANGING` replaces the first place.
            PLACES.replace(first, place);
            place
        });
        place.number.store(fd.into_raw_fd(), Relaxed);
        place
    }

    pub(super) fn number(&self) -> c_int {
        self.number.load(Relaxed)
    }

    /// Closes the descriptor, and frees the place.
    pub(super) fn close(&self) {
        let number = self.number.swap(-1, Relaxed);
        if number != -1 {
            // SAFETY: the number comes from an `OwnedFd`, and only the caller that swaps it out closes it.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }
}

/// Registers the handlers once.
pub(super) fn register(_: &Changing) -> Result<()> {
    static IS_REGISTERED: AtomicBool = AtomicBool::new(false);

    unsafe extern "C" {
        fn pthread_atfork(
            prepare: Option<extern "C" fn()>,
            parent: Option<extern "C" fn()>,
            child: Option<extern "C" fn()>,
        ) -> c_int;
    }

    if IS_REGISTERED.load(Relaxed) {
        return Ok(());
    }
    // SAFETY: the handlers only change atomic variables and the mask of signals, and close descriptors, so they
    // may run in any child.
    let errno = unsafe { pthread_atfork(Some(hold), Some(release), Some(release_in_child)) };
    if errno != 0 {
        let errno = Errno::from_raw_os_error(errno);
        return Err(failed("pthread_atfork", errno, Subject::Nothing));
    }
    IS_REGISTERED.store(true, Relaxed);
    Ok(())
}
