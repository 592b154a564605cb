//! [`ForkClosed`]: a descriptor that is closed in forked children, by a handler of `pthread_atfork`, so that the
//! other end notices when the parent dies. A child of a bare `clone` system call runs no handlers.
#![allow(unsafe_code)]

use alloc::boxed::Box;
use core::ffi::c_int;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize};

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use rustix::io::Errno;

use crate::error::{Result, Subject};
use crate::process::{Owner, Published};
use crate::sys::failed;

/// A descriptor that forked children do not have.
#[derive(Debug)]
pub(crate) struct ForkClosed {
    place: &'static Place,
    owner: Owner,
    /// `false` if something else closes the descriptor in this process.
    is_owned: bool,
}

/// How many forks there were at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forks(usize);

/// A place for a descriptor. Places are reused and never freed, so that the handler can visit them in a child.
#[derive(Debug)]
struct Place {
    /// -1 if the place is free.
    number: AtomicI32,
    next: Option<&'static Place>,
}

static PLACES: Published<Place> = Published::new();
/// Held while the places or their descriptors change, and during a fork.
static IS_CHANGING: AtomicBool = AtomicBool::new(false);
static FORKS: AtomicUsize = AtomicUsize::new(0);

/// The lock of `IS_CHANGING`.
struct Changing;

impl Changing {
    fn begin() -> Self {
        hold();
        Self
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        release();
    }
}

extern "C" fn hold() {
    while IS_CHANGING
        .compare_exchange_weak(false, true, Acquire, Relaxed)
        .is_err()
    {
        std::thread::yield_now();
    }
}

extern "C" fn prepare() {
    hold();
    FORKS.fetch_add(1, Relaxed);
}

extern "C" fn release() {
    IS_CHANGING.store(false, Release);
}

/// Closes all descriptors, which are those of the parent.
extern "C" fn release_in_child() {
    for place in places() {
        place.close();
    }
    release();
}

fn places() -> impl Iterator<Item = &'static Place> {
    core::iter::successors(PLACES.get(), |place| place.next)
}

impl Place {
    fn close(&self) {
        let number = self.number.swap(-1, Relaxed);
        if number != -1 {
            // SAFETY: the descriptor is open while its number is here, and only the caller that swaps it out
            // closes it. What else refers to it in a child is never used there, as `lent` demands.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }
}

/// Registers the handlers once.
fn register(_: &Changing) -> Result<()> {
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
    // SAFETY: the handlers only change atomic variables and close descriptors, so they may run in any child.
    let errno = unsafe { pthread_atfork(Some(prepare), Some(release), Some(release_in_child)) };
    if errno != 0 {
        let errno = Errno::from_raw_os_error(errno);
        return Err(failed("pthread_atfork", errno, Subject::Nothing));
    }
    IS_REGISTERED.store(true, Relaxed);
    Ok(())
}

impl Forks {
    /// Returns the present number. Forks are counted from the first call on.
    pub(crate) fn until_now() -> Result<Self> {
        let changing = Changing::begin();
        register(&changing)?;
        Ok(Self(FORKS.load(Relaxed)))
    }
}

impl ForkClosed {
    /// Takes a descriptor that was created after the number of forks was `before`. Returns `None` if there was
    /// another fork since then, so that a child may have it.
    pub(crate) fn owned(fd: OwnedFd, before: Forks) -> Option<Self> {
        Self::enter(fd.as_fd(), before, true).inspect(|_| {
            // The place has it now.
            let _ = fd.into_raw_fd();
        })
    }

    /// As [`owned`](Self::owned), for a descriptor that stays open until the result is dropped. A child must not
    /// use it and must not close it: it leaks what owns it.
    pub(crate) fn lent(fd: BorrowedFd<'_>, before: Forks) -> Option<Self> {
        Self::enter(fd, before, false)
    }

    fn enter(fd: BorrowedFd<'_>, before: Forks, is_owned: bool) -> Option<Self> {
        let _changing = Changing::begin();
        if FORKS.load(Relaxed) != before.0 {
            return None;
        }
        let free = places().find(|place| place.number.load(Relaxed) == -1);
        let place = free.unwrap_or_else(|| {
            let first = PLACES.get();
            let number = AtomicI32::new(-1);
            let place = Box::leak(Box::new(Place {
                number,
                next: first,
            }));
            // Only the holder of `IS_CHANGING` replaces the first place.
            PLACES.replace(first, place);
            place
        });
        place.number.store(fd.as_raw_fd(), Relaxed);
        Some(Self {
            place,
            owner: Owner::current(),
            is_owned,
        })
    }

    /// Returns the descriptor, unless this is a forked child.
    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        let number = self.place.number.load(Relaxed);
        let is_open = number != -1 && self.owner.is_current();
        // SAFETY: in the process that has opened it, the descriptor stays open until `self` is dropped.
        is_open.then(|| unsafe { BorrowedFd::borrow_raw(number) })
    }
}

impl Drop for ForkClosed {
    fn drop(&mut self) {
        // In a child, the place is free or has another descriptor.
        if !self.owner.is_current() {
            return;
        }
        let _changing = Changing::begin();
        if self.is_owned {
            self.place.close();
        } else {
            self.place.number.store(-1, Relaxed);
        }
    }
}
