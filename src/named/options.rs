//! [`NamedOptions`]: creates, opens, lists and removes the segments of names.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;
use std::path::{Path, PathBuf};

use super::record::{Name, Record};
use super::registry::{Directory, Election, Entry, Found};
use super::{Deadline, NameHold, Named, NamedInfo};
use crate::error::{Error, NamedError, Result};
use crate::memory::size::check_size;
use crate::platform::StdShMemProvider;
use crate::traits::{ShMem, ShMemProvider};

/// How long other processes may take to initialise a segment, unless the caller chooses a time.
const TIMEOUT: Duration = Duration::from_secs(30);

/// When a name ends.
///
/// # Examples
///
/// ```
/// # #[cfg(not(unix))] fn main() {}
/// # #[cfg(unix)] fn main() -> shmem_providers::Result<()> {
/// use shmem_providers::{MmapShMemProvider, NamedOptions, Persist, ShMemProvider};
///
/// # if let Err(error) = MmapShMemProvider::new()?.new_shmem(1) {
/// #     eprintln!("skipped: {error}");
/// #     return Ok(());
/// # }
/// # let name = &format!("example-of-persist-{}", std::process::id());
/// let options = NamedOptions::with_provider(MmapShMemProvider::new()?).persist(Persist::UntilRemoved);
/// drop(options.open_or_create(name, 64, |bytes| bytes.fill(1))?);
/// assert_eq!(options.open(name)?[..], [1; 64]);
/// options.remove(name)?;
/// assert!(options.open(name).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Persist {
    /// With its last holder, as its segment does.
    #[default]
    WithHolders,
    /// When it is [removed](NamedOptions::remove), or when the machine restarts. The segment stays until
    /// then, too.
    ///
    /// That needs POSIX segments: `MmapShMemProvider`, or the default provider on Linux, which then selects
    /// them. Creating a name with another provider is [`Error::Unsupported`].
    UntilRemoved,
}

/// How to create and open the segments of names: with which provider, in which directory, and for how long.
///
/// # Examples
///
/// ```
/// # #[cfg(not(any(unix, windows)))] fn main() {}
/// # #[cfg(any(unix, windows))] fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use shmem_providers::NamedOptions;
///
/// # let directory = tempfile::tempdir()?;
/// let options = NamedOptions::new()
///     .directory(directory.path())
///     .timeout(Duration::from_secs(2));
/// let cache = options.open_or_create("cache", 64, |bytes| bytes.fill(1))?;
/// assert_eq!(options.list()?.len(), 1);
/// drop(cache);
/// assert!(options.list()?.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct NamedOptions<P: ShMemProvider = StdShMemProvider> {
    /// `None` for one that is created when it is needed.
    provider: Option<P>,
    directory: Option<PathBuf>,
    persist: Persist,
    timeout: Duration,
}

impl NamedOptions {
    /// Returns the options that [`Named::open_or_create`] uses: the default provider and directory, until
    /// the last holder has dropped the name.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl<P: ShMemProvider> Default for NamedOptions<P> {
    fn default() -> Self {
        Self {
            provider: None,
            directory: None,
            persist: Persist::default(),
            timeout: TIMEOUT,
        }
    }
}

impl<P: ShMemProvider> NamedOptions<P> {
    /// Returns the same for this provider. All programs that share a name use the same one.
    #[must_use]
    pub fn with_provider(provider: P) -> Self {
        Self {
            provider: Some(provider),
            ..Self::default()
        }
    }

    /// Registers names in this directory, which belongs to this user, and to which no other user can write.
    /// It is created if it does not exist, and never removed.
    #[must_use]
    pub fn directory(mut self, path: impl AsRef<Path>) -> Self {
        self.directory = Some(path.as_ref().into());
        self
    }

    /// Sets when names end that are created with these options. A name that exists keeps its lifetime.
    #[must_use]
    pub fn persist(mut self, persist: Persist) -> Self {
        self.persist = persist;
        self
    }

    /// Sets how long to wait for another process that initialises the segment. The default is 30 seconds.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// As [`Named::open_or_create`], with these options.
    ///
    /// # Errors
    ///
    /// As [`Named::open_or_create`], and [`Error::Unsupported`] if the provider cannot
    /// [persist](Persist::UntilRemoved) segments.
    pub fn open_or_create(
        &self,
        name: impl AsRef<str>,
        size: usize,
        init: impl FnOnce(&mut [u8]),
    ) -> Result<Named<P>> {
        self.try_open_or_create(name, size, |bytes| {
            init(bytes);
            Ok(())
        })
    }

    /// As [`open_or_create`](Self::open_or_create), for an `init` that can fail. Then there is no segment,
    /// and the next process that asks for the name creates one.
    ///
    /// # Errors
    ///
    /// As [`open_or_create`](Self::open_or_create), and the error of `init`.
    pub fn try_open_or_create<E: From<Error>>(
        &self,
        name: impl AsRef<str>,
        size: usize,
        init: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Named<P>, E> {
        let name = Name::new(name.as_ref())?;
        check_size(size)?;
        let mut call = name.complete(self.call())?;
        let mut election = match name.complete(call.open_or_elect(&name, size))? {
            Turn::Opened(named) => return Ok(named),
            Turn::Elected(election) => election,
        };
        let persistent = self.persist == Persist::UntilRemoved;
        let mut segment = call.provider.new_for_name(size, persistent)?;
        init(&mut segment)?;
        let record = Record {
            name: name.text.into(),
            id: segment.id(),
            size: segment.len(),
            persistent,
        };
        let entry = loop {
            if let Some(entry) = name.complete(election.publish(&record))? {
                break entry;
            }
            election = match name.complete(call.open_or_elect(&name, size))? {
                Turn::Opened(named) => return Ok(named),
                Turn::Elected(election) => election,
            };
        };
        // Only now: before, a process that was killed would leave memory that no process knows.
        if let Err(error) = call.provider.keep_for_name(&mut segment, persistent) {
            entry.abandon();
            return Err(error.into());
        }
        Ok(Named {
            hold: NameHold::new(&name, true, entry),
            segment,
        })
    }

    /// As [`Named::open`], with these options.
    ///
    /// # Errors
    ///
    /// As [`Named::open`].
    pub fn open(&self, name: impl AsRef<str>) -> Result<Named<P>> {
        let name = Name::new(name.as_ref())?;
        name.complete(self.call().and_then(|mut call| call.open(&name, 0)))
    }

    /// As [`Named::list`], in the directory of these options.
    ///
    /// # Errors
    ///
    /// As [`Named::list`].
    pub fn list(&self) -> Result<Vec<NamedInfo>> {
        let mut call = self.call()?;
        let mut listed = Vec::new();
        for found in call.directory.all(&mut call.deadline)? {
            let record = found.record.clone();
            let persist = if record.persistent {
                let opened = call.provider.shmem_from_description(record.description());
                if opened.is_err_and(|error| error.is_not_found()) {
                    call.directory.discard(&found)?;
                    continue;
                }
                Persist::UntilRemoved
            } else {
                Persist::WithHolders
            };
            // If another process is removing it, it is not in use.
            let held = call.directory.hold(found, &mut call.deadline);
            if held.is_ok_and(|held| held.is_some()) {
                listed.push(NamedInfo {
                    name: record.name,
                    id: record.id,
                    size: record.size,
                    persist,
                });
            }
        }
        Ok(listed)
    }

    /// As [`Named::remove`], in the directory of these options.
    ///
    /// # Errors
    ///
    /// As [`Named::remove`].
    pub fn remove(&self, name: impl AsRef<str>) -> Result<()> {
        let name = Name::new(name.as_ref())?;
        let remove = || {
            let mut call = self.call()?;
            let election = loop {
                match call.directory.elect(name.hash(), true)? {
                    Some(election) => break election,
                    None => call.deadline.wait()?,
                }
            };
            match call.look_up(&name)? {
                Some(found) => election.remove(&found),
                None => Err(name.error(NamedError::Unknown)),
            }
        };
        name.complete(remove())
    }

    fn call(&self) -> Result<Call<P>> {
        Ok(Call {
            directory: Directory::open(self.directory.as_deref(), P::forget_for_name)?,
            provider: self.provider.clone().map_or_else(P::new, Ok)?,
            deadline: Deadline::after(self.timeout),
        })
    }
}

/// A call of one of the functions of [`NamedOptions`].
struct Call<P> {
    provider: P,
    directory: Arc<Directory>,
    deadline: Deadline,
}

/// What a call gets that may create a segment.
enum Turn<P: ShMemProvider> {
    Opened(Named<P>),
    Elected(Election),
}

impl<P: ShMemProvider> Call<P> {
    fn look_up(&mut self, name: &Name<'_>) -> Result<Option<Found>> {
        let key = (name.hash(), name.text);
        self.directory.look_up(key, &mut self.deadline)
    }

    /// Opens a segment of at least `size` bytes.
    fn open(&mut self, name: &Name<'_>, size: usize) -> Result<Named<P>> {
        let found = self.find(name, size)?;
        found.ok_or_else(|| name.error(NamedError::Unknown))
    }

    /// Opens a segment of at least `size` bytes, or returns the right to create it.
    fn open_or_elect(&mut self, name: &Name<'_>, size: usize) -> Result<Turn<P>> {
        loop {
            if let Some(named) = self.find(name, size)? {
                return Ok(Turn::Opened(named));
            }
            if let Some(election) = self.directory.elect(name.hash(), true)? {
                // Another process may have created it between the two calls.
                return Ok(match self.find(name, size)? {
                    Some(named) => Turn::Opened(named),
                    None => Turn::Elected(election),
                });
            }
            self.deadline.wait()?;
        }
    }

    /// Opens a segment of at least `size` bytes, if there is one of this name.
    fn find(&mut self, name: &Name<'_>, size: usize) -> Result<Option<Named<P>>> {
        loop {
            let Some(found) = self.look_up(name)? else {
                return Ok(None);
            };
            let description = found.record.description();
            let mut segment = match self.provider.shmem_from_description(description) {
                Err(error) if error.is_not_found() => {
                    // The last holder is ending, or the machine was restarted.
                    self.directory.discard(&found)?;
                    self.deadline.wait().map_err(|_| error)?;
                    continue;
                }
                opened => opened?,
            };
            if size > segment.len() {
                return Err(Error::TooLarge {
                    asked: size,
                    actual: segment.len(),
                });
            }
            let is_persistent = found.record.persistent;
            let Some(entry) = self.directory.hold(found, &mut self.deadline)? else {
                continue;
            };
            if is_persistent {
                // The creator may have been killed before it did so.
                self.provider.keep_for_name(&mut segment, true)?;
            }
            return Ok(Some(Named {
                hold: NameHold::new(name, false, entry),
                segment,
            }));
        }
    }
}

impl NameHold {
    fn new(name: &Name<'_>, is_creator: bool, entry: Entry) -> Self {
        Self {
            name: name.text.into(),
            is_creator,
            _entry: entry,
        }
    }
}

impl Name<'_> {
    /// Adds the name to an error that lacks it.
    fn complete<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| match error {
            Error::Named { name, reason } if name.is_empty() => self.error(reason),
            error => error,
        })
    }
}
