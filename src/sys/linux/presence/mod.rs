//! Locks that the kernel releases when a process ends, however it ends: those of an open file description
//! (`F_OFD_SETLK` of `fcntl(2)`).
//!
//! Each token has an open file description of its own. A forked child inherits it, which would keep the lock after the
//! parent's death. Therefore a handler of `pthread_atfork` closes all tokens in the child. A child of a bare
//! `clone` system call runs no handlers.

mod namespace;
mod ofd;
mod places;

use rustix::fd::BorrowedFd;
use rustix::fs::OFlags;
use rustix::io::Errno;

use self::namespace::Namespace;
use self::ofd::{Kind, Ofd};
use self::places::{Changing, Place};
use super::reopen::reopen;
use crate::error::{Error, Result, Subject};
use crate::id::ShMemId;
use crate::id::kind::IdKind;
use crate::process::Owner;
use crate::sys::failed;

/// An open file description that belongs to this process alone.
#[derive(Debug)]
pub(crate) struct Token {
    place: &'static Place,
    owner: Owner,
    /// `None` if the description is of the segment.
    namespace: Option<Namespace>,
}

impl Token {
    /// Opens the object behind the descriptor of a segment again, or the namespace of a System V segment.
    pub(crate) fn open(
        descriptor: Option<BorrowedFd<'_>>,
        id: &ShMemId,
        _table: *const u8,
    ) -> Result<Self> {
        let namespace = match (descriptor, id.kind()) {
            (None, IdKind::SystemV { shmid }) => Some(Namespace::of(shmid)),
            _ => None,
        };
        let changing = Changing::begin();
        places::register(&changing)?;
        let fd = match (descriptor, &namespace) {
            (Some(segment), _) => reopen(segment, OFlags::RDWR).map_err(not_opened)?,
            (None, Some(_)) => Namespace::open()?,
            (None, None) => {
                return Err(Error::Unsupported {
                    what: "participants need a segment with a descriptor, or of System V: use memfd, System V, \
                           POSIX or file segments",
                });
            }
        };
        Ok(Self {
            place: Place::of(fd, &changing),
            owner: Owner::current(),
            namespace,
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
        let file = self.file();
        match &self.namespace {
            Some(namespace) => namespace.try_lock(file, byte),
            None => file.try_lock(Kind::Write, offset(byte)),
        }
    }

    /// Returns `true` if another token has locked the byte.
    pub(crate) fn is_locked(&self, byte: usize) -> Result<bool> {
        match &self.namespace {
            Some(namespace) => namespace.is_locked(self.file(), byte),
            None => self.file().is_locked(offset(byte)),
        }
    }

    /// A child of a bare system call has the descriptor, and must not lock with it.
    fn file(&self) -> Ofd {
        Ofd(if self.is_of_this_process() {
            self.place.number()
        } else {
            -1
        })
    }
}

fn not_opened(errno: Errno) -> Error {
    match errno {
        Errno::NOENT | Errno::ACCESS | Errno::PERM | Errno::NOTDIR => Error::Unsupported {
            what: "a participant needs an open file of its own, and the segment cannot be opened again \
                   through /proc/thread-self/fd: mount /proc, let the sandbox open it, and keep the process \
                   dumpable",
        },
        errno => failed("open", errno, Subject::Nothing),
    }
}

fn offset(byte: usize) -> i64 {
    i64::try_from(byte).unwrap_or(i64::MAX - 1)
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
