//! Slots of System V segments, which have no descriptor: they are locked in the file of the IPC namespace, which is
//! also the scope of the segment's number.
//!
//! The file permits reading only, and so does its lock, which several tokens can have at the same time. So a token
//! locks the byte of a slot that nobody has locked, and asks then whether another one has locked it too. If so, it
//! unlocks the byte, and tries the same slot again after a random time.
//!
//! Only one token gets a slot: it keeps the byte locked from before its question until it is closed, and the kernel
//! executes the calls one after the other, so that of two tokens that lock, the later one is told of the other.
//!
//! A token that finds a byte locked goes on to the next slot, although the lock may be one that is given up. It
//! misses no free slot: of those that give it up, the last one finds the byte unlocked and takes it.
//! `tests/model/presence.rs` checks both.

use core::time::Duration;
use std::thread;

use rustix::fd::OwnedFd;
use rustix::fs::{self, CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::ofd::{Kind, Ofd};
use crate::error::{Error, Result, Subject};
use crate::sys::procfs::object::file_system;
use crate::sys::{above_stdio_quietly, failed, random_u64};

/// How often a token tries a slot again. Each attempt fails only if another token starts in the same microseconds, so
/// this many fail only if a process locks and unlocks the byte all the time.
const ATTEMPTS: u32 = 100;

/// The type of the file system of namespaces (`NSFS_MAGIC`).
const NSFS: u32 = 0x6e73_6673;

/// The slots of one segment.
#[derive(Debug)]
pub(super) struct Namespace {
    shmid: u32,
}

impl Namespace {
    pub(super) fn of(shmid: i32) -> Self {
        Self {
            shmid: shmid.unsigned_abs(),
        }
    }

    /// Opens the file of the namespace that this thread is in. No permission is needed for that, also not in a
    /// process that is not dumpable.
    pub(super) fn open() -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = openat(CWD, "/proc/thread-self/ns/ipc", flags, Mode::empty())
            .and_then(above_stdio_quietly)
            .map_err(|errno| match errno {
                Errno::NOENT | Errno::ACCESS | Errno::PERM | Errno::NOTDIR | Errno::LOOP => MISSING,
                errno => failed("open", errno, Subject::Nothing),
            })?;
        // Each mount of `/proc` has files of its own before Linux 3.19.
        match fs::fstatfs(&fd) {
            Ok(system) if file_system(&system) == NSFS => Ok(fd),
            _ => Err(MISSING),
        }
    }

    /// Locks a byte of the segment. Returns `false` if another token has locked it.
    pub(super) fn try_lock(&self, file: Ofd, byte: usize) -> Result<bool> {
        let byte = self.place_of(byte)?;
        for attempt in 0..ATTEMPTS {
            if file.is_locked(byte)? || !file.try_lock(Kind::Read, byte)? {
                return Ok(false);
            }
            if !file.is_locked(byte)? {
                return Ok(true);
            }
            file.unlock(byte)?;
            pause(attempt);
        }
        Ok(false)
    }

    /// Returns `true` if another token has locked the byte.
    pub(super) fn is_locked(&self, file: Ofd, byte: usize) -> Result<bool> {
        file.is_locked(self.place_of(byte)?)
    }

    /// Returns where a byte of the segment is in the file: each segment has 4 GiB.
    fn place_of(&self, byte: usize) -> Result<i64> {
        match u32::try_from(byte) {
            Ok(byte) => Ok(i64::from(self.shmid) << 32 | i64::from(byte)),
            Err(_) => Err(Error::Unsupported {
                what: "the table of participants has to lie in the first 4 GiB of a System V segment",
            }),
        }
    }
}

/// Why there is no file to lock.
const MISSING: Error = Error::Unsupported {
    what: "a participant in a System V segment needs a lock on /proc/thread-self/ns/ipc, which cannot be opened \
           or is not the file of a namespace: mount /proc (Linux 3.19), let the sandbox open it, or use memfd, \
           POSIX or file segments",
};

/// Waits for a random time, which is longer after more attempts and less than a millisecond.
fn pause(attempt: u32) {
    let most = 1 << attempt.min(10);
    thread::yield_now();
    thread::sleep(Duration::from_micros(random_u64().unwrap_or(0) % most));
}
