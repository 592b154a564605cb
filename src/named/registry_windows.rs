//! [`Directory`] for Windows: the same files and the same steps as in `registry.rs`, with `LockFileEx` in
//! place of `flock(2)`.
//!
//! Two things differ. Locks belong to a handle, and no other process shares it, so there are no forked
//! children to think of. And a file that is removed while it is open can keep its name until its last handle
//! is closed, which also stops another file from replacing it. So an entry or a lock file is first renamed to
//! `H.gone0`, `H.gone1`, …, which is possible because every handle allows it (`FILE_SHARE_DELETE`, the
//! default of `std`), and removed then. What has these names is garbage, which any process may replace.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::windows::fs::OpenOptionsExt;
use std::path::{self, Path, PathBuf};
use std::{env, process};

use windows_sys::Win32::Storage::FileSystem::{
    FILE_FLAG_BACKUP_SEMANTICS, FILE_FLAG_OPEN_REPARSE_POINT,
};

use super::Deadline;
use super::record::{HASH_DIGITS, MAX_RECORD, Record};
use crate::error::named::VARIABLE;
use crate::error::{AddressOrigin, Error, NamedError, Result, ServiceError};
use crate::id::ShMemId;
use crate::sys::file::{self, FileId};

/// How many names with the same hash can be in use at the same time.
const PLACES: usize = 4;

/// How often to repeat what another process has undone in the same moment.
const TRIES: usize = 100;

/// Removes the name of the memory, if it has one: always, or only if no process is known to hold it.
pub(super) type Forget = fn(ShMemId, bool);

/// The directory of names.
#[derive(Debug)]
pub(super) struct Directory {
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
    locked: Option<Open>,
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
}

/// An open file of the directory. Its lock is released when it is dropped.
#[derive(Debug)]
struct Open {
    file: File,
    id: FileId,
}

impl Drop for Open {
    fn drop(&mut self) {
        file::unlock(&self.file);
    }
}

/// Whether a file is created.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Create {
    No,
    IfAbsent,
    New,
}

impl Directory {
    /// Opens the directory, and creates it if it does not exist.
    pub(super) fn open(chosen: Option<&Path>, forget: Forget) -> Result<Arc<Self>> {
        let (path, origin) = locate(chosen);
        let unusable = |reason, errno| Error::Named {
            name: String::new(),
            reason: NamedError::Directory {
                path: path.to_string_lossy().into_owned(),
                origin,
                reason: Box::new(reason),
                errno,
            },
        };
        let refused = |call, error: &io::Error| {
            let path = path.to_string_lossy().into_owned();
            unusable(ServiceError::Os { call, path }, error.raw_os_error())
        };
        if path.as_os_str().is_empty() {
            return Err(unusable(ServiceError::EmptyPath, None));
        }
        if !path.is_absolute() {
            return Err(unusable(ServiceError::RelativePath, None));
        }
        fs::create_dir_all(&path).map_err(|error| refused("CreateDirectory", &error))?;
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags(FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT)
            .open(&path)
            .map_err(|error| refused("CreateFile", &error))?;
        let kind = directory.metadata();
        let kind = kind.map_err(|error| refused("GetFileInformationByHandle", &error))?;
        if kind.is_symlink() {
            return Err(unusable(ServiceError::SymbolicLink, None));
        }
        if !file::is_file_ours(&directory)? {
            let directory = path.to_string_lossy().into_owned();
            return Err(unusable(ServiceError::OpenToOthers { directory }, None));
        }
        Ok(Arc::new(Self { path, forget }))
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
        let unreadable = |error| refused("FindFirstFile", &self.path, &error);
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(unreadable)? {
            let name = entry.map_err(unreadable)?.file_name();
            files.extend(name.to_str().map(ToOwned::to_owned));
        }
        let mut all = Vec::new();
        for file in files {
            let Some((hash, rest)) = file.split_once('.') else {
                continue;
            };
            if hash.len() != HASH_DIGITS {
                continue;
            }
            if rest == "lock" {
                drop(self.elect(hash, false));
            } else if rest.starts_with("gone") {
                let _ = fs::remove_file(self.path.join(&file));
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
            let Some(open) = self.open_file(file, Create::No)? else {
                return Ok(None);
            };
            let record = match self.read(file, &open)? {
                Some(record) if is_wanted(&record) => record,
                _ => return Ok(None),
            };
            if self.try_lock(file, &open, true)? {
                let is_current = self.is_current(file, open.id);
                if is_current && !record.persistent {
                    // If it cannot be removed, it is stale all the same.
                    let _ = self.erase(file, Some(record.id), true);
                }
                file::unlock(&open.file);
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
    pub(super) fn hold(
        self: &Arc<Self>,
        found: Found,
        deadline: &mut Deadline,
    ) -> Result<Option<Entry>> {
        let Found { file, open, record } = found;
        while !self.try_lock(&file, &open, false)? {
            deadline.wait()?;
        }
        if !self.is_current(&file, open.id) {
            return Ok(None);
        }
        Ok(Some(Entry::new(self, file, open, &record)))
    }

    /// Removes an entry whose segment is gone, unless a process holds it.
    pub(super) fn discard(&self, Found { file, open, record }: &Found) -> Result<()> {
        if self.try_lock(file, open, true)? {
            if self.is_current(file, open.id) {
                let _ = self.erase(file, Some(record.id), true);
            }
            file::unlock(&open.file);
        }
        Ok(())
    }

    /// Returns the right to create or remove the entries of a hash, unless another process has it. If there
    /// is no lock file, creates it, or returns `None`.
    pub(super) fn elect(self: &Arc<Self>, hash: &str, create: bool) -> Result<Option<Election>> {
        let file = format!("{hash}.lock");
        let create = if create { Create::IfAbsent } else { Create::No };
        for _ in 0..TRIES {
            let Some(lock) = self.open_file(&file, create)? else {
                return Ok(None);
            };
            if !self.try_lock(&file, &lock, true)? {
                return Ok(None);
            }
            if self.is_current(&file, lock.id) {
                return Ok(Some(Election {
                    directory: Arc::clone(self),
                    hash: hash.to_owned(),
                    lock,
                }));
            }
        }
        Ok(None)
    }

    /// Opens a file if it exists. Anything but a regular file of this user is an error.
    fn open_file(&self, file: &str, create: Create) -> Result<Option<Open>> {
        let path = self.path.join(file);
        let opened = OpenOptions::new()
            .read(true)
            .write(create != Create::No)
            .create(create == Create::IfAbsent)
            .create_new(create == Create::New)
            .custom_flags(FILE_FLAG_OPEN_REPARSE_POINT)
            .open(&path);
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(_) if is_no_file(&path) => return Err(not_an_entry(&path)),
            Err(error) => return Err(refused("CreateFile", &path, &error)),
        };
        let examined = |error| refused("GetFileInformationByHandle", &path, &error);
        if !opened.metadata().map_err(examined)?.is_file() || !file::is_file_ours(&opened)? {
            return Err(not_an_entry(&path));
        }
        let id = FileId::of(&opened).map_err(examined)?;
        Ok(Some(Open { file: opened, id }))
    }

    /// Returns what the entry says, or `None` if it is damaged.
    fn read(&self, file: &str, open: &Open) -> Result<Option<Record>> {
        let mut bytes = Vec::new();
        // One byte more than an entry can have.
        let mut limited = (&open.file).take(MAX_RECORD as u64 + 1);
        match limited.read_to_end(&mut bytes) {
            Ok(_) => Ok(Record::parse(&bytes)),
            Err(error) => Err(refused("ReadFile", &self.path.join(file), &error)),
        }
    }

    /// Takes a lock without waiting. Returns `false` if another process has one that excludes it.
    fn try_lock(&self, file: &str, open: &Open, exclusive: bool) -> Result<bool> {
        file::try_lock(&open.file, exclusive)
            .map_err(|error| refused("LockFileEx", &self.path.join(file), &error))
    }

    /// Returns `true` if the name leads to this file.
    fn is_current(&self, file: &str, id: FileId) -> bool {
        let found = OpenOptions::new()
            .access_mode(0)
            .custom_flags(FILE_FLAG_OPEN_REPARSE_POINT)
            .open(self.path.join(file));
        found
            .and_then(|found| FileId::of(&found))
            .is_ok_and(|found| found == id)
    }

    /// Removes an entry that this process has locked exclusively, and the name of its memory.
    fn erase(&self, file: &str, segment: Option<ShMemId>, if_unused: bool) -> Result<()> {
        if let Some(segment) = segment {
            (self.forget)(segment, if_unused);
        }
        let path = self.path.join(file);
        if is_no_file(&path) {
            return Err(not_an_entry(&path));
        }
        let hash = file.split_once('.').map_or(file, |(hash, _)| hash);
        let mut renamed = Ok(());
        for number in 0..TRIES {
            let gone = self.path.join(format!("{hash}.gone{number}"));
            renamed = fs::rename(&path, &gone);
            match &renamed {
                Ok(()) => {
                    let _ = fs::remove_file(&gone);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                // Others may have garbage of this name open.
                Err(_) => {}
            }
        }
        renamed.map_err(|error| refused("MoveFileEx", &path, &error))
    }
}

impl Election {
    /// Registers a segment, and holds the entry. Returns `None` if this process has lost the right, because
    /// a person has removed the lock file.
    pub(super) fn publish(&self, record: &Record) -> Result<Option<Entry>> {
        let Self {
            directory, hash, ..
        } = self;
        if !self.is_valid() {
            return Ok(None);
        }
        let draft = format!("{hash}.new");
        let from = directory.path.join(&draft);
        directory.erase(&draft, None, true)?;
        let Some(new) = directory.open_file(&draft, Create::New)? else {
            return Err(refused("CreateFile", &from, &ErrorKind::NotFound.into()));
        };
        let written = (&new.file).write_all(&record.to_bytes());
        written.map_err(|error| refused("WriteFile", &from, &error))?;
        directory.try_lock(&draft, &new, false)?;
        for place in 0..PLACES {
            let file = format!("{hash}.{place}");
            if let Some(old) = directory.open_file(&file, Create::No)? {
                let known = directory.read(&file, &old)?;
                let is_free = !known.as_ref().is_some_and(|known| known.persistent)
                    && directory.try_lock(&file, &old, true)?;
                if !is_free {
                    continue;
                }
                directory.erase(&file, known.map(|known| known.id), true)?;
            }
            let renamed = fs::rename(&from, directory.path.join(&file));
            renamed.map_err(|error| refused("MoveFileEx", &from, &error))?;
            return Ok(Some(Entry::new(directory, file, new, record)));
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

    /// Returns `false` if the lock file was removed.
    fn is_valid(&self) -> bool {
        let file = format!("{}.lock", self.hash);
        self.directory.is_current(&file, self.lock.id)
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
    }
}

impl Entry {
    fn new(directory: &Arc<Directory>, file: String, open: Open, record: &Record) -> Self {
        Self {
            directory: Arc::clone(directory),
            file,
            id: open.id,
            locked: Some(open),
            segment: record.id,
            persistent: record.persistent,
        }
    }

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
        let Ok(Some(open)) = directory.open_file(file, Create::No) else {
            return;
        };
        if open.id != self.id || !directory.try_lock(file, &open, true).unwrap_or(false) {
            return;
        }
        if directory.is_current(file, open.id) {
            let _ = directory.erase(file, Some(self.segment), false);
        }
        drop(open);
        // The creator may have been killed before it removed its lock file.
        if let Some((hash, _)) = file.split_once('.') {
            drop(directory.elect(hash, false));
        }
    }
}

/// Returns the directory of names, and where its path comes from. The default is one for each session,
/// because the names of sections are.
fn locate(chosen: Option<&Path>) -> (PathBuf, AddressOrigin) {
    if let Some(chosen) = chosen {
        let absolute = path::absolute(chosen).unwrap_or_else(|_| chosen.into());
        return (absolute, AddressOrigin::Program);
    }
    if let Some(path) = env::var_os(VARIABLE) {
        return (path.into(), AddressOrigin::ShMemNames);
    }
    let data = env::var_os("LOCALAPPDATA").map(PathBuf::from);
    let data = data.filter(|path| path.is_absolute());
    let mut path = data.unwrap_or_else(env::temp_dir);
    path.push("shmem_providers");
    // A process whose session is unknown shares its names with no other one.
    let session =
        file::session().map_or_else(|| format!("process-{}", process::id()), |n| format!("{n}"));
    path.push(format!("names-{session}"));
    (path, AddressOrigin::Default)
}

/// Returns `true` if something other than a regular file has this name.
fn is_no_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| !found.is_file())
}

fn refused(call: &'static str, path: &Path, error: &io::Error) -> Error {
    Error::Named {
        name: String::new(),
        reason: NamedError::Os {
            call,
            path: path.to_string_lossy().into_owned(),
            errno: error.raw_os_error().unwrap_or_default(),
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
