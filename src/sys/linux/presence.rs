//! Locks that the kernel releases when a process ends, however it ends: those of an open file description
//! (`F_OFD_SETLK` of `fcntl(2)`).
//!
//! Each token has an open file description of its own. A forked child inherits it, which would keep the lock after the
//! parent's death. Therefore a handler of `pthread_atfork` closes all tokens in the child. A child of a bare
//! `clone` system call runs no handlers.
#![allow(unsafe_code)]

use core::ffi::c_int;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicI32};

use alloc::boxed::Box;
use rustix::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::reopen::reopen;
use crate::error::{Error, Result, Subject};
use crate::process::{Owner, Published};
use crate::sys::{failed, last_errno};

/// An open file description of the segment that belongs to this process alone.
#[derive(Debug)]
pub(crate) struct Token {
    place: &'static Place,
    owner: Owner,
}

/// A place for the descriptor of a token. Places are reused and never freed, so that the handler can
/// visit them in a child.
#[derive(Debug)]
struct Place {
    /// -1 if the place is free.
    number: AtomicI32,
    next: Option<&'static Place>,
}

static PLACES: Published<Place> = Published::new();
/// Held while the places or their descriptors change, and during a fork, so that a child inherits no
/// descriptor that is in no place.
static IS_CHANGING: AtomicBool = AtomicBool::new(false);

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

extern "C" fn release() {
    IS_CHANGING.store(false, Release);
}

/// Closes all tokens, which are those of the parent.
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
            // SAFETY: the number comes from an `OwnedFd`, and only the caller that swaps it out closes it.
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
    let errno = unsafe { pthread_atfork(Some(hold), Some(release), Some(release_in_child)) };
    if errno != 0 {
        let errno = Errno::from_raw_os_error(errno);
        return Err(failed("pthread_atfork", errno, Subject::Nothing));
    }
    IS_REGISTERED.store(true, Relaxed);
    Ok(())
}

impl Token {
    /// Opens the object behind the descriptor of a segment again.
    pub(crate) fn open(descriptor: Option<BorrowedFd<'_>>, _table: *const u8) -> Result<Self> {
        let segment = descriptor.ok_or(Error::Unsupported {
            what: "participants need a segment with a descriptor: use memfd, POSIX or file segments",
        })?;
        let changing = Changing::begin();
        register(&changing)?;
        let fd = reopen(segment, OFlags::RDWR).map_err(|errno| match errno {
            Errno::NOENT | Errno::ACCESS | Errno::PERM | Errno::NOTDIR => Error::Unsupported {
                what: "a participant needs an open file of its own, and the segment cannot be opened again \
                       through /proc/thread-self/fd: mount /proc, let the sandbox open it, and keep the process \
                       dumpable",
            },
            errno => failed("open", errno, Subject::Nothing),
        })?;
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
        place.number.store(fd.into_raw_fd(), Relaxed);
        Ok(Self {
            place,
            owner: Owner::current(),
        })
    }

    /// Returns `false` in a child that this process has forked.
    #[inline]
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.owner.is_current()
    }

    /// Locks a byte, which may lie beyond the end, until the token is dropped or the process ends. Returns
    /// `false` if another token has locked it.
    pub(crate) fn try_lock(&mut self, byte: usize) -> Result<bool> {
        match self.call(libc::F_OFD_SETLK, &mut Flock::of(byte)) {
            Ok(()) => Ok(true),
            Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
            Err(errno) => Err(failed("fcntl(F_OFD_SETLK)", errno, Subject::Nothing)),
        }
    }

    /// Returns `true` if another token has locked the byte.
    pub(crate) fn is_locked(&self, byte: usize) -> Result<bool> {
        let mut lock = Flock::of(byte);
        self.call(libc::F_OFD_GETLK, &mut lock)
            .map_err(|errno| failed("fcntl(F_OFD_GETLK)", errno, Subject::Nothing))?;
        Ok(i32::from(lock.kind) != i32::from(UNLOCKED))
    }

    fn call(&self, command: c_int, lock: &mut Flock) -> Result<(), Errno> {
        // A child of a bare system call has the descriptor, and must not lock with it.
        if !self.is_of_this_process() {
            return Err(Errno::BADF);
        }
        let number = self.place.number.load(Relaxed);
        // SAFETY: the pointer is to a local variable of the type that the call reads and writes.
        let result = unsafe { libc::syscall(FCNTL, number, command, core::ptr::from_mut(lock)) };
        if result == 0 {
            Ok(())
        } else {
            Err(last_errno())
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        // In a child, the place is closed or belongs to another token.
        if self.is_of_this_process() {
            let _changing = Changing::begin();
            self.place.close();
        }
    }
}

/// The call that takes offsets of 64 bits. The C libraries differ in what their function does on 32-bit systems.
#[cfg(target_pointer_width = "32")]
const FCNTL: libc::c_long = libc::SYS_fcntl64;
#[cfg(not(target_pointer_width = "32"))]
const FCNTL: libc::c_long = libc::SYS_fcntl;

#[allow(
    clippy::cast_possible_truncation,
    clippy::unnecessary_cast,
    reason = "the type differs"
)]
const LOCKED: i16 = libc::F_WRLCK as i16;
#[allow(
    clippy::cast_possible_truncation,
    clippy::unnecessary_cast,
    reason = "the type differs"
)]
const UNLOCKED: i16 = libc::F_UNLCK as i16;

/// `struct flock64` of the kernel.
#[repr(C)]
struct Flock {
    kind: i16,
    whence: i16,
    start: i64,
    len: i64,
    pid: i32,
}

impl Flock {
    /// Returns a lock of one byte for writing.
    fn of(byte: usize) -> Self {
        Self {
            kind: LOCKED,
            whence: 0,
            start: i64::try_from(byte).unwrap_or(i64::MAX - 1),
            len: 1,
            pid: 0,
        }
    }
}
