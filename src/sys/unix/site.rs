//! [`Site`]: the right to serve at a path, as a lock on a file beside it.

use alloc::borrow::ToOwned;
use alloc::vec::Vec;
use core::fmt;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::fs::{self, CWD, FileType, FlockOperation, Mode, OFlags};
use rustix::io::{self, Errno};

use super::above_stdio_quietly;
use super::user::is_me;
use crate::fork_lock::ForkLock;
use crate::process::Owner;

/// The right to serve at a path, until dropped or until this process ends, however it ends.
///
/// It is a record lock (`fcntl(2)`, `F_SETLK`), which a forked child does not inherit.
pub(crate) struct Site {
    path: PathBuf,
    lock: OwnedFd,
    _ours: Ours,
}

/// Why there is no right.
pub(crate) enum Denied {
    /// Somebody else has it.
    Occupied,
    /// Another user has put something there.
    OtherUser(u32),
    /// What stands at the path is no socket.
    NoSocket,
    /// The system refused this call.
    Os(&'static str, Errno),
}

impl Site {
    /// Takes the right if nobody has it. Removes the socket of a service that has died.
    pub(crate) fn claim(path: &Path) -> Result<Self, Denied> {
        let ours = Ours::add(path).ok_or(Denied::Occupied)?;
        let lock_path = beside(path);
        for _ in 0..8 {
            let lock = open_lock(&lock_path).map_err(|errno| Denied::Os("open", errno))?;
            let facts = fs::fstat(&lock).map_err(|errno| Denied::Os("fstat", errno))?;
            if !is_me(facts.st_uid) {
                return Err(Denied::OtherUser(facts.st_uid));
            }
            match fs::fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::AGAIN | Errno::ACCESS) => return Err(Denied::Occupied),
                Err(errno) => return Err(Denied::Os("fcntl(F_SETLK)", errno)),
                Ok(()) => {}
            }
            // Whoever had it before may have removed the file meanwhile, and then it is another
            // one that counts.
            let current = fs::lstat(&lock_path);
            let same = |now: &fs::Stat| now.st_ino == facts.st_ino && now.st_dev == facts.st_dev;
            if !current.as_ref().is_ok_and(same) {
                continue;
            }
            let site = Self {
                path: path.to_owned(),
                lock,
                _ours: ours,
            };
            site.remove_stale_socket()?;
            return Ok(site);
        }
        Err(Denied::Occupied)
    }

    fn remove_stale_socket(&self) -> Result<(), Denied> {
        let facts = match fs::lstat(&self.path) {
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(Denied::Os("lstat", errno)),
            Ok(facts) => facts,
        };
        if !is_me(facts.st_uid) {
            return Err(Denied::OtherUser(facts.st_uid));
        }
        if FileType::from_raw_mode(facts.st_mode) != FileType::Socket {
            return Err(Denied::NoSocket);
        }
        fs::unlink(&self.path).map_err(|errno| Denied::Os("unlink", errno))
    }

    /// Removes socket and lock.
    pub(crate) fn clear(self) {
        // What cannot be removed is no obstacle for the next one.
        let _ = fs::unlink(&self.path);
        let _ = fs::unlink(beside(&self.path));
        drop(self.lock);
    }
}

/// The file that is locked by who serves at the path.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".lock");
    name.into()
}

fn open_lock(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mode = Mode::RUSR | Mode::WUSR;
    fs::openat(CWD, path, flags | OFlags::NONBLOCK, mode).and_then(above_stdio_quietly)
}

/// The sites of this process. The kernel does not keep threads of one process apart where they share
/// descriptors, and a record lock is lost when any descriptor of its file is closed.
static SITES: ForkLock<Vec<(Owner, PathBuf)>> = ForkLock::new(Vec::new());

/// An entry among them.
struct Ours {
    path: PathBuf,
}

impl Ours {
    fn add(path: &Path) -> Option<Self> {
        let mut sites = SITES.lock_now();
        // What a child finds there are its parent's.
        sites.retain(|(owner, _)| owner.is_current());
        if sites.iter().any(|(_, taken)| taken == path) {
            return None;
        }
        sites.push((Owner::current(), path.to_owned()));
        Some(Self {
            path: path.to_owned(),
        })
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        SITES
            .lock_now()
            .retain(|(owner, path)| !owner.is_current() || *path != self.path);
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Site").field(&self.path).finish()
    }
}
