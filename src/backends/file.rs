//! Files: segments in the directory for temporary files, on every Unix but Solaris, which has no `flock`.
//!
//! The last choice of the default on Linux, for programs in sandboxes that forbid everything else: creating
//! a file is what every sandbox allows somewhere. `sys/unix/temporary_files.rs` describes where the files
//! are and how they end.

use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;

use crate::backend::{
    Attach, Backend, Cleanup, Created, Exclusive, Expected, Growable, Lifecycle, NO_DESCRIPTORS,
    Request, Snapshots, Sparse,
};
use crate::error::{Error, Result, Subject};
use crate::id::ShMemId;
use crate::id::kind::IdKind;
use crate::memory::mapping::{Mapping, Protection};
use crate::options::{OptionReport, UNSUPPORTED};
use crate::provider::Provider;
use crate::segment::Segment;
use crate::sys::{self, FileInfo, failed, temporary_files};
use crate::util::base64;

/// How many random names are tried. They do not collide, but a process that removes unused files can remove
/// each of them before it is locked.
const MAX_ATTEMPTS: usize = 1000;

/// Creates segments as files in the directory for temporary files, for programs in sandboxes that forbid all
/// other mechanisms.
///
/// The directory is `$TMPDIR`, or else `/tmp`. Processes that share segments need the same one, and the same
/// user id, also in user namespaces. A program reads the variable when it first uses such a segment; one with
/// more privileges than its caller ignores it.
///
/// # Lifetime
///
/// A segment lives until the last process that holds it, or a child that it has forked, drops it or ends,
/// whether or not its creator still runs. The process that drops it last removes the file. If that process
/// is killed, ends by `exit` with a segment in a static, has no descriptors left, or may not change the
/// directory any more, the file stays until another process of the same user creates its first segment in
/// the same directory, or tries to open this one, which is gone.
///
/// # Security
///
/// The files are in a directory `shmem-UID`, which only this user may access. It is refused
/// ([`Error::Directory`]) if another user has created it, or can rename it or a directory on the way
/// to it. Attaching refuses everything but a regular file of this user with a single name that no
/// other user may write.
///
/// A peer of the same user can shrink the file, or free its space while the file system is full; then the
/// next access to a page causes a SIGBUS, as with [POSIX segments](crate::MmapShMemProvider). Only memfd,
/// System V and served memfd segments are protected against that.
///
/// # Platform notes
///
/// The space of a segment is reserved when it is created, so that a full file system is an error and not a
/// SIGBUS later. On Linux that takes no time on most file systems; on others, and on other systems, zeros
/// are written to all of it. On file systems that copy on write (Btrfs, ZFS) the reservation is not
/// reliable.
///
/// If the directory is not in memory (`tmpfs`), the system writes changed pages to the disk from time to
/// time, and the content of a segment is on the disk, even after the file was removed. The file system must
/// have locks (`flock(2)`); those of network file systems may be local to each machine. A segment takes a
/// descriptor in each holder.
///
/// # Examples
///
/// ```
/// use shmem_providers::{FileShMemProvider, ShMem, ShMemProvider};
///
/// let mut provider = FileShMemProvider::new()?;
/// let mut segment = provider.new_shmem(4096)?;
/// segment[0] = 1;
/// assert!(segment.id().as_str().starts_with('f'));
/// let attached = provider.shmem_from_id(segment.id())?; // in any process with the same TMPDIR
/// assert_eq!((attached[0], attached.len()), (1, 4096));
/// # Ok::<(), shmem_providers::Error>(())
/// ```
pub type FileShMemProvider = Provider<FileBackend>;

/// A segment of [`FileShMemProvider`].
///
/// # Examples
///
/// ```
/// use shmem_providers::{FileShMem, FileShMemProvider, ShMem, ShMemProvider};
///
/// let mut segment: FileShMem = FileShMemProvider::new()?.new_shmem(100)?;
/// segment.access().fill(1);
/// assert!(segment.is_owner());
/// # Ok::<(), shmem_providers::Error>(())
/// ```
pub type FileShMem = Segment<FileBackend>;

/// The backend of [`FileShMemProvider`].
///
/// # Examples
///
/// ```
/// use shmem_providers::{FileBackend, Provider, ShMem, ShMemProvider};
///
/// let mut provider = Provider::<FileBackend>::new()?;
/// assert_eq!(provider.new_shmem(100)?.len(), 100);
/// # Ok::<(), shmem_providers::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct FileBackend;

/// An open file with a shared lock. Dropping the last one removes the file.
///
/// It is dropped after the mapping, which keeps the lock as well.
#[derive(Debug)]
pub struct Handle {
    /// `None` while it is dropped.
    fd: Option<OwnedFd>,
    id: ShMemId,
}

impl Handle {
    fn fd(&self) -> Result<&OwnedFd> {
        let released = Error::Released { id: self.id };
        self.fd.as_ref().ok_or(released)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.fd = None;
        temporary_files::remove_if_unused(&self.id);
    }
}

impl Backend for FileBackend {
    type Handle = Handle;

    fn create(&self, request: Request<'_>, report: &mut OptionReport) -> Result<Created<Handle>> {
        static CLEANED: AtomicBool = AtomicBool::new(false);

        let options = request.options;
        options.refuse(&UNSUPPORTED, report)?;
        if !CLEANED.swap(true, Relaxed) {
            // If this fails for a reason that matters, creating the segment fails too.
            let _ = temporary_files::remove_unused(temporary_files::MOST_CHECKED);
        }
        let mut created = create_unique(request)?;
        sys::apply_options(&mut created.mapping, options.without_huge_pages(), report);
        Ok(created)
    }

    fn open(&self, id: &ShMemId, _expected: Expected) -> Result<Handle> {
        if id.kind() != IdKind::File {
            return Err(id.invalid("the id of a file starts with `f`"));
        }
        temporary_files::open(id).map(|fd| Handle {
            fd: Some(fd),
            id: *id,
        })
    }

    fn duplicate(&self, handle: &Handle) -> Result<Handle> {
        let fd = Some(sys::duplicate(handle.fd()?)?);
        Ok(Handle { fd, id: handle.id })
    }

    fn map(&self, handle: &Handle, attach: Attach, report: &mut OptionReport) -> Result<Mapping> {
        attach.options.refuse(&UNSUPPORTED, report)?;
        let fd = handle.fd()?;
        let info = FileInfo::of(fd)?;
        sys::check_owner(info.owner)?;
        let len = info.mapped_len(attach.len)?;
        let mut mapping = match attach.protection {
            Protection::Read => return sys::map_for_reading(fd, len),
            Protection::ReadWrite => sys::map_fd(fd, len)?,
        };
        let options = attach.options.without_huge_pages();
        sys::apply_options(&mut mapping, options, report);
        Ok(mapping)
    }

    /// Does nothing: the last handle removes the name.
    fn unlink(&self, _handle: &Handle, _id: &ShMemId) -> Result<()> {
        Ok(())
    }

    fn descriptor<'a>(&self, handle: &'a Handle) -> Option<BorrowedFd<'a>> {
        handle.fd.as_ref().map(AsFd::as_fd)
    }

    /// Without a known id, nothing tells a segment from the other files of this user.
    fn adopt(&self, fd: OwnedFd, known: Option<ShMemId>) -> Result<(Handle, ShMemId)> {
        let id = known
            .filter(|id| id.kind() == IdKind::File)
            .ok_or(NO_DESCRIPTORS)?;
        let fd = Some(temporary_files::adopt(fd, &id)?);
        Ok((Handle { fd, id }, id))
    }
}

/// Creates a file under a random name. When there is no space left, unused files are removed first.
fn create_unique(request: Request<'_>) -> Result<Created<Handle>> {
    let mut last_error = failed("open", Errno::EXIST, Subject::Bytes(request.size));
    for _ in 0..MAX_ATTEMPTS {
        match create(request) {
            Err(error) if is(&error, Errno::EXIST) => last_error = error,
            Err(error) if is(&error, Errno::NOSPC) => {
                match temporary_files::remove_unused(usize::MAX) {
                    Ok(removed) if removed > 0 => last_error = error,
                    _ => return Err(error),
                }
            }
            result => return result,
        }
    }
    Err(last_error)
}

fn is(error: &Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// Creates a file. After an error it does not exist.
fn create(request: Request<'_>) -> Result<Created<Handle>> {
    let size = request.size;
    let [high, low] = [sys::nonce()?, sys::nonce()?];
    let id = ShMemId::joined(&[b"f", &base64::digits::<7>(high), &base64::digits::<11>(low)]);
    let handle = Handle {
        fd: Some(temporary_files::create(&id)?),
        id,
    };
    let fd = handle.fd()?;
    let limit_for = |errno| temporary_files::limit_of(fd, errno);
    temporary_files::check_space(fd, size)?;
    match request.content {
        None => sys::reserve_file(fd, size, limit_for)?,
        // Writing reserves the space too.
        Some(content) => {
            sys::limits::check_file_size(size)?;
            sys::write_at(fd, 0, content, limit_for)?;
        }
    }
    let mapping = sys::map_fd(fd, size)?;
    Ok(Created {
        handle,
        id,
        mapping,
        cleanup: Cleanup::Kernel,
    })
}

impl Lifecycle for FileBackend {}

impl Exclusive for FileBackend {}

impl Growable for FileBackend {}

impl Sparse for FileBackend {
    fn next_data(&self, handle: &Handle, from: usize, len: usize) -> Result<Option<Range<usize>>> {
        sys::next_data(handle.fd()?, from, len)
    }
}

impl Snapshots for FileBackend {}
