//! [`ServiceLock`]: the exclusive right to serve at a path, as a lock on a file next to the socket.

use alloc::borrow::ToOwned;
use alloc::vec::Vec;
use core::fmt;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::fs::{self, AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::above_stdio_quietly;
use super::socket::{self, Listener};
use super::user::is_me;
use crate::process::Owner;
use crate::process::fork_lock::ForkLock;
use crate::sys::SEARCH;

/// Identifies a file by device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId(i128, i128);

impl FileId {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self(stat.st_dev.into(), stat.st_ino.into())
    }
}

/// The path of a socket: an open directory, and a name in it.
pub(crate) struct LockDir {
    path: PathBuf,
    directory: OwnedFd,
    directory_id: FileId,
    name: OsString,
}

impl LockDir {
    /// Opens the directory of an absolute path. [`check`](super::trust::check) must trust the path.
    pub(crate) fn open(path: &Path) -> Result<Self, LockError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(LockError::NotSocket);
        };
        let os = |errno| LockError::Os("open", File::Directory, errno);
        let flags = SEARCH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = fs::openat(CWD, parent, flags, Mode::empty())
            .and_then(above_stdio_quietly)
            .map_err(os)?;
        let stat = fs::fstat(&directory).map_err(os)?;
        Ok(Self {
            path: path.to_owned(),
            directory,
            directory_id: FileId::of(&stat),
            name: name.to_owned(),
        })
    }

    /// Returns `true` if the path still leads to the open directory.
    fn is_current(&self) -> bool {
        let parent = self.path.parent().unwrap_or(&self.path);
        fs::stat(parent).is_ok_and(|now| FileId::of(&now) == self.directory_id)
    }

    /// Returns the name of the file that the serving process locks.
    fn lock_name(&self) -> OsString {
        let mut name = self.name.clone();
        name.push(".lock");
        name
    }

    fn stat(&self, name: &OsStr) -> Result<Stat, Errno> {
        fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Returns `true` if the name refers to this file.
    fn has(&self, name: &OsStr, id: FileId) -> bool {
        self.stat(name).is_ok_and(|now| FileId::of(&now) == id)
    }

    /// Removes the name if it still refers to this file.
    fn remove(&self, name: &OsStr, id: FileId) -> Result<(), Errno> {
        if self.has(name, id) {
            fs::unlinkat(&self.directory, name, AtFlags::empty())?;
        }
        Ok(())
    }

    /// Returns the socket, if there is one. Any other file with its name is an error.
    fn socket(&self) -> Result<Option<FileId>, LockError> {
        let stat = match self.stat(&self.name) {
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(LockError::Os("fstatat", File::Socket, errno)),
            Ok(stat) => stat,
        };
        if !is_me(stat.st_uid) {
            return Err(LockError::OtherUser(File::Socket, stat.st_uid));
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Socket => Ok(Some(FileId::of(&stat))),
            _ => Err(LockError::NotSocket),
        }
    }
}

/// The exclusive right to serve at a path. It ends when this is dropped or when this process ends,
/// however it ends.
///
/// It is a record lock (`fcntl(2)`, `F_SETLK`), which a forked child does not inherit. Dropping it
/// removes the socket and the lock file. They are looked up in the open directory, wherever the
/// path leads by then, and removed only if they are the files of this lock.
pub(crate) struct ServiceLock {
    dir: LockDir,
    lock: Lock,
    /// The socket, once it is bound.
    socket: Option<FileId>,
    /// The lock file stays on drop: it belongs to another service, which has lost the lock.
    leaves_lock: bool,
    /// The directory is removed on drop, if it is empty.
    owns_directory: bool,
    owner: Owner,
}

/// The file that an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum File {
    Directory,
    Lock,
    Socket,
}

/// Why the right was not granted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LockError {
    /// Another process, or this one, has it already.
    Occupied,
    /// A service serves there without the lock, which was removed or lost.
    Served,
    /// The file belongs to another user, with this id.
    OtherUser(File, u32),
    /// The file at the path is not a socket.
    NotSocket,
    /// The file with the name of the lock is not a regular file.
    NotLock,
    /// Another program listens there, on a socket of another type.
    OtherProgram,
    /// The directory was replaced during the call.
    Moved,
    /// The system refused this call on the file.
    Os(&'static str, File, Errno),
}

impl ServiceLock {
    /// Takes the right if no process has it, and removes the socket of a service that has died.
    pub(crate) fn claim(dir: LockDir) -> Result<Self, LockError> {
        // Checked before the lock file is created: nothing is changed if another file is in the
        // way.
        dir.socket()?;
        for _ in 0..8 {
            if let Some(lock) = Lock::take(&dir)? {
                let mut claimed = Self {
                    dir,
                    lock,
                    socket: None,
                    leaves_lock: false,
                    owns_directory: false,
                    owner: Owner::current(),
                };
                claimed.remove_dead_socket()?;
                return Ok(claimed);
            }
        }
        Err(LockError::Occupied)
    }

    /// Makes `drop` remove the directory as well, if it is empty then.
    pub(crate) fn own_directory(&mut self) {
        self.owns_directory = true;
    }

    /// Removes the socket of a service that has died. Holding the lock does not prove that no
    /// service runs, because the lock file may have been removed.
    ///
    /// If connecting is refused, no process listens. If it succeeds, the process that called `listen`
    /// may have died, and a forked child may have inherited the socket.
    fn remove_dead_socket(&mut self) -> Result<(), LockError> {
        let Some(id) = self.dir.socket()? else {
            return Ok(());
        };
        if !self.dir.is_current() {
            return Err(LockError::Moved);
        }
        let found = socket::listener_at(&self.dir.path);
        let denied = match found {
            Listener::Absent => return Ok(()),
            Listener::Dead
            | Listener::Present {
                process: Some(false),
            } => None,
            // The lock file existed and was not locked, so its owner has died.
            Listener::Present { process: None } if !self.lock.is_new => None,
            Listener::Present { .. } => Some(LockError::Served),
            Listener::OtherKind => Some(LockError::OtherProgram),
            Listener::Unknown(errno) => Some(LockError::Os("connect", File::Socket, errno)),
        };
        if let Some(denied) = denied {
            self.leaves_lock = !self.lock.is_new;
            return Err(denied);
        }
        let removed = self.dir.remove(&self.dir.name, id);
        removed.map_err(|errno| LockError::Os("unlink", File::Socket, errno))
    }

    /// Creates the socket and listens on it.
    ///
    /// `bind` takes a path, not a directory descriptor. [`check`](super::trust::check) has made
    /// sure that no other user can redirect the path. Whether this user has redirected it is
    /// checked after the call. A path through `/proc/thread-self/fd` is not used: it works on Linux
    /// only, and would appear in `/proc/net/unix`, where systemd-tmpfiles looks for the paths of
    /// live sockets before it removes old ones.
    pub(crate) fn listen(&mut self) -> Result<OwnedFd, LockError> {
        let os = |call| move |errno| LockError::Os(call, File::Socket, errno);
        let fd = socket::bind(&self.dir.path).map_err(os("bind"))?;
        if !self.dir.is_current() {
            return Err(LockError::Moved);
        }
        self.socket = self.dir.socket()?;
        if self.socket.is_none() {
            return Err(LockError::Moved);
        }
        socket::listen(&fd).map_err(os("listen"))?;
        Ok(fd)
    }

    /// Returns `true` if the socket still exists in its directory.
    pub(crate) fn is_intact(&self) -> bool {
        self.socket
            .is_some_and(|id| self.dir.has(&self.dir.name, id))
    }

    /// Returns `true` if this path leads to the socket.
    pub(crate) fn is_found_at(&self, path: &Path) -> bool {
        let leads_here = |parent: &Path| {
            fs::stat(parent).is_ok_and(|now| FileId::of(&now) == self.dir.directory_id)
        };
        path.file_name() == Some(&self.dir.name)
            && path.parent().is_some_and(leads_here)
            && self.is_intact()
    }

    /// Takes the lock again if it was removed or lost.
    pub(crate) fn keep_lock(&mut self) {
        if self.dir.has(&self.dir.lock_name(), self.lock.id) {
            // Closing another descriptor of the file in this process would have released it.
            self.lock.repeat();
        } else if let Ok(Some(lock)) = Lock::take(&self.dir) {
            self.lock = lock;
        }
        // If another process has taken the lock, it notices that this one serves, and gives the
        // lock back.
    }
}

impl Drop for ServiceLock {
    fn drop(&mut self) {
        if !self.owner.is_current() {
            return;
        }
        // Errors are ignored: files that remain do not stop the next service.
        if let Some(socket) = self.socket {
            let _ = self.dir.remove(&self.dir.name, socket);
        }
        if !self.leaves_lock {
            let _ = self.dir.remove(&self.dir.lock_name(), self.lock.id);
        }
        if self.owns_directory && self.dir.is_current() {
            if let Some(parent) = self.dir.path.parent() {
                let _ = fs::rmdir(parent);
            }
        }
    }
}

/// Returns `true` if a process listens at the path.
pub(crate) fn is_served(path: &Path) -> bool {
    matches!(
        socket::listener_at(path),
        Listener::Present { process } if process != Some(false)
    )
}

/// A lock file that this process has locked.
struct Lock {
    /// `None` only during `drop`.
    fd: Option<OwnedFd>,
    id: FileId,
    /// The file was created by this call.
    is_new: bool,
}

/// The lock files of this process. A record lock belongs to the process: a second request would
/// succeed, and closing any descriptor of the file releases the lock. So these files must not even
/// be opened again. They are identified by inode, because a file can have many paths.
static REGISTERED: ForkLock<Vec<(Owner, FileId)>> = ForkLock::new(Vec::new());

impl Lock {
    /// Takes the lock if no process has it. Returns `None` if the file was replaced during the call.
    fn take(dir: &LockDir) -> Result<Option<Self>, LockError> {
        let os = |call| move |errno| LockError::Os(call, File::Lock, errno);
        let name = dir.lock_name();
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let open = |flags| {
            let opened = fs::openat(&dir.directory, &name, flags, Mode::RUSR | Mode::WUSR)
                .and_then(above_stdio_quietly);
            match opened {
                Ok(fd) => Ok(Some(fd)),
                Err(Errno::NOENT | Errno::EXIST) => Ok(None),
                Err(errno) => Err(LockError::Os("open", File::Lock, errno)),
            }
        };
        let mut locks = REGISTERED.lock_now();
        // After a fork the list contains the files of the parent.
        locks.retain(|(owner, _)| owner.is_current());
        let (opened, is_new) = match dir.stat(&name) {
            Ok(stat) if !is_me(stat.st_uid) => {
                return Err(LockError::OtherUser(File::Lock, stat.st_uid));
            }
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile => {
                return Err(LockError::NotLock);
            }
            Ok(stat) if locks.contains(&(Owner::current(), FileId::of(&stat))) => {
                return Err(LockError::Occupied);
            }
            Ok(_) => (open(flags)?, false),
            Err(Errno::NOENT) => (open(flags | OFlags::CREATE | OFlags::EXCL)?, true),
            Err(errno) => return Err(os("fstatat")(errno)),
        };
        let Some(fd) = opened else {
            return Ok(None);
        };
        let stat = fs::fstat(&fd).map_err(os("fstat"))?;
        let id = FileId::of(&stat);
        match fs::fcntl_lock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::AGAIN | Errno::ACCESS) => return Err(LockError::Occupied),
            Err(errno) => {
                if is_new {
                    let _ = dir.remove(&name, id);
                }
                return Err(os("fcntl(F_SETLK)")(errno));
            }
        }
        // The previous holder may have removed the file after it was opened here. Then the lock is
        // on a file without a name, and means nothing.
        if !dir.has(&name, id) {
            return Ok(None);
        }
        locks.push((Owner::current(), id));
        Ok(Some(Self {
            fd: Some(fd),
            id,
            is_new,
        }))
    }

    /// Takes the lock again. Has no effect unless it was lost.
    fn repeat(&self) {
        if let Some(fd) = &self.fd {
            let _ = fs::fcntl_lock(fd, FlockOperation::NonBlockingLockExclusive);
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let own = (Owner::current(), self.id);
        let mut locks = REGISTERED.lock_now();
        // Closed while the list is locked, so that no other thread opens the file in between.
        self.fd = None;
        locks.retain(|lock| *lock != own);
    }
}

impl fmt::Debug for ServiceLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServiceLock").field(&self.dir.path).finish()
    }
}
