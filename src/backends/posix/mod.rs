//! POSIX shared memory: `shm_open(3)`, on every Unix but Android.
//!
//! A segment has a name that every process of the system sees, on Linux a file in `/dev/shm`.
//! AFL-style targets built with `USEMMAP` open it after `exec`, so the name has to stay: the process
//! that created the segment unlinks it when it drops the segment. Names are random, created with
//! `O_EXCL`, and have at most 19 bytes including the slash, so that they are ids.
//!
//! A process that is killed leaves its names behind. On Linux a lock on the file shows whether any
//! process has the segment open, and the next process that creates a segment removes those that no
//! process has open. `sys/linux/dev_shm.rs` describes the protocol.
//!
//! On Linux this is the last choice of the default: names outlive a creator that is killed, a
//! container's `/dev/shm` may have only 64 MiB, and its files cannot be sealed, so that a peer of the
//! same user can shrink a segment.

mod names;
mod single_writer;

use core::ops::Range;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::backend::{
    Attach, Backend, Created, Exclusive, Expected, Growable, Lifecycle, NOT_FREEZABLE, NOT_THE_ONE,
    Request, Snapshots, Sparse,
};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::id::ShMemId;
use crate::id::kind::IdKind;
use crate::memory::mapping::{Mapping, Protection};
use crate::options::{OptionReport, UNSUPPORTED};
use crate::provider::Provider;
use crate::segment::Segment;
use crate::sys::growth::{self, Memory};
use crate::sys::{self, FileInfo, shm_names};

/// Creates segments with `shm_open(3)`.
///
/// The id is the name, which targets built with `USEMMAP` pass to `shm_open`.
///
/// # Lifetime
///
/// The memory lives as long as a process has it mapped or its name exists. The process that created
/// the segment unlinks the name when it drops the segment. From then on the id no longer opens it,
/// but processes that are attached stay attached.
///
/// A process that is killed, or that ends by `exit` with a segment in a static, does not drop it.
/// Then the name stays, and so does the memory. On Linux a segment with a random name is removed
/// once no process holds it and another process of the same user creates its first POSIX segment or
/// calls [`remove_orphans`](Self::remove_orphans); a chosen name
/// ([`new_shmem_with_id`](Self::new_shmem_with_id)) is removed when it is chosen again. On other
/// systems, the name stays until [`remove`](Self::remove) is called. [`persist`](Segment::persist)
/// keeps the name deliberately.
///
/// A process holds a segment as long as it, or a child that it has forked, has the segment mapped
/// by this crate. Programs that open the name in another way, such as targets built with `USEMMAP`,
/// do not count: the process that started them does.
///
/// # Security
///
/// Only processes of the same user get in: the mode is 0600 (on Linux with the sticky bit, which
/// has no meaning for files and marks those that may be removed once they are unused). Attaching
/// checks the owner before it opens a file, because every user can create names, and refuses files
/// that group or others may write. On Linux it also refuses anything but a regular file with a
/// single name.
///
/// A peer of the same user can shrink the file, or free its memory while `/dev/shm` is full; then
/// the next access to a page causes a SIGBUS. The only protection against that is another provider.
///
/// # Platform notes
///
/// On Linux the memory is reserved when the segment is created, and, if another program created the
/// segment without reserving its memory, when it is attached to, so that a full `/dev/shm` is an
/// error and not a SIGBUS later. Each holder needs a descriptor. Where a sandbox forbids
/// `flock(2)`, and on other systems, unused names are not removed. macOS does not tell objects
/// apart, so dropping a segment there removes its name even if the name was removed before and now
/// belongs to a newer segment.
///
/// # Examples
///
/// ```
/// use shmem_providers::{MmapShMemProvider, ShMem, ShMemProvider};
///
/// let mut provider = MmapShMemProvider::new()?;
/// # if let Err(error) = provider.new_shmem(1) {
/// #     eprintln!("skipped: {error}");
/// #     return Ok(());
/// # }
/// let segment = provider.new_shmem(4096)?;
/// assert!(segment.id().as_str().starts_with('/'));
/// assert_eq!(provider.shmem_from_id(segment.id())?.len(), 4096);
/// # Ok::<(), shmem_providers::Error>(())
/// ```
pub type MmapShMemProvider = Provider<PosixBackend>;

/// A segment of [`MmapShMemProvider`].
pub type MmapShMem = Segment<PosixBackend>;

/// The backend of [`MmapShMemProvider`].
#[derive(Clone, Copy, Debug, Default)]
pub struct PosixBackend;

impl MmapShMemProvider {
    /// Creates a provider whose ids are the names of its segments.
    ///
    /// That is true of every provider of this type, so this is the same as
    /// [`new`](crate::ShMemProvider::new), but cannot fail.
    #[must_use]
    pub fn with_filename_as_id() -> Self {
        Self::default()
    }

    /// Creates a segment of `map_size` zero bytes under a name of your choice: one component, with
    /// or without a leading slash, and at most 18 bytes without it.
    ///
    /// On Linux, a segment that has this name is removed first if this crate created it for the
    /// same user, if it was not [persisted](Segment::persist), and if no process holds it. So a
    /// program that was killed can use the same name again.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidId`] if the name does not have this form, [`Error::Os`] with `EEXIST` if it
    /// is taken; otherwise as [`new_shmem`](crate::ShMemProvider::new_shmem).
    ///
    /// # Security
    ///
    /// Other users can create a name that they can guess before you do.
    ///
    /// # Examples
    ///
    /// ```
    /// use shmem_providers::{MmapShMemProvider, ShMem, ShMemProvider};
    ///
    /// let name = format!("pictures-{}", std::process::id());
    /// let mut provider = MmapShMemProvider::new()?;
    /// let segment = provider.new_shmem_with_id(4096, &name)?;
    /// assert_eq!(segment.id().as_str(), format!("/{name}"));
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    #[cfg(feature = "std")]
    pub fn new_shmem_with_id(
        &mut self,
        map_size: usize,
        id_path: impl AsRef<std::path::Path>,
    ) -> Result<MmapShMem> {
        let size = crate::memory::size::check_size(map_size)?;
        let path = id_path.as_ref().to_str().unwrap_or_default();
        let id = ShMemId::from_string(&std::format!("/{}", path.strip_prefix('/').unwrap_or(path)));
        let created = names::create_named(id, |fd| {
            sys::reserve(fd, size)?;
            sys::map_fd(fd, size)
        })?;
        Ok(Segment::from_created(created, &self.backend))
    }

    /// Removes the name of a segment that would otherwise stay, because the segment was
    /// [persisted](Segment::persist) or its creator was killed.
    ///
    /// Processes that are attached stay attached; the memory is freed with the last of them.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidId`] if the id is not a POSIX name, [`Error::Gone`] if there is no such
    /// segment, [`Error::OtherUser`] if it belongs to another user, even for root,
    /// [`Error::Foreign`] if it is not a shared-memory file.
    pub fn remove(id: ShMemId) -> Result<()> {
        shm_names::unlink_any(names::name(&id)?, &id)?;
        Ok(())
    }

    /// Removes the segments that no process holds any more, because their creators were killed or
    /// ended without dropping them. Returns how many were removed.
    ///
    /// It is rarely necessary to call this: every process does the same before it creates its first
    /// POSIX segment (then for at most 1000 segments), and again when `/dev/shm` is full.
    ///
    /// # Lifetime
    ///
    /// Only segments of this user with random names that this crate created are removed, but not
    /// those that were [persisted](Segment::persist), have a chosen name, or were created by
    /// another program. Stopped processes and forked children hold segments too, in every container
    /// that shares `/dev/shm`.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if `/dev/shm` cannot be read.
    ///
    /// # Platform notes
    ///
    /// Linux, where `flock(2)` is permitted. On other systems nothing tells whether a segment is
    /// held, and none is removed.
    ///
    /// # Examples
    ///
    /// ```
    /// use shmem_providers::{MmapShMemProvider, ShMem, ShMemProvider};
    ///
    /// let mut provider = MmapShMemProvider::new()?;
    /// # if let Err(error) = provider.new_shmem(1) {
    /// #     eprintln!("skipped: {error}");
    /// #     return Ok(());
    /// # }
    /// let segment = provider.new_shmem(4096)?;
    /// let removed = MmapShMemProvider::remove_orphans()?;
    /// println!("{removed} orphans were removed");
    /// // The segment above is held.
    /// assert_eq!(provider.shmem_from_id(segment.id())?.len(), 4096);
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    pub fn remove_orphans() -> Result<usize> {
        names::remove_orphans()
    }
}

impl MmapShMem {
    /// Keeps the name of the segment when this process drops it or ends.
    ///
    /// # Lifetime
    ///
    /// Until [`MmapShMemProvider::remove`] is called with its id, or the machine restarts.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if the system does not allow removing the mark of files that are removed once
    /// they are unused. Then the segment is dropped.
    pub fn persist(mut self) -> Result<Self> {
        if let Some(handle) = &self.handle {
            shm_names::persist(handle)?;
        }
        self.keep_name();
        Ok(self)
    }

    /// Returns the name, with its leading slash, followed by zeros. Returns `None` once the segment
    /// is released.
    #[must_use]
    pub fn filename_path(&self) -> Option<&[u8; 20]> {
        self.handle.as_ref().map(|_| self.id.as_array())
    }
}

impl Backend for PosixBackend {
    type Handle = OwnedFd;

    fn create(&self, request: Request<'_>, report: &mut OptionReport) -> Result<Created<OwnedFd>> {
        let Request { size, options, .. } = request;
        options.without_reservation().refuse(&UNSUPPORTED, report)?;
        let mut created = names::create_unique(size, |fd| {
            match (options.reserve, request.content) {
                (Some(max), _) => return growth::create(fd, size, max.max(size), Memory::Limited),
                (None, None) => sys::reserve(fd, size)?,
                // Writing reserves the memory too.
                (None, Some(content)) => {
                    sys::limits::check_file_size(size)?;
                    sys::write_at(fd, 0, content, sys::limits::for_dev_shm)?;
                }
            }
            sys::map_fd(fd, size)
        })?;
        let options = options.without_huge_pages();
        sys::apply_options(&mut created.mapping, options, report);
        Ok(created)
    }

    fn create_served(
        &self,
        request: Request<'_>,
        report: &mut OptionReport,
    ) -> Result<Created<OwnedFd>> {
        if request.options.single_writer {
            return single_writer::create(request, report);
        }
        self.create(request, report)
    }

    fn open(&self, id: &ShMemId, expected: Expected) -> Result<OwnedFd> {
        shm_names::open(names::name(id)?, id, expected.protection)
    }

    fn duplicate(&self, handle: &OwnedFd) -> Result<OwnedFd> {
        sys::duplicate(handle)
    }

    fn map(&self, handle: &OwnedFd, attach: Attach, report: &mut OptionReport) -> Result<Mapping> {
        attach.options.refuse(&UNSUPPORTED, report)?;
        let info = FileInfo::of(handle)?;
        sys::check_owner(info.owner)?;
        sys::refuse_huge_pages(handle, &info)?;
        if attach.protection == Protection::ReadWrite && single_writer::is_one(handle) {
            return Err(sys::HAS_SINGLE_WRITER);
        }
        let mut mapping = if growth::is_growable(&info) {
            growth::attach(
                handle,
                &info,
                attach.len,
                attach.protection,
                Memory::Limited,
            )?
        } else {
            let len = info.mapped_len(attach.len)?;
            sys::reserve_existing(handle, len)?;
            match attach.protection {
                Protection::Read => return sys::map_for_reading(handle, len),
                Protection::ReadWrite => sys::map_fd(handle, len)?,
            }
        };
        let options = attach.options.without_huge_pages();
        sys::apply_options(&mut mapping, options, report);
        Ok(mapping)
    }

    fn unlink(&self, handle: &OwnedFd, id: &ShMemId) -> Result<()> {
        shm_names::unlink_own(handle, names::name(id)?, id)
    }

    fn descriptor<'a>(&self, handle: &'a OwnedFd) -> Option<BorrowedFd<'a>> {
        Some(handle.as_fd())
    }

    fn adopt(&self, fd: OwnedFd, known: Option<ShMemId>) -> Result<(OwnedFd, ShMemId)> {
        let named = shm_names::adopt(&fd)?;
        match known.filter(|id| id.kind() == IdKind::Posix) {
            Some(known) if !named.is_empty() && named != known => Err(NOT_THE_ONE),
            known => Ok((fd, known.unwrap_or(named))),
        }
    }

    fn create_persistable(
        &self,
        request: Request<'_>,
        report: &mut OptionReport,
    ) -> Result<Created<OwnedFd>> {
        self.create(request, report)
    }

    fn persist(&self, handle: &OwnedFd) -> Result<()> {
        shm_names::persist(handle)
    }

    fn forget(id: &ShMemId, if_unused: bool) {
        names::forget(id, if_unused);
    }
}

impl Lifecycle for PosixBackend {}

impl Exclusive for PosixBackend {}

impl Sparse for PosixBackend {
    fn next_data(&self, handle: &OwnedFd, from: usize, len: usize) -> Result<Option<Range<usize>>> {
        sys::next_data(handle, from, len)
    }
}

impl Growable for PosixBackend {
    fn grow(&self, handle: &OwnedFd, mapping: &mut Mapping, len: usize) -> Result<()> {
        let result = growth::grow(handle, mapping, len, Memory::Limited);
        match result {
            Err(error) if names::made_room(&error) => {
                growth::grow(handle, mapping, len, Memory::Limited)
            }
            result => result,
        }
    }
}

impl Snapshots for PosixBackend {
    fn check_freezable(&self, handle: &OwnedFd) -> Result<()> {
        if single_writer::is_one(handle) {
            Ok(())
        } else {
            Err(NOT_FREEZABLE)
        }
    }

    fn freeze(&self, handle: &OwnedFd) -> Result<()> {
        self.check_freezable(handle)?;
        Err(single_writer::UNKNOWN_WRITERS)
    }

    fn freeze_own(&self, handle: &OwnedFd) -> Result<()> {
        self.check_freezable(handle)
    }
}
