//! [`Directory`]: the entries of names, as files in a directory of this user, and the locks on them.
//!
//! Of a name with the hash `H`, `H.0` to `H.3` are the places for its entry, of which several names with
//! the same hash take one each. An entry is complete when it appears, and never changes.
//!
//! 1. A process that holds a name has a shared `flock(2)` on its entry. Forked children share the open file
//!    and thus the lock. The kernel releases it with the last of them, however a process ends.
//! 2. A process that gets the exclusive lock of an entry knows that no process holds the name, and that none
//!    will: others see that the lock is taken, or, once they have it, that the entry has no name any more. It
//!    removes the entry. The last holder does so as well: it closes its own descriptor first and opens the
//!    file again, because converting its lock would also convert that of a forked child.
//! 3. A process that creates an entry has the exclusive lock on `H.lock`, from before it looks whether there
//!    is an entry until after it has created one. So a single process initialises a segment. It writes the
//!    entry to `H.new`, locks it, and gives it its name. A process that is killed while it does so leaves
//!    files without a lock, which the next one replaces.
//!
//! A file can be removed between the moment when it is opened and the moment when it is locked. So every
//! process that has locked a file checks whether its name still leads to it.
//!
//! `tests/model/named.rs` checks these steps exhaustively, with kills at each; `tests/kills/linux/named.rs` kills real
//! processes.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::fs::{self, AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::io::{self, Errno};

use super::Deadline;
use super::record::{HASH_DIGITS, MAX_RECORD, Record};
use crate::error::{Error, NamedError, Result, Subject};
use crate::id::ShMemId;
use crate::process::Owner;
use crate::service::address::{directory_of_names, is_shortage};
use crate::sys::path_lock::FileId;
use crate::sys::user::is_me;
use crate::sys::{above_stdio_quietly, failed};

/// How many names with the same hash can be in use at the same time.
const PLACES: usize = 4;

/// How often to repeat what another process has undone in the same moment.
const TRIES: usize = 100;

/// Removes the name of the memory, if it has one: always, or only if no process is known to hold it.
pub(super) type Forget = fn(ShMemId, bool);

/// The directory of names.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
    forget: Forget,
}

/// The hold of a process on a name. The last one removes the entry.
#[derive(Debug)]
pub(super) struct Entry {
    directory: Arc<Directory>,
    file: String,
    id: FileId,
    /// `None` only during `drop`.
    locked: Option<OwnedFd>,
    segment: ShMemId,
    persistent: bool,
}

/// An entry that was found.
#[derive(Debug)]
pub(super) struct Found {
    file: String,
    open: Open,
    pub(super) record: Record,
}

/// The right to create or remove the entries of a hash.
#[derive(Debug)]
pub(super) struct Election {
    directory: Arc<Directory>,
    hash: String,
    lock: Open,
    owner: Owner,
}

/// An open file of the directory.
#[derive(Debug)]
struct Open {
    fd: OwnedFd,
    id: FileId,
}

impl Directory {
    /// Opens the directory, which no other user can write to or redirect.
    pub(super) fn open(chosen: Option<&Path>, forget: Forget) -> Result<Arc<Self>> {
        let path = directory_of_names(chosen)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = fs::openat(CWD, &path, flags, Mode::empty()).and_then(above_stdio_quietly);
        let fd = opened.map_err(|errno| refused("open", &path, errno))?;
        Ok(Arc::new(Self { fd, path, forget }))
    }

    /// Returns the entry of this name, which others hold or which persists, but does not hold it yet.
    pub(super) fn look_up(
        &self,
        (hash, name): (&str, &str),
        deadline: &mut Deadline,
    ) -> Result<Option<Found>> {
        for place in 0..PLACES {
            let is_wanted = |record: &Record| record.name == name;
            let found = self.examine(&format!("{hash}.{place}"), is_wanted, deadline)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Returns all entries that others hold or that persist, and removes what killed processes have left.
    pub(super) fn all(self: &Arc<Self>, deadline: &mut Deadline) -> Result<Vec<Found>> {
        let mut all = Vec::new();
        let unreadable = |errno| refused("getdents", &self.path, errno);
        let mut files = Vec::new();
        for entry in Dir::read_from(&self.fd).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            files.extend(entry.file_name().to_str().map(ToOwned::to_owned));
        }
        for file in files {
            let Some((hash, rest)) = file.split_once('.') else {
                continue;
            };
            if hash.len() != HASH_DIGITS {
                continue;
            }
            if rest == "lock" {
                drop(self.elect(hash, false));
            } else if rest.parse().is_ok_and(|place: usize| place < PLACES) {
                // What is not an entry is not listed.
                all.extend(self.examine(&file, |_| true, deadline).ok().flatten());
            }
        }
        Ok(all)
    }

    /// Returns the entry in this file if it is the wanted one. Removes it if no process holds it and it does
    /// not persist.
    fn examine(
        &self,
        file: &str,
        is_wanted: impl Fn(&Record) -> bool,
        deadline: &mut Deadline,
    ) -> Result<Option<Found>> {
        loop {
            let Some(open) = self.open_file(file, OFlags::RDONLY)? else {
                return Ok(None);
            };
            let record = match self.read(file, &open)? {
                Some(record) if is_wanted(&record) => record,
                _ => return Ok(None),
            };
            if self.try_lock(file, &open, FlockOperation::NonBlockingLockExclusive)? {
                let is_current = self.is_current(file, open.id);
                if is_current && !record.persistent {
                    // If it cannot be removed, it is stale all the same.
                    let _ = self.erase(file, Some(record.id), true);
                }
                unlock(&open);
                if !is_current {
                    deadline.wait()?;
                    continue;
                }
                if !record.persistent {
                    return Ok(None);
                }
            }
            return Ok(Some(Found {
                file: file.to_owned(),
                open,
                record,
            }));
        }
    }

    /// Holds an entry whose segment this process has opened. Returns `None` if it has been removed.
    ///
    /// Not earlier: processes that wait for the end of the last holder would keep each other from removing
    /// the entry.
    pub(super) fn hold(
        self: &Arc<Self>,
        found: Found,
        deadline: &mut Deadline,
    ) -> Result<Option<Entry>> {
        let Found { file, open, record } = found;
        while !self.try_lock(&file, &open, FlockOperation::NonBlockingLockShared)? {
            deadline.wait()?;
        }
        if !self.is_current(&file, open.id) {
            return Ok(None);
        }
        Ok(Some(Entry {
            directory: Arc::clone(self),
            file,
            id: open.id,
            locked: Some(open.fd),
            segment: record.id,
            persistent: record.persistent,
        }))
    }

    /// Removes an entry whose segment is gone, unless a process holds it.
    pub(super) fn discard(&self, Found { file, open, record }: &Found) -> Result<()> {
        if self.try_lock(file, open, FlockOperation::NonBlockingLockExclusive)? {
            if self.is_current(file, open.id) {
                let _ = self.erase(file, Some(record.id), true);
            }
            unlock(open);
        }
        Ok(())
    }

    /// Returns the right to create or remove the entries of a hash, unless another process has it. If there
    /// is no lock file, creates it, or returns `None`.
    pub(super) fn elect(self: &Arc<Self>, hash: &str, create: bool) -> Result<Option<Election>> {
        let file = format!("{hash}.lock");
        let flags = if create {
            OFlags::CREATE
        } else {
            OFlags::empty()
        };
        for _ in 0..TRIES {
            let Some(lock) = self.open_file(&file, OFlags::RDONLY | flags)? else {
                return Ok(None);
            };
            if !self.try_lock(&file, &lock, FlockOperation::NonBlockingLockExclusive)? {
                return Ok(None);
            }
            if self.is_current(&file, lock.id) {
                return Ok(Some(Election {
                    directory: Arc::clone(self),
                    hash: hash.to_owned(),
                    lock,
                    owner: Owner::current(),
                }));
            }
        }
        Ok(None)
    }

    /// Opens a file if it exists. Anything but a regular file of this user is an error.
    fn open_file(&self, file: &str, flags: OFlags) -> Result<Option<Open>> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = fs::openat(&self.fd, file, flags, Mode::RUSR | Mode::WUSR);
        let fd = match opened.and_then(above_stdio_quietly) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.refused("open", file, errno)),
        };
        let stat = fs::fstat(&fd).map_err(|errno| self.refused("fstat", file, errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !is_me(stat.st_uid) {
            return Err(not_an_entry(&self.path.join(file)));
        }
        let id = FileId::of(&stat);
        Ok(Some(Open { fd, id }))
    }

    /// Returns what the entry says, or `None` if it is damaged.
    fn read(&self, file: &str, open: &Open) -> Result<Option<Record>> {
        // One byte more than an entry can have.
        let mut bytes = [0; MAX_RECORD + 1];
        let read = io::retry_on_intr(|| io::pread(&open.fd, &mut bytes, 0));
        let len = read.map_err(|errno| self.refused("pread", file, errno))?;
        Ok(Record::parse(bytes.get(..len).unwrap_or_default()))
    }

    /// Takes a lock without waiting. Returns `false` if another process has one that excludes it.
    fn try_lock(&self, file: &str, open: &Open, lock: FlockOperation) -> Result<bool> {
        match fs::flock(&open.fd, lock) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(errno) => Err(self.refused("flock", file, errno)),
        }
    }

    /// Returns `true` if the name leads to this file.
    fn is_current(&self, file: &str, id: FileId) -> bool {
        let stat = fs::statat(&self.fd, file, AtFlags::SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| FileId::of(&stat) == id)
    }

    /// Removes an entry that this process has locked exclusively, and the name of its memory.
    fn erase(&self, file: &str, segment: Option<ShMemId>, if_unused: bool) -> Result<()> {
        if let Some(segment) = segment {
            (self.forget)(segment, if_unused);
        }
        match fs::unlinkat(&self.fd, file, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.refused("unlink", file, errno)),
        }
    }

    fn refused(&self, call: &'static str, file: &str, errno: Errno) -> Error {
        refused(call, &self.path.join(file), errno)
    }
}

impl Election {
    /// Registers a segment, and holds the entry. Returns `None` if this process has lost the right: it is a
    /// child that was forked in the meantime, or a person has removed the lock file.
    pub(super) fn publish(&self, record: &Record) -> Result<Option<Entry>> {
        let Self {
            directory, hash, ..
        } = self;
        if !self.is_valid() {
            return Ok(None);
        }
        let draft = format!("{hash}.new");
        directory.erase(&draft, None, true)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let Some(new) = directory.open_file(&draft, flags)? else {
            return Err(directory.refused("open", &draft, Errno::NOENT));
        };
        let bytes = record.to_bytes();
        match io::retry_on_intr(|| io::pwrite(&new.fd, &bytes, 0)) {
            Ok(len) if len == bytes.len() => {}
            Ok(_) => return Err(directory.refused("pwrite", &draft, Errno::NOSPC)),
            Err(errno) => return Err(directory.refused("pwrite", &draft, errno)),
        }
        directory.try_lock(&draft, &new, FlockOperation::NonBlockingLockShared)?;
        for place in 0..PLACES {
            let file = format!("{hash}.{place}");
            let old = directory.open_file(&file, OFlags::RDONLY)?;
            if let Some(old) = &old {
                let known = directory.read(&file, old)?;
                let is_free = !known.as_ref().is_some_and(|known| known.persistent)
                    && directory.try_lock(&file, old, FlockOperation::NonBlockingLockExclusive)?;
                if !is_free {
                    continue;
                }
                if let Some(known) = known {
                    (directory.forget)(known.id, true);
                }
            }
            let renamed = fs::renameat(&directory.fd, &draft, &directory.fd, &file);
            if let Some(old) = &old {
                unlock(old);
            }
            renamed.map_err(|errno| directory.refused("rename", &file, errno))?;
            return Ok(Some(Entry {
                directory: Arc::clone(directory),
                file,
                id: new.id,
                locked: Some(new.fd),
                segment: record.id,
                persistent: record.persistent,
            }));
        }
        Err(Error::Named {
            name: String::new(),
            reason: NamedError::TooManyAlike,
        })
    }

    /// Removes an entry, which others may hold, and the name of its memory.
    pub(super) fn remove(&self, Found { file, open, record }: &Found) -> Result<()> {
        if self.directory.is_current(file, open.id) {
            // No other process can create an entry in between.
            self.directory.erase(file, Some(record.id), false)?;
        }
        Ok(())
    }

    /// Returns `false` for a forked child, which shares the lock of its parent, and if the lock file was
    /// removed.
    fn is_valid(&self) -> bool {
        let file = format!("{}.lock", self.hash);
        self.owner.is_current() && self.directory.is_current(&file, self.lock.id)
    }
}

/// Removes the lock file, and what a killed process has left beside it.
impl Drop for Election {
    fn drop(&mut self) {
        if self.is_valid() {
            for rest in ["new", "lock"] {
                let file = format!("{}.{rest}", self.hash);
                let _ = self.directory.erase(&file, None, true);
            }
        }
        if self.owner.is_current() {
            unlock(&self.lock);
        }
    }
}

impl Entry {
    /// Removes an entry that was to persist and cannot, unless others hold it.
    pub(super) fn abandon(mut self) {
        self.persistent = false;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.locked = None;
        if self.persistent {
            return;
        }
        // Errors are ignored: the next process that needs the name finds that nobody holds the entry.
        let (directory, file) = (&self.directory, &self.file);
        let Ok(Some(open)) = directory.open_file(file, OFlags::RDONLY) else {
            return;
        };
        let exclusive = FlockOperation::NonBlockingLockExclusive;
        if open.id != self.id || !directory.try_lock(file, &open, exclusive).unwrap_or(false) {
            return;
        }
        if directory.is_current(file, open.id) {
            let _ = directory.erase(file, Some(self.segment), false);
        }
        unlock(&open);
        // The creator may have been killed before it removed its lock file.
        if let Some((hash, _)) = file.split_once('.') {
            drop(directory.elect(hash, false));
        }
    }
}

/// Releases a lock explicitly: a child that another thread has forked may have inherited the open file.
fn unlock(open: &Open) {
    let _ = fs::flock(&open.fd, FlockOperation::Unlock);
}

fn refused(call: &'static str, path: &Path, errno: Errno) -> Error {
    match errno {
        Errno::LOOP | Errno::ISDIR | Errno::NXIO | Errno::EXIST => not_an_entry(path),
        // The path is not the reason.
        _ if is_shortage(errno) => failed(call, errno, Subject::Nothing),
        _ => Error::Named {
            name: String::new(),
            reason: NamedError::Os {
                call,
                path: path.to_string_lossy().into_owned(),
                errno: errno.raw_os_error(),
            },
        },
    }
}

fn not_an_entry(path: &Path) -> Error {
    Error::Named {
        name: String::new(),
        reason: NamedError::NotAnEntry {
            path: path.to_string_lossy().into_owned(),
        },
    }
}
