//! [`Site`]: the right to serve at a path, as a lock on a file beside it.

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

/// Identifies a file by device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId(i128, i128);

impl FileId {
    fn of(facts: &Stat) -> Self {
        Self(facts.st_dev.into(), facts.st_ino.into())
    }
}

/// The path of a socket, as a name in a directory that is held open.
pub(crate) struct Place {
    path: PathBuf,
    directory: OwnedFd,
    directory_id: FileId,
    name: OsString,
}

impl Place {
    /// Opens the directory of an absolute path that [`check`](super::trust::check) trusts.
    pub(crate) fn open(path: &Path) -> Result<Self, Denied> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Denied::NotSocket);
        };
        let os = |errno| Denied::Os("open", File::Directory, errno);
        #[cfg(any(target_os = "android", target_os = "linux"))]
        let access = OFlags::PATH;
        #[cfg(not(any(target_os = "android", target_os = "linux")))]
        let access = OFlags::RDONLY;
        let flags = access | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = fs::openat(CWD, parent, flags, Mode::empty())
            .and_then(above_stdio_quietly)
            .map_err(os)?;
        let facts = fs::fstat(&directory).map_err(os)?;
        Ok(Self {
            path: path.to_owned(),
            directory,
            directory_id: FileId::of(&facts),
            name: name.to_owned(),
        })
    }

    /// Whether the path still leads to the directory that is held.
    fn is_current(&self) -> bool {
        let parent = self.path.parent().unwrap_or(&self.path);
        fs::stat(parent).is_ok_and(|now| FileId::of(&now) == self.directory_id)
    }

    /// The name of the file that the serving process has locked.
    fn lock_name(&self) -> OsString {
        let mut name = self.name.clone();
        name.push(".lock");
        name
    }

    fn look_at(&self, name: &OsStr) -> Result<Stat, Errno> {
        fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn has(&self, name: &OsStr, id: FileId) -> bool {
        self.look_at(name).is_ok_and(|now| FileId::of(&now) == id)
    }

    /// Removes the name if it still refers to this file.
    fn remove(&self, name: &OsStr, id: FileId) -> Result<(), Errno> {
        if self.has(name, id) {
            fs::unlinkat(&self.directory, name, AtFlags::empty())?;
        }
        Ok(())
    }

    /// The socket, if there is one. Anything else at the path is an error.
    fn socket(&self) -> Result<Option<FileId>, Denied> {
        let facts = match self.look_at(&self.name) {
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(Denied::Os("fstatat", File::Socket, errno)),
            Ok(facts) => facts,
        };
        if !is_me(facts.st_uid) {
            return Err(Denied::OtherUser(File::Socket, facts.st_uid));
        }
        match FileType::from_raw_mode(facts.st_mode) {
            FileType::Socket => Ok(Some(FileId::of(&facts))),
            _ => Err(Denied::NotSocket),
        }
    }
}

/// The right to serve at a path, until dropped or until this process ends, however it ends.
///
/// It is a record lock (`fcntl(2)`, `F_SETLK`), which a forked child does not inherit. Dropping it
/// removes socket and lock, by the descriptor of their directory and only if they are the files created here,
/// whatever the path leads to by then.
pub(crate) struct Site {
    place: Place,
    lock: Lock,
    /// Once it is bound.
    socket: Option<FileId>,
    /// The lock file belongs to another service, which has lost the lock.
    leaves_lock: bool,
    /// Whether its directory is to be removed with it.
    owns_directory: bool,
    owner: Owner,
}

/// Which file an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum File {
    Directory,
    Lock,
    Socket,
}

/// Why there is no right.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Denied {
    /// Somebody else has it.
    Occupied,
    /// A service without the lock is there: the lock was removed or lost.
    Served,
    /// Another user has put something there.
    OtherUser(File, u32),
    /// What stands at the path is no socket.
    NotSocket,
    /// What stands beside it is not a lock file.
    NotLock,
    /// A socket of another type is there, and another program listens on it.
    OtherProgram,
    /// The directory was replaced during the call.
    Moved,
    /// The system refused this call.
    Os(&'static str, File, Errno),
}

impl Site {
    /// Takes the right if nobody has it. Removes the socket of a service that has died.
    pub(crate) fn claim(place: Place) -> Result<Self, Denied> {
        // Before anything is created: files of others are left alone.
        place.socket()?;
        for _ in 0..8 {
            if let Some(lock) = Lock::take(&place)? {
                let mut site = Self {
                    place,
                    lock,
                    socket: None,
                    leaves_lock: false,
                    owns_directory: false,
                    owner: Owner::current(),
                };
                site.remove_dead_socket()?;
                return Ok(site);
            }
        }
        Err(Denied::Occupied)
    }

    /// Removes the directory as well on drop, if it is empty then.
    pub(crate) fn own_directory(&mut self) {
        self.owns_directory = true;
    }

    /// Removes the socket of a service that has died. Holding the lock does not prove that nobody serves,
    /// because the lock file may have been removed.
    ///
    /// If connecting is refused, nobody listens. If it succeeds, the process that listened may still be dead,
    /// with a forked child that has inherited the socket.
    fn remove_dead_socket(&mut self) -> Result<(), Denied> {
        let Some(id) = self.place.socket()? else {
            return Ok(());
        };
        if !self.place.is_current() {
            return Err(Denied::Moved);
        }
        let found = socket::listener_at(&self.place.path);
        let denied = match found {
            Listener::Absent => return Ok(()),
            Listener::Dead
            | Listener::Present {
                process: Some(false),
            } => None,
            // The lock file was there and not locked, so its owner has died.
            Listener::Present { process: None } if !self.lock.is_new => None,
            Listener::Present { .. } => Some(Denied::Served),
            Listener::OtherKind => Some(Denied::OtherProgram),
            Listener::Unknown(errno) => Some(Denied::Os("connect", File::Socket, errno)),
        };
        if let Some(denied) = denied {
            self.leaves_lock = !self.lock.is_new;
            return Err(denied);
        }
        let removed = self.place.remove(&self.place.name, id);
        removed.map_err(|errno| Denied::Os("unlink", File::Socket, errno))
    }

    /// Creates the socket and listens.
    ///
    /// `bind` takes a path and no directory descriptor. [`check`](super::trust::check) has made sure that no
    /// other user can redirect the path; whether this user has done so meanwhile is checked after the call. A
    /// path through `/proc/thread-self/fd` is not used: it works on Linux only, and would show up in
    /// `/proc/net/unix`, where systemd-tmpfiles looks for the paths of live sockets before it removes old
    /// ones.
    pub(crate) fn listen(&mut self) -> Result<OwnedFd, Denied> {
        let os = |call| move |errno| Denied::Os(call, File::Socket, errno);
        let fd = socket::bind(&self.place.path).map_err(os("bind"))?;
        if !self.place.is_current() {
            return Err(Denied::Moved);
        }
        self.socket = self.place.socket()?;
        if self.socket.is_none() {
            return Err(Denied::Moved);
        }
        socket::listen(&fd).map_err(os("listen"))?;
        Ok(fd)
    }

    /// Returns `true` if the socket created here still exists in its directory.
    pub(crate) fn is_intact(&self) -> bool {
        self.socket
            .is_some_and(|id| self.place.has(&self.place.name, id))
    }

    /// Returns `true` if this path leads to the socket created here.
    pub(crate) fn is_found_at(&self, path: &Path) -> bool {
        let leads_here = |parent: &Path| {
            fs::stat(parent).is_ok_and(|now| FileId::of(&now) == self.place.directory_id)
        };
        path.file_name() == Some(&self.place.name)
            && path.parent().is_some_and(leads_here)
            && self.is_intact()
    }

    /// Takes the lock again if it was removed or lost.
    pub(crate) fn keep_lock(&mut self) {
        if self.place.has(&self.place.lock_name(), self.lock.id) {
            // Closing another descriptor of the file in this process would have released it.
            self.lock.repeat();
        } else if let Ok(Some(lock)) = Lock::take(&self.place) {
            self.lock = lock;
        }
        // A process that has it now finds that this one serves, and gives it back.
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if !self.owner.is_current() {
            return;
        }
        // What cannot be removed is no obstacle for the next one.
        if let Some(socket) = self.socket {
            let _ = self.place.remove(&self.place.name, socket);
        }
        if !self.leaves_lock {
            let _ = self.place.remove(&self.place.lock_name(), self.lock.id);
        }
        if self.owns_directory && self.place.is_current() {
            if let Some(parent) = self.place.path.parent() {
                let _ = fs::rmdir(parent);
            }
        }
    }
}

/// Whether somebody listens at a path.
pub(crate) fn is_served(path: &Path) -> bool {
    matches!(
        socket::listener_at(path),
        Listener::Present { process } if process != Some(false)
    )
}

/// A file that is locked by this process.
struct Lock {
    /// `None` only while it is dropped.
    fd: Option<OwnedFd>,
    id: FileId,
    /// The file did not exist before.
    is_new: bool,
}

/// The lock files of this process. A record lock belongs to the process: a second request would succeed, and
/// closing any descriptor of the file releases it. So these files must not even be opened. They are known
/// by inode, because one file has many paths.
static LOCKS: ForkLock<Vec<(Owner, FileId)>> = ForkLock::new(Vec::new());

impl Lock {
    /// Takes the lock if nobody has it. `None` if the file was replaced meanwhile.
    fn take(place: &Place) -> Result<Option<Self>, Denied> {
        let os = |call| move |errno| Denied::Os(call, File::Lock, errno);
        let name = place.lock_name();
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let open = |flags| {
            let opened = fs::openat(&place.directory, &name, flags, Mode::RUSR | Mode::WUSR)
                .and_then(above_stdio_quietly);
            match opened {
                Ok(fd) => Ok(Some(fd)),
                Err(Errno::NOENT | Errno::EXIST) => Ok(None),
                Err(errno) => Err(Denied::Os("open", File::Lock, errno)),
            }
        };
        let mut locks = LOCKS.lock_now();
        // What a child finds there are its parent's.
        locks.retain(|(owner, _)| owner.is_current());
        let (opened, is_new) = match place.look_at(&name) {
            Ok(facts) if !is_me(facts.st_uid) => {
                return Err(Denied::OtherUser(File::Lock, facts.st_uid));
            }
            Ok(facts) if FileType::from_raw_mode(facts.st_mode) != FileType::RegularFile => {
                return Err(Denied::NotLock);
            }
            Ok(facts) if locks.contains(&(Owner::current(), FileId::of(&facts))) => {
                return Err(Denied::Occupied);
            }
            Ok(_) => (open(flags)?, false),
            Err(Errno::NOENT) => (open(flags | OFlags::CREATE | OFlags::EXCL)?, true),
            Err(errno) => return Err(os("fstatat")(errno)),
        };
        let Some(fd) = opened else {
            return Ok(None);
        };
        let facts = fs::fstat(&fd).map_err(os("fstat"))?;
        let id = FileId::of(&facts);
        match fs::fcntl_lock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::AGAIN | Errno::ACCESS) => return Err(Denied::Occupied),
            Err(errno) => {
                if is_new {
                    let _ = place.remove(&name, id);
                }
                return Err(os("fcntl(F_SETLK)")(errno));
            }
        }
        // Whoever had it before may have removed the file meanwhile, and then it is another one that
        // counts.
        if !place.has(&name, id) {
            return Ok(None);
        }
        locks.push((Owner::current(), id));
        Ok(Some(Self {
            fd: Some(fd),
            id,
            is_new,
        }))
    }

    /// Takes it once more. Without effect unless it was lost.
    fn repeat(&self) {
        if let Some(fd) = &self.fd {
            let _ = fs::fcntl_lock(fd, FlockOperation::NonBlockingLockExclusive);
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let ours = (Owner::current(), self.id);
        let mut locks = LOCKS.lock_now();
        // While `LOCKS` keeps other threads from taking it.
        self.fd = None;
        locks.retain(|lock| *lock != ours);
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Site").field(&self.place.path).finish()
    }
}
