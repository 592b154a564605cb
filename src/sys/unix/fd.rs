//! Descriptors: what they refer to, how it is mapped and written, and which numbers they have.
#![allow(unsafe_code)]

use core::ptr::{self, NonNull};

use rustix::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use rustix::fs::OFlags;
use rustix::io::{self, Errno};
use rustix::mm::{self, MapFlags, ProtFlags};

use super::{failed, failed_for};
use crate::error::limit::Limit;
use crate::error::{Error, Result, Subject};
use crate::memory::mapping::{Mapping, Protection};
use crate::memory::size::mapped_len;
use crate::sys::limits;

/// What the system reports about the object behind a descriptor.
pub(crate) struct FileInfo {
    /// In bytes. An object that another process created may be larger than this process can map.
    pub(crate) size: u64,
    /// The preferred block size for reading, in bytes. For memory it is the page size, or a larger
    /// size.
    #[cfg_attr(
        not(any(target_os = "android", target_os = "linux")),
        allow(dead_code, reason = "only Linux has objects of huge pages")
    )]
    pub(crate) block: usize,
    /// The user id of the owner.
    pub(crate) owner: u32,
    /// The type and the permissions.
    pub(crate) mode: u32,
}

impl FileInfo {
    /// Queries the system.
    pub(crate) fn of(fd: impl AsFd) -> Result<Self> {
        let stat =
            rustix::fs::fstat(fd).map_err(|errno| failed("fstat", errno, Subject::Nothing))?;
        Ok(Self {
            size: u64::try_from(stat.st_size).unwrap_or(0),
            #[allow(
                clippy::unnecessary_fallible_conversions,
                clippy::useless_conversion,
                reason = "the type differs from system to system"
            )]
            block: usize::try_from(stat.st_blksize).unwrap_or(0),
            owner: stat.st_uid,
            #[allow(clippy::useless_conversion, reason = "the type differs")]
            mode: stat.st_mode.into(),
        })
    }

    /// Returns how many bytes to map: `asked`, or the whole object if it is `None`.
    pub(crate) fn mapped_len(&self, asked: Option<usize>) -> Result<usize> {
        mapped_len(self.size, asked)
    }
}

/// Returns how to open an object that is to be mapped with this protection.
pub(crate) fn access(protection: Protection) -> OFlags {
    match protection {
        Protection::ReadWrite => OFlags::RDWR,
        Protection::Read => OFlags::RDONLY,
    }
}

/// Returns the protection for `mmap`.
pub(in crate::sys) fn prot(protection: Protection) -> ProtFlags {
    match protection {
        Protection::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        Protection::Read => ProtFlags::READ,
    }
}

/// Maps the first `len` bytes of an object for reading and writing, shared with all other mappings
/// of it.
///
/// The caller has checked that the object has at least `len` bytes.
pub(crate) fn map_fd(fd: impl AsFd, len: usize) -> Result<Mapping> {
    map_fd_as(fd, len, Protection::ReadWrite)
}

/// Does the same with this protection.
pub(crate) fn map_fd_as(fd: impl AsFd, len: usize, protection: Protection) -> Result<Mapping> {
    let refused = |errno| failed_for("mmap", errno, Subject::Bytes(len), limits::for_mapping);
    let prot = prot(protection);
    // SAFETY: the kernel chooses the address, so no existing mapping is affected.
    let base = unsafe { mm::mmap(ptr::null_mut(), len, prot, MapFlags::SHARED, fd, 0) }
        .map_err(refused)?;
    let base = NonNull::new(base.cast()).ok_or_else(|| refused(Errno::NOMEM))?;
    // SAFETY: the mapping is new, nothing else unmaps it, and its address is a multiple of the page
    // size. The object has at least `len` bytes: the backends have compared its size.
    Ok(unsafe { Mapping::from_raw(base, len, unmap) })
}

/// Returns `true` if the system makes a mapping for reading writable.
#[cfg(not(target_os = "android"))]
pub(crate) fn becomes_writable(mapping: &Mapping) -> bool {
    let (start, len) = (mapping.base().as_ptr().cast(), mapping.len());
    let flags = mm::MprotectFlags::READ | mm::MprotectFlags::WRITE;
    // SAFETY: the pages stay readable, and the mapping owns them.
    unsafe { mm::mprotect(start, len, flags) }.is_ok()
}

/// Writes all bytes to the object, starting at this offset. `limit_for` is the function of
/// [`limits`] for the object.
pub(crate) fn write_at(
    fd: impl AsFd,
    start: usize,
    bytes: &[u8],
    limit_for: impl Fn(Errno) -> Option<Limit>,
) -> Result<()> {
    let refused = |errno| failed_for("pwrite", errno, Subject::Bytes(bytes.len()), &limit_for);
    let mut rest = bytes;
    while !rest.is_empty() {
        match io::pwrite(&fd, rest, (start + bytes.len() - rest.len()) as u64) {
            Ok(0) => return Err(refused(Errno::IO)),
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(refused(errno)),
        }
    }
    Ok(())
}

/// Unmaps a mapping of [`map_fd`].
///
/// # Safety
///
/// As for `munmap`: `len` bytes from `base` on are mapped, and nothing refers to them any more.
pub(crate) unsafe fn unmap(base: NonNull<u8>, len: usize) {
    // SAFETY: the caller gives up the mapping. The call fails only for a range that is not mapped,
    // so its result is ignored.
    let _ = unsafe { mm::munmap(base.as_ptr().cast(), len) };
}

/// The lowest descriptor number that does not belong to a standard stream.
pub(in crate::sys) const ABOVE_STDIO: RawFd = 3;

/// Moves a new descriptor to a number above those of the standard streams, if it is not there
/// already.
///
/// The kernel assigns the lowest free number. In a program that has closed its standard streams, as
/// daemons do, that is the number of one of them, and whatever the program prints would be written
/// to the segment or socket behind it. So every descriptor that this crate creates passes through
/// this function or through [`above_stdio_quietly`]. That costs nothing if the number is 3 or more.
pub(crate) fn above_stdio(fd: OwnedFd) -> Result<OwnedFd> {
    above_stdio_quietly(fd).map_err(duplication_failed)
}

/// Does the same for callers that do not need to know which limit was hit.
pub(crate) fn above_stdio_quietly(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() >= ABOVE_STDIO {
        return Ok(fd);
    }
    io::fcntl_dupfd_cloexec(&fd, ABOVE_STDIO)
}

fn duplication_failed(errno: Errno) -> Error {
    failed("fcntl(F_DUPFD_CLOEXEC)", errno, Subject::Nothing)
}

/// Checks that a descriptor from another process can be mapped for writing, and makes it
/// close-on-exec, with a number above those of the standard streams.
#[cfg(feature = "std")]
pub(crate) fn received(fd: OwnedFd, protection: Protection) -> Result<OwnedFd> {
    use rustix::fs::{OFlags, fcntl_getfl};
    use rustix::io::{FdFlags, fcntl_setfd};

    let refused = |call| move |errno| failed(call, errno, Subject::Nothing);
    let flags = fcntl_getfl(&fd).map_err(refused("fcntl(F_GETFL)"))?;
    let access = flags & OFlags::ACCMODE;
    if access != OFlags::RDWR && (protection, access) != (Protection::Read, OFlags::RDONLY) {
        return Err(Error::Foreign {
            found: "the descriptor is not open for both reading and writing: pass one that was \
                    opened with O_RDWR, or attach for reading only",
        });
    }
    let fd = above_stdio(fd)?;
    fcntl_setfd(&fd, FdFlags::CLOEXEC).map_err(refused("fcntl(F_SETFD)"))?;
    Ok(fd)
}

/// Returns `true` if the descriptor permits reading only.
pub(crate) fn is_read_only(fd: &OwnedFd) -> bool {
    rustix::fs::fcntl_getfl(fd).is_ok_and(|flags| flags & OFlags::ACCMODE == OFlags::RDONLY)
}

/// Why a segment with a single writer is not mapped for writing.
pub(crate) const HAS_SINGLE_WRITER: Error = Error::Foreign {
    found: "it has a single writer: open it with `shmem_from_id_read_only` or \
            `existing_from_env_read_only`",
};

/// Why a segment with a single writer cannot grow.
pub(crate) const SINGLE_WRITER_CANNOT_GROW: Error = Error::Unsupported {
    what: "a segment with a single writer cannot grow: create it as large as it will have to be",
};

/// Creates another descriptor of the same open file, close-on-exec.
pub(crate) fn duplicate(fd: impl AsFd) -> Result<OwnedFd> {
    io::fcntl_dupfd_cloexec(fd, ABOVE_STDIO).map_err(duplication_failed)
}

/// Does the same for callers that do not need to know which limit was hit.
#[cfg(feature = "std")]
pub(crate) fn duplicate_quietly(fd: &OwnedFd) -> io::Result<OwnedFd> {
    io::fcntl_dupfd_cloexec(fd, ABOVE_STDIO)
}
