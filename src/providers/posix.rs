//! POSIX shared memory: `shm_open(3)`, on every Unix but Android.
//!
//! A name that every process of the system sees, on Linux a file in `/dev/shm`. Targets in the
//! manner of AFL built with `USEMMAP` open it after `exec`, so the name has to stay: it is unlinked
//! by the process that made the segment, when that drops it. Names are random, made with `O_EXCL`,
//! and at most 19 bytes, the slash included, so that they are ids.
//!
//! It is the last of the default's choices on Linux: names outlive a creator that is killed, a
//! container's `/dev/shm` may have 64 MiB only, and files in it cannot be sealed, so that a peer of
//! the same user can shrink one under the others.

use core::ffi::CStr;
use core::ops::Range;

use rustix::fd::OwnedFd;
use rustix::io::Errno;

use crate::ShMemId;
use crate::error::{Error, Result, Subject};
use crate::id::base64;
use crate::mapping::Mapping;
use crate::options::{CANNOT, Grants, ShMemOptions};
use crate::segment::{End, Fresh, Provider, Room, Segment};
use crate::sys::{self, Facts, Opening, failed};
use crate::text::Text;

/// Makes segments with `shm_open(3)`.
///
/// The id is the name: what targets built with `USEMMAP` pass to `shm_open`.
///
/// # Lifetime
///
/// The memory lives for as long as a process has it mapped, or its name exists. The process that
/// made the segment unlinks the name when it drops the segment: from then on the id opens it no
/// more, though who is attached stays so. If that process is killed, the name stays, and with it
/// the memory; remove it with
/// [`remove`](Self::remove). [`persist`](Segment::persist) keeps the name on purpose.
///
/// # Security
///
/// Only processes of the same user get in: mode 0600, and whoever attaches compares the owner,
/// because every user can make names. A peer of the same user can shrink the file; who then touches
/// a page beyond the new end gets a SIGBUS. There is no protection from that but to use another
/// provider.
///
/// # Platform notes
///
/// On Linux the memory is reserved when the segment is made, so that a full `/dev/shm` is an error
/// and not a SIGBUS later. Each holder needs a descriptor.
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
pub type MmapShMemProvider = Provider<Posix>;

/// A segment of [`MmapShMemProvider`].
pub type MmapShMem = Segment<Posix>;

/// The mechanism.
#[derive(Clone, Copy, Debug, Default)]
pub struct Posix;

/// How many random names are tried. A single one of 64 bits that exists means that something is
/// wrong.
const TRIES: usize = 4;

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
    ) -> Result<MmapShMem, crate::Error> {
        let size = crate::shmem::check_size(map_size)?;
        let path = id_path.as_ref().to_str().unwrap_or_default();
        let id = ShMemId::from_string(&std::format!("/{}", path.strip_prefix('/').unwrap_or(path)));
        let fresh = create(id, size, |fd| sys::reserve(fd, size))?;
        Ok(self.adopt(fresh))
    }

    /// Removes the name of a segment that nobody will remove otherwise: because it was
    /// [persisted](Segment::persist), or because its creator was killed.
    ///
    /// Who is attached stays so; the memory is freed with the last of them.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidId`] if the id is no name, [`Error::Gone`] if there is no such segment,
    /// [`Error::OtherUser`] if it is another user's.
    pub fn remove(id: ShMemId) -> Result<(), crate::Error> {
        unlink(&id)?;
        Ok(())
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
    /// None today.
    pub fn persist(mut self) -> Result<Self, crate::Error> {
        self.keep_name();
        Ok(self)
    }

    /// The name, with its slash in front, followed by zeros; `None` once the segment is released.
    #[must_use]
    pub fn filename_path(&self) -> Option<&[u8; 20]> {
        self.handle.as_ref().map(|_| self.id.as_array())
    }
}

impl Room for Posix {
    type Handle = OwnedFd;

    fn create(&self, size: usize) -> Result<Fresh<OwnedFd>> {
        create_anew(size, |fd| sys::reserve(fd, size))
    }

    fn create_with(&self, size: usize, options: ShMemOptions) -> Result<(Fresh<OwnedFd>, Grants)> {
        let mut grants = options.refused(&CANNOT)?;
        let mut fresh = self.create(size)?;
        sys::tune(
            &mut fresh.mapping,
            options.without_huge_pages(),
            &mut grants,
        );
        Ok((fresh, grants))
    }

    fn create_from(&self, bytes: &[u8]) -> Result<Fresh<OwnedFd>> {
        // To write reserves as well.
        create_anew(bytes.len(), |fd| {
            sys::limits::check_file_size(bytes.len())?;
            sys::write_at(fd, 0, bytes)
        })
    }

    fn map_with(
        &self,
        handle: &OwnedFd,
        len: Option<usize>,
        options: ShMemOptions,
    ) -> Result<(Mapping, Grants)> {
        let mut grants = options.refused(&CANNOT)?;
        let mut mapping = self.map(handle, len)?;
        sys::tune(&mut mapping, options.without_huge_pages(), &mut grants);
        Ok((mapping, grants))
    }

    fn open(&self, id: &ShMemId) -> Result<OwnedFd> {
        sys::shm_open(name(id)?, Opening::Existing).map_err(|errno| refused("shm_open", errno, id))
    }

    fn duplicate(&self, handle: &OwnedFd) -> Result<OwnedFd> {
        sys::duplicate(handle)
    }

    fn map(&self, handle: &OwnedFd, len: Option<usize>) -> Result<Mapping> {
        let facts = Facts::of(handle)?;
        sys::check_owner(facts.owner)?;
        sys::map_existing(handle, &facts, len)
    }

    fn next_touched(
        &self,
        handle: &OwnedFd,
        from: usize,
        len: usize,
    ) -> Result<Option<Range<usize>>> {
        sys::next_touched(handle, from, len)
    }

    fn unlink(&self, _handle: &OwnedFd, id: &ShMemId) -> Result<()> {
        unlink(id)
    }
}

/// A segment under a new name, whose object `fill` gives that size and the memory for it.
fn create_anew(size: usize, fill: impl Fn(&OwnedFd) -> Result<()>) -> Result<Fresh<OwnedFd>> {
    let mut taken = failed("shm_open", Errno::EXIST, Subject::Bytes(size));
    for _ in 0..TRIES {
        match create(random_name()?, size, &fill) {
            Err(error) if error.raw_os_error() == Some(Errno::EXIST.raw_os_error()) => {
                taken = error;
            }
            done => return done,
        }
    }
    Err(taken)
}

/// A segment with this id. After an error the name does not exist, unless it did before.
fn create(
    id: ShMemId,
    size: usize,
    fill: impl Fn(&OwnedFd) -> Result<()>,
) -> Result<Fresh<OwnedFd>> {
    let fd = sys::shm_open(name(&id)?, Opening::New)
        .map_err(|errno| failed("shm_open", errno, Subject::Id(id)))?;
    let mapping = fill(&fd).and_then(|()| sys::map_fd(&fd, size));
    match mapping {
        Ok(mapping) => Ok(Fresh {
            handle: fd,
            id,
            mapping,
            end: End::Unlinked,
        }),
        Err(error) => {
            // The first error is the one to tell.
            let _ = unlink(&id);
            Err(error)
        }
    }
}

fn unlink(id: &ShMemId) -> Result<()> {
    sys::shm_unlink(name(id)?).map_err(|errno| refused("shm_unlink", errno, id))
}

/// The id as a name, if it is one: a slash and one component.
fn name(id: &ShMemId) -> Result<&CStr> {
    match id.as_str().strip_prefix('/') {
        None => return Err(id.invalid("a POSIX name starts with a slash")),
        Some("" | "." | "..") => {
            return Err(id.invalid("a POSIX name has a component behind its slash"));
        }
        Some(component) if component.contains('/') => {
            return Err(id.invalid("a POSIX name has no second slash"));
        }
        Some(_) => {}
    }
    CStr::from_bytes_until_nul(id.as_array()).map_err(|_| id.invalid("a name ends with a zero"))
}

fn random_name() -> Result<ShMemId> {
    let name = Text::<20>::joined(&[b"/shmem-", &base64::digits::<11>(sys::nonce()?)]);
    Ok(ShMemId::holding(name.as_bytes()))
}

/// The error for an id that the system refused.
fn refused(call: &'static str, errno: Errno, id: &ShMemId) -> Error {
    match errno {
        Errno::NOENT => Error::Gone { id: *id },
        Errno::ACCESS | Errno::PERM => Error::OtherUser { owner: None },
        // A symbolic link; a socket; a directory.
        Errno::LOOP | Errno::NXIO | Errno::ISDIR => Error::Foreign {
            found: "it is no file of shared memory",
        },
        _ => failed(call, errno, Subject::Id(*id)),
    }
}
