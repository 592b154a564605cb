//! Slots of System V segments, which have no descriptor: they are locked in the file of the IPC namespace, which is
//! also the scope of the segment's number.
//!
//! The file permits reading only, and so does its lock, which several tokens can have at the same time. A slot is
//! taken in two steps, each with a byte of its own:
//!
//! 1. *Claim.* A token locks the first byte, and asks then whether another one has locked it too. If so, it
//!    unlocks it and tries again after a random time.
//! 2. *Hold.* Otherwise it locks the second byte as well, and keeps both.
//!
//! Only one token holds a slot: it keeps its claim locked from before its question until it is closed, and the kernel
//! executes the calls one after the other, so that of two tokens that claim, the later one finds the claim of the
//! other. And only a held slot counts as taken: a claim may be given up.

use core::time::Duration;
use std::thread;

use rustix::fd::OwnedFd;
use rustix::fs::{self, CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use super::ofd::{Kind, Ofd};
use crate::error::{Error, Result, Subject};
use crate::sys::procfs::object::file_system;
use crate::sys::{above_stdio_quietly, failed, random_u64};

/// How often a token waits for the claims of others, all slots together: this takes about a second. A process
/// that is stopped between two calls, or one that claims on purpose, delays others no longer.
const PAUSES: u32 = 1500;

/// The type of the file system of namespaces (`NSFS_MAGIC`).
const NSFS: u32 = 0x6e73_6673;

/// The slots of one segment.
#[derive(Debug)]
pub(super) struct Namespace {
    shmid: u32,
    /// How many pauses are left.
    pauses: u32,
}

impl Namespace {
    pub(super) fn of(shmid: i32) -> Self {
        Self {
            shmid: shmid.unsigned_abs(),
            pauses: PAUSES,
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

    /// Takes the slot with this first byte. Returns `false` if another token holds it.
    pub(super) fn try_lock(&mut self, file: Ofd, byte: usize) -> Result<bool> {
        let [claim, hold] = self.bytes(byte)?;
        let mut attempts = 0;
        loop {
            if file.is_locked(hold)? {
                return Ok(false);
            }
            if !file.is_locked(claim)? && file.try_lock(Kind::Read, claim)? {
                if !file.is_locked(claim)? && file.try_lock(Kind::Read, hold)? {
                    return Ok(true);
                }
                file.unlock(claim)?;
            }
            let Some(left) = self.pauses.checked_sub(1) else {
                return Ok(false);
            };
            self.pauses = left;
            pause(attempts);
            attempts += 1;
        }
    }

    /// Returns `true` if another token holds the slot.
    pub(super) fn is_locked(&self, file: Ofd, byte: usize) -> Result<bool> {
        let [_, hold] = self.bytes(byte)?;
        file.is_locked(hold)
    }

    /// Returns where the two bytes of a slot are in the file: each segment has 4 GiB.
    fn bytes(&self, byte: usize) -> Result<[i64; 2]> {
        let of_segment = i64::from(self.shmid) << 32;
        match u32::try_from(byte) {
            Ok(byte) if byte < u32::MAX => {
                let claim = of_segment | i64::from(byte);
                Ok([claim, claim + 1])
            }
            _ => Err(Error::Unsupported {
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

/// Waits for a random time, which is longer after more attempts and less than a millisecond on average.
fn pause(attempts: u32) {
    let most = 1 << attempts.min(10);
    thread::yield_now();
    thread::sleep(Duration::from_micros(random_u64().unwrap_or(0) % most));
}
