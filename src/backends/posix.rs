//! POSIX shared memory: `shm_open(3)`, on every Unix but Android.
//!
//! A name that every process of the system sees, on Linux a file in `/dev/shm`. Targets in the
//! manner of AFL built with `USEMMAP` open it after `exec`, so the name has to stay: it is unlinked
//! by the process that made the segment, when that drops it. Names are random, made with `O_EXCL`,
//! and at most 19 bytes, the slash included, so that they are ids.
//!
//! A process that is killed leaves its names. On Linux a lock on the file tells whether any process has a
//! segment open, and what nobody has open is removed by whoever makes the next one: the protocol is in
//! `sys/unix/dev_shm.rs`.
//!
//! It is the last of the default's choices on Linux: names outlive a creator that is killed, a
//! container's `/dev/shm` may have 64 MiB only, and files in it cannot be sealed, so that a peer of
//! the same user can shrink one under the others.

use core::ffi::CStr;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fd::OwnedFd;
use rustix::io::Errno;

use crate::backend::{
    Attach, Backend, Cleanup, Created, Exclusive, Expected, Lifecycle, Request, Snapshots, Sparse,
};
use crate::error::{Error, Result, Subject};
use crate::id::ShMemId;
use crate::id::kind::IdKind;
use crate::memory::mapping::Mapping;
use crate::options::{OptionReport, UNSUPPORTED};
use crate::provider::Provider;
use crate::segment::Segment;
use crate::sys::{self, FileInfo, failed, failed_for, limits, shm_names};
use crate::util::base64;

/// Makes segments with `shm_open(3)`.
///
/// The id is the name: what targets built with `USEMMAP` pass to `shm_open`.
///
/// # Lifetime
///
/// The memory lives for as long as a process has it mapped, or its name exists. The process that
/// made the segment unlinks the name when it drops the segment: from then on the id no longer opens
/// it, though every process that is attached stays so.
///
/// A process that is killed, or ends by `exit` with a segment in a static, does not drop it. Then the
/// name stays, and with it the memory: on Linux until no process holds the segment any more and another
/// process of the same user makes its first POSIX segment, or one calls
/// [`remove_orphans`](Self::remove_orphans); a name that was chosen
/// ([`new_shmem_with_id`](Self::new_shmem_with_id)) until it is chosen again. Elsewhere, until
/// [`remove`](Self::remove) is called. [`persist`](Segment::persist) keeps the name on purpose.
///
/// A process holds a segment for as long as it, or a child that it has forked, has the segment mapped by
/// this crate. Programs that open the name by other means, like targets built with `USEMMAP`, do not
/// count: the process that has started them does.
///
/// # Security
///
/// Only processes of the same user get in: mode 0600 (on Linux with the sticky bit, which has no meaning
/// for files and marks those that may be cleaned up), and whoever attaches looks before it opens: at the
/// owner, because every user can make names, and at the mode, because a file that group or others may
/// write is refused. On Linux anything but a regular file with a single name is refused too.
///
/// A peer of the same user can shrink the file, or take memory away from it while `/dev/shm` is full;
/// whoever then touches such a page gets a SIGBUS. The only protection from that is another provider.
///
/// # Platform notes
///
/// On Linux the memory is reserved when the segment is made, and that of a segment which another program
/// has made without reserving it when it is attached, so that a full `/dev/shm` is an error and not a
/// SIGBUS later. Each holder needs a descriptor. Where a sandbox forbids `flock(2)`, and on
/// other systems, no name is cleaned up. On macOS, which does not tell objects apart, dropping a segment
/// removes its name also if it was removed meanwhile and given to a newer one.
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

/// How many random names are tried. None of 64 bits exists; but a process that cleans up can take each
/// of them before the file is locked, which happens only if both run at the same moment.
const TRIES: usize = 1000;

/// What random names start with.
const PREFIX: &str = "/shmem-";

/// How many names that could be ours are looked at before the first segment of a process is made.
const MOST: usize = 1000;

impl MmapShMemProvider {
    /// A provider whose ids are the names of its segments. All providers of this kind are such, so
    /// this is the same as [`new`](crate::ShMemProvider::new), which can fail for others.
    #[must_use]
    pub fn with_filename_as_id() -> Self {
        Self::default()
    }

    /// Makes a segment of `map_size` zero bytes under a name of your choice: one component, with or
    /// without the slash in front, of 18 bytes at most without it.
    ///
    /// On Linux, if a segment has that name which this crate has made, of the same user, that was not
    /// [persisted](Segment::persist) and that no process holds, it is removed first: so a program that
    /// was killed can use the same name again.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidId`] if that is no such name, [`Error::Os`] with `EEXIST` if it is taken; otherwise
    /// as [`new_shmem`](crate::ShMemProvider::new_shmem).
    ///
    /// # Security
    ///
    /// A name that others can guess can be taken by other users before you.
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
        let created = create_named(id, size, |fd| sys::reserve(fd, size))?;
        Ok(Segment::from_created(created, &self.backend))
    }

    /// Removes the name of a segment that nobody will remove otherwise: because it was
    /// [persisted](Segment::persist), or because its creator was killed.
    ///
    /// Every process that is attached stays so; the memory is freed with the last of them.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidId`] if the id is no name, [`Error::Gone`] if there is no such segment,
    /// [`Error::OtherUser`] if it is another user's, even for root, [`Error::Foreign`] if it is no file
    /// of shared memory.
    pub fn remove(id: ShMemId) -> Result<()> {
        shm_names::unlink_any(name(&id)?, &id)?;
        Ok(())
    }
}

impl MmapShMemProvider {
    /// Removes the segments that no process holds any more, because their creators were killed or ended
    /// without dropping them. Returns how many were removed.
    ///
    /// There is rarely a need to call it: every process does the same before it makes its first POSIX
    /// segment, and again when `/dev/shm` is full, but looks at no more than 1000 segments the first
    /// time.
    ///
    /// # Lifetime
    ///
    /// Only segments of this user with random names, made by this crate, are removed: not what was
    /// [persisted](Segment::persist), what has a chosen name, or what another program has made. A
    /// segment is held by stopped processes and by forked children too, in any container that shares
    /// `/dev/shm`.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if `/dev/shm` cannot be read.
    ///
    /// # Platform notes
    ///
    /// Linux, where `flock(2)` is permitted. Elsewhere nothing tells whether a segment is held, and none
    /// is removed.
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
    /// println!("{removed} segments had been left");
    /// // This one is held.
    /// assert_eq!(provider.shmem_from_id(segment.id())?.len(), 4096);
    /// # Ok::<(), shmem_providers::Error>(())
    /// ```
    pub fn remove_orphans() -> Result<usize> {
        shm_names::remove_unused(is_random_name, usize::MAX)
    }
}

impl MmapShMem {
    /// Leaves the segment to live by itself: its name stays when this process drops it or ends.
    ///
    /// # Lifetime
    ///
    /// Until [`MmapShMemProvider::remove`] is called with its id, or the machine is restarted.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] if the system does not let the mark be removed by which the segment would be cleaned
    /// up. Then the segment is dropped.
    pub fn persist(mut self) -> Result<Self> {
        if let Some(handle) = &self.handle {
            shm_names::persist(handle)?;
        }
        self.keep_name();
        Ok(self)
    }

    /// The name, with its slash in front, followed by zeros; `None` once the segment is released.
    #[must_use]
    pub fn filename_path(&self) -> Option<&[u8; 20]> {
        self.handle.as_ref().map(|_| self.id.as_array())
    }
}

impl Backend for PosixBackend {
    type Handle = OwnedFd;

    fn create(&self, request: Request<'_>) -> Result<Created<OwnedFd>> {
        let Request { size, options, .. } = request;
        let mut report = options.refused(&UNSUPPORTED)?;
        let mut created = match request.content {
            None => create_unique(size, |fd| sys::reserve(fd, size)),
            // Writing reserves the memory as well.
            Some(content) => create_unique(size, |fd| {
                limits::check_file_size(size)?;
                sys::write_at(fd, 0, content, limits::for_dev_shm)
            }),
        }?;
        let options = options.without_huge_pages();
        sys::apply_options(&mut created.mapping, options, &mut report);
        Ok(Created { report, ..created })
    }

    fn open(&self, id: &ShMemId, _expected: Expected) -> Result<OwnedFd> {
        shm_names::open(name(id)?, id)
    }

    fn duplicate(&self, handle: &OwnedFd) -> Result<OwnedFd> {
        sys::duplicate(handle)
    }

    fn map(&self, handle: &OwnedFd, attach: Attach) -> Result<(Mapping, OptionReport)> {
        let mut report = attach.options.refused(&UNSUPPORTED)?;
        let facts = FileInfo::of(handle)?;
        sys::check_owner(facts.owner)?;
        let len = facts.mapped_len(attach.len)?;
        sys::refuse_huge_pages(handle, &facts)?;
        sys::reserve_existing(handle, len)?;
        let mut mapping = sys::map_fd(handle, len)?;
        let options = attach.options.without_huge_pages();
        sys::apply_options(&mut mapping, options, &mut report);
        Ok((mapping, report))
    }

    fn unlink(&self, handle: &OwnedFd, id: &ShMemId) -> Result<()> {
        shm_names::unlink_own(handle, name(id)?, id)
    }
}

impl Lifecycle for PosixBackend {}

impl Exclusive for PosixBackend {}

impl Sparse for PosixBackend {
    fn next_data(&self, handle: &OwnedFd, from: usize, len: usize) -> Result<Option<Range<usize>>> {
        sys::next_data(handle, from, len)
    }
}

impl Snapshots for PosixBackend {}

/// A segment under a new name, whose object `fill` gives that size and the memory for it.
///
/// Once per process, and when there is no room left, what nobody has open is removed before.
fn create_unique(size: usize, fill: impl Fn(&OwnedFd) -> Result<()>) -> Result<Created<OwnedFd>> {
    static CLEANED: AtomicBool = AtomicBool::new(false);

    if !CLEANED.swap(true, Relaxed) {
        // What went wrong will show when the segment is made.
        let _ = shm_names::remove_unused(is_random_name, MOST);
    }
    let mut failure = failed("shm_open", Errno::EXIST, Subject::Bytes(size));
    for _ in 0..TRIES {
        match create(random_name()?, size, &fill) {
            Err(error) if is(&error, Errno::EXIST) => failure = error,
            Err(error) if is(&error, Errno::NOSPC) => {
                let removed = shm_names::remove_unused(is_random_name, usize::MAX);
                if removed.is_ok_and(|removed| removed > 0) {
                    failure = error;
                } else {
                    return Err(error);
                }
            }
            done => return done,
        }
    }
    Err(failure)
}

/// A segment under a chosen name. What a process left under it that was killed gives way.
#[cfg(feature = "std")]
fn create_named(
    id: ShMemId,
    size: usize,
    fill: impl Fn(&OwnedFd) -> Result<()>,
) -> Result<Created<OwnedFd>> {
    match create(id, size, &fill) {
        Err(error) if is(&error, Errno::EXIST) && shm_names::remove_if_unused(name(&id)?) => {
            create(id, size, fill)
        }
        done => done,
    }
}

/// A segment with this id. After an error the name does not exist, unless it did before.
fn create(
    id: ShMemId,
    size: usize,
    fill: impl Fn(&OwnedFd) -> Result<()>,
) -> Result<Created<OwnedFd>> {
    let name = name(&id)?;
    let fd = shm_names::create(name)
        .map_err(|errno| failed_for("shm_open", errno, Subject::Id(id), limits::for_dev_shm))?;
    let mapping = fill(&fd).and_then(|()| sys::map_fd(&fd, size));
    match mapping {
        Ok(mapping) => Ok(Created {
            handle: fd,
            id,
            mapping,
            cleanup: Cleanup::Unlink,
            report: OptionReport::default(),
        }),
        Err(error) => {
            // The first error is the one to tell.
            let _ = shm_names::unlink_own(&fd, name, &id);
            Err(error)
        }
    }
}

fn is(error: &Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// Returns the name that the id is.
fn name(id: &ShMemId) -> Result<&CStr> {
    if id.kind() != IdKind::Posix {
        return Err(id.invalid("a POSIX name starts with a slash"));
    }
    CStr::from_bytes_until_nul(id.as_array()).map_err(|_| id.invalid("a name ends with a zero"))
}

fn random_name() -> Result<ShMemId> {
    let random = base64::digits::<11>(sys::nonce()?);
    Ok(ShMemId::joined(&[PREFIX.as_bytes(), &random]))
}

/// Whether the text, with its slash, is a name that [`random_name`] could have made.
fn is_random_name(text: &str) -> bool {
    text.strip_prefix(PREFIX)
        .is_some_and(base64::is_digits::<11>)
}
