//! Locks of an open file description: `F_OFD_SETLK` and `F_OFD_GETLK` of `fcntl(2)`.
#![allow(unsafe_code)]

use core::ffi::c_int;

use rustix::io::Errno;

use crate::error::{Result, Subject};
use crate::sys::{failed, last_errno};

/// The number of a descriptor, or -1.
#[derive(Clone, Copy)]
pub(super) struct Ofd(pub(super) c_int);

/// How a byte is locked. Several descriptions can lock it for reading.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Read,
    Write,
}

impl Ofd {
    /// Locks a byte, which may lie beyond the end, until the description is closed. Returns `false` if another
    /// description has a lock that conflicts.
    pub(super) fn try_lock(self, kind: Kind, byte: i64) -> Result<bool> {
        let kind = match kind {
            Kind::Read => libc::F_RDLCK,
            Kind::Write => libc::F_WRLCK,
        };
        match self.call(libc::F_OFD_SETLK, &mut Flock::of(kind, byte)) {
            Ok(()) => Ok(true),
            Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
            Err(errno) => Err(failed("fcntl(F_OFD_SETLK)", errno, Subject::Nothing)),
        }
    }

    pub(super) fn unlock(self, byte: i64) -> Result<()> {
        self.call(libc::F_OFD_SETLK, &mut Flock::of(libc::F_UNLCK, byte))
            .map_err(|errno| failed("fcntl(F_OFD_SETLK)", errno, Subject::Nothing))
    }

    /// Returns `true` if another description has locked the byte, in either way.
    pub(super) fn is_locked(self, byte: i64) -> Result<bool> {
        let mut lock = Flock::of(libc::F_WRLCK, byte);
        self.call(libc::F_OFD_GETLK, &mut lock)
            .map_err(|errno| failed("fcntl(F_OFD_GETLK)", errno, Subject::Nothing))?;
        Ok(lock.kind != kind(libc::F_UNLCK))
    }

    fn call(self, command: c_int, lock: &mut Flock) -> Result<(), Errno> {
        // SAFETY: the pointer is to a local variable of the type that the call reads and writes.
        let result = unsafe { libc::syscall(FCNTL, self.0, command, core::ptr::from_mut(lock)) };
        if result == 0 {
            Ok(())
        } else {
            Err(last_errno())
        }
    }
}

/// The call that takes offsets of 64 bits. The C libraries differ in what their function does on 32-bit systems.
#[cfg(target_pointer_width = "32")]
const FCNTL: libc::c_long = libc::SYS_fcntl64;
#[cfg(not(target_pointer_width = "32"))]
const FCNTL: libc::c_long = libc::SYS_fcntl;

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
    /// Returns a lock of one byte.
    fn of(kind_of_lock: c_int, byte: i64) -> Self {
        Self {
            kind: kind(kind_of_lock),
            whence: 0,
            start: byte,
            len: 1,
            pid: 0,
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the constants are small")]
const fn kind(kind: c_int) -> i16 {
    kind as i16
}
