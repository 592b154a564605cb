//! Descriptors: what they lead to, and how it is mapped.
#![allow(unsafe_code)]

use core::ptr::{self, NonNull};

use rustix::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use rustix::io::{self, Errno};
use rustix::mm::{self, MapFlags, ProtFlags};

use super::failed;
use crate::error::{Error, Result, Subject};
use crate::memory::mapping::Mapping;
#[cfg(any(target_os = "android", target_os = "linux"))]
use crate::memory::mapping::Unmap;
use crate::memory::size::mapped_len;
#[cfg(any(target_os = "android", target_os = "linux"))]
use crate::options::HugePages;

/// What the system says of the object behind a descriptor.
pub(crate) struct FileInfo {
    /// In bytes. It may be more than this process can map, if another one has made it.
    pub(crate) size: u64,
    /// What it prefers to be read in, in bytes: of memory, the size of its pages, or a larger one.
    pub(crate) block: usize,
    /// The user id of its owner.
    pub(crate) owner: u32,
}

impl FileInfo {
    /// Asks the system.
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
        })
    }

    /// How many bytes to map, if `asked` is how many are wanted: as many as that, or all.
    pub(crate) fn mapped_len(&self, asked: Option<usize>) -> Result<usize> {
        mapped_len(self.size, asked)
    }
}

/// Maps the first `len` bytes for reading and writing, shared with everybody who maps the same
/// object.
///
/// The caller has checked that there are as many.
pub(crate) fn map_fd(fd: impl AsFd, len: usize) -> Result<Mapping> {
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses the address, so no other memory of this process is touched.
    let base = unsafe { mm::mmap(ptr::null_mut(), len, prot, MapFlags::SHARED, fd, 0) }
        .map_err(|errno| failed("mmap", errno, Subject::Bytes(len)))?;
    let base = NonNull::new(base.cast())
        .ok_or_else(|| failed("mmap", Errno::NOMEM, Subject::Bytes(len)))?;
    // SAFETY: the mapping is new and ours, its address a multiple of the page size; the object
    // behind it has `len` bytes, which the rooms have asked the system for.
    Ok(unsafe { Mapping::from_raw(base, len, unmap) })
}

/// Refuses an object of huge pages, of which these are the facts: the kernel gives them back as a whole
/// only, and where one is missing, to access it raises SIGBUS.
///
/// They come into a mechanism that does not make them if somebody hands in such an object for one of its
/// segments.
#[cfg_attr(
    not(any(target_os = "android", target_os = "linux")),
    allow(clippy::unnecessary_wraps, reason = "on Linux it can fail")
)]
pub(crate) fn refuse_huge_pages(fd: impl AsFd, facts: &FileInfo) -> Result<()> {
    #[cfg(any(target_os = "android", target_os = "linux"))]
    if PageSize::of(&fd, facts)? != PageSize::Ordinary {
        return Err(Error::Foreign {
            found: "it consists of huge pages, of which such segments are not made",
        });
    }
    let _ = (fd, facts);
    Ok(())
}

/// The size of the pages behind a descriptor.
#[cfg(any(target_os = "android", target_os = "linux"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageSize {
    /// That of the machine.
    Ordinary,
    /// That of pages which were set aside.
    Huge(HugePages),
}

#[cfg(any(target_os = "android", target_os = "linux"))]
impl PageSize {
    /// Of the object of which these are the facts.
    pub(crate) fn of(fd: impl AsFd, facts: &FileInfo) -> Result<Self> {
        /// The number of hugetlbfs (`statfs(2)`).
        const HUGETLBFS: u64 = 0x9584_58f6;

        if facts.block <= page_size() {
            return Ok(Self::Ordinary);
        }
        // Ordinary files in memory have larger blocks as well where transparent huge pages are usual.
        let system =
            rustix::fs::fstatfs(fd).map_err(|errno| failed("fstatfs", errno, Subject::Nothing))?;
        #[allow(
            clippy::cast_sign_loss,
            clippy::cast_lossless,
            trivial_numeric_casts,
            reason = "a name of 32 bits, whatever the type"
        )]
        let kind = system.f_type as u64 & 0xffff_ffff;
        if kind != HUGETLBFS {
            return Ok(Self::Ordinary);
        }
        [HugePages::TwoMiB, HugePages::OneGiB]
            .into_iter()
            .find(|size| size.bytes() == facts.block)
            .map(Self::Huge)
            .ok_or(Error::Foreign {
                found: "it has huge pages of a size that is not made here",
            })
    }

    /// Which function gives back a mapping of such pages.
    pub(crate) fn unmap(self) -> Unmap {
        match self {
            Self::Ordinary => unmap,
            Self::Huge(HugePages::TwoMiB) => unmap_huge::<{ HugePages::TwoMiB.bytes() }>,
            Self::Huge(HugePages::OneGiB) => unmap_huge::<{ HugePages::OneGiB.bytes() }>,
        }
    }
}

/// As [`map_fd`], for pages of any size, at an address that is a multiple of `align`, which is one
/// of the page size.
#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) fn map_fd_aligned(
    fd: impl AsFd,
    len: usize,
    pages: PageSize,
    align: Option<usize>,
) -> Result<Mapping> {
    let refused = |errno| failed("mmap", errno, Subject::Bytes(len));
    let Some(align) = align else {
        return map_fd_at(fd, ptr::null_mut(), len, MapFlags::SHARED, pages.unmap())
            .map_err(refused);
    };
    let page = page_size();
    // More than is needed, so that there is an aligned place in it.
    let whole = len
        .checked_next_multiple_of(page)
        .and_then(|len| len.checked_add(align))
        .ok_or(Error::InvalidSize { size: len })?;
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: the kernel chooses the address, so no other memory of this process is touched.
    let start = unsafe { mm::mmap_anonymous(ptr::null_mut(), whole, ProtFlags::empty(), flags) }
        .map_err(refused)?;
    let before = start.align_offset(align).min(align);
    let place = start.wrapping_byte_add(before);
    let flags = MapFlags::SHARED | MapFlags::FIXED;
    // What it replaces was reserved above, and is ours.
    let mapping = map_fd_at(fd, place, len, flags, pages.unmap());
    let end = match &mapping {
        Ok(_) => place.wrapping_byte_add(len.next_multiple_of(page)),
        Err(_) => place,
    };
    let after = (start.addr() + whole).saturating_sub(end.addr());
    for (rest, len) in [(start, before), (end, after)] {
        if len > 0 {
            // SAFETY: reserved above and not replaced, and nothing refers to it.
            let _ = unsafe { mm::munmap(rest, len) };
        }
    }
    mapping.map_err(refused)
}

/// How many bytes a page has.
///
/// Not asked of rustix, which reads the auxiliary vector by itself: under valgrind that leads to where
/// nothing is.
#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) fn page_size() -> usize {
    // SAFETY: the function has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// Maps, at this address if the flags say so: then the caller owns what is there.
#[cfg(any(target_os = "android", target_os = "linux"))]
fn map_fd_at(
    fd: impl AsFd,
    place: *mut core::ffi::c_void,
    len: usize,
    flags: MapFlags,
    unmap: Unmap,
) -> Result<Mapping, Errno> {
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: either the kernel chooses the address, or the caller owns what is there; so no other
    // memory of this process is touched.
    let base = unsafe { mm::mmap(place, len, prot, flags, fd, 0) }?;
    let base = NonNull::new(base.cast()).ok_or(Errno::NOMEM)?;
    // SAFETY: the mapping is new and ours, its address a multiple of the page size; the object
    // behind it has `len` bytes, which the rooms have asked the system for.
    Ok(unsafe { Mapping::from_raw(base, len, unmap) })
}

/// Gives back what [`map_fd_at`] mapped of pages of this size, of which the kernel maps and unmaps
/// whole ones.
///
/// # Safety
///
/// As for [`unmap`].
#[cfg(any(target_os = "android", target_os = "linux"))]
unsafe fn unmap_huge<const PAGE: usize>(base: NonNull<u8>, len: usize) {
    // SAFETY: demanded from the caller; the kernel has mapped the rest of the last page too.
    unsafe { unmap(base, len.next_multiple_of(PAGE)) }
}

/// Maps so that what is written stays in this process.
#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) fn map_private(fd: impl AsFd, len: usize) -> Result<Mapping> {
    map_fd_at(fd, ptr::null_mut(), len, MapFlags::PRIVATE, unmap)
        .map_err(|errno| failed("mmap", errno, Subject::Bytes(len)))
}

/// Forgets what was written to a mapping of [`map_private`].
#[cfg(any(target_os = "android", target_os = "linux"))]
pub(crate) fn reset_private(mapping: &mut Mapping) -> Result<()> {
    let (base, len) = (mapping.base().as_ptr().cast(), mapping.len());
    // SAFETY: the pages are mapped and stay so; their bytes change, while the mapping is borrowed
    // mutably, to those of the object, which are initialised as well.
    unsafe { mm::madvise(base, len, mm::Advice::LinuxDontNeed) }
        .map_err(|errno| failed("madvise(MADV_DONTNEED)", errno, Subject::Bytes(len)))
}

/// Writes all of this to the object, from this place on.
pub(crate) fn write_at(fd: impl AsFd, start: usize, bytes: &[u8]) -> Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match io::pwrite(&fd, rest, (start + bytes.len() - rest.len()) as u64) {
            Ok(0) => return Err(failed("pwrite", Errno::IO, Subject::Bytes(bytes.len()))),
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failed("pwrite", errno, Subject::Bytes(bytes.len()))),
        }
    }
    Ok(())
}

/// Gives back what [`map_fd`] mapped.
///
/// # Safety
///
/// As for `munmap`: `len` bytes from `base` on are mapped, and nobody refers to them any more.
pub(crate) unsafe fn unmap(base: NonNull<u8>, len: usize) {
    // SAFETY: demanded from the caller. A failure would mean that it was not mapped; there is
    // nothing to be done about that here.
    let _ = unsafe { mm::munmap(base.as_ptr().cast(), len) };
}

/// The first number that is not one of the standard streams.
const ABOVE_STDIO: RawFd = 3;

/// Moves a new descriptor to a number above those of the standard streams, if it is not there.
///
/// The kernel gives out the lowest number that is free. In a program that has closed its standard
/// streams, as daemons do, that is one of theirs, and whatever the program prints would be written to
/// the segment or the socket behind it. So every descriptor that this crate makes passes through here
/// or through [`above_stdio_quietly`]. That costs nothing if the number is 3 or more.
pub(crate) fn above_stdio(fd: OwnedFd) -> Result<OwnedFd> {
    above_stdio_quietly(fd).map_err(duplication_failed)
}

/// The same for callers that do not need to know which limit was hit.
pub(crate) fn above_stdio_quietly(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() >= ABOVE_STDIO {
        return Ok(fd);
    }
    io::fcntl_dupfd_cloexec(&fd, ABOVE_STDIO)
}

fn duplication_failed(errno: Errno) -> Error {
    failed("fcntl(F_DUPFD_CLOEXEC)", errno, Subject::Nothing)
}

/// One more descriptor of the same open file, close-on-exec.
pub(crate) fn duplicate(fd: &OwnedFd) -> Result<OwnedFd> {
    io::fcntl_dupfd_cloexec(fd, ABOVE_STDIO).map_err(duplication_failed)
}

/// One more descriptor, close-on-exec, for who does not want to know which limit was hit.
#[cfg(feature = "std")]
pub(crate) fn duplicate_quietly(fd: &OwnedFd) -> io::Result<OwnedFd> {
    io::fcntl_dupfd_cloexec(fd, ABOVE_STDIO)
}

/// An object in memory: which one, and how large.
#[cfg(feature = "std")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    size: u64,
    device: u64,
    inode: u64,
}

#[cfg(feature = "std")]
impl Memory {
    /// What is behind a descriptor that a stranger has sent, if it is such an object.
    ///
    /// On Linux that is what can have seals: files of the kernel's own file systems in memory
    /// (`F_GET_SEALS`, `fcntl(2)`). Nothing else is asked anything, because a file of a file system in
    /// user space would ask the program behind it, for as long as that likes.
    pub(crate) fn behind(fd: &OwnedFd) -> Option<Self> {
        #[cfg(all(
            any(target_os = "android", target_os = "linux"),
            not(shmem_apple_rules)
        ))]
        if rustix::fs::fcntl_get_seals(fd).is_err() {
            return Self::of_ashmem(fd);
        }
        let stat = rustix::fs::fstat(fd).ok()?;
        #[allow(
            clippy::useless_conversion,
            reason = "the types differ between systems"
        )]
        Some(Self {
            size: stat.st_size.try_into().ok()?,
            #[allow(
                clippy::cast_lossless,
                clippy::cast_sign_loss,
                reason = "a name, not a number, and of different types"
            )]
            device: stat.st_dev as u64,
            #[allow(
                clippy::cast_sign_loss,
                clippy::unnecessary_cast,
                reason = "a name, not a number, and of different types"
            )]
            inode: stat.st_ino as u64,
        })
    }

    /// A region of ashmem. Which one, the device does not tell.
    #[cfg(all(
        any(target_os = "android", target_os = "linux"),
        not(shmem_apple_rules)
    ))]
    fn of_ashmem(fd: &OwnedFd) -> Option<Self> {
        Some(Self {
            size: crate::sys::ashmem::size(fd)?,
            device: 0,
            inode: 0,
        })
    }

    /// Whether it can be the memory of a segment of this size. Some systems make sizes whole pages,
    /// which have 16 KiB on some machines.
    pub(crate) fn may_have(&self, size: u64) -> bool {
        const EXACT: bool = cfg!(all(
            any(target_os = "android", target_os = "linux"),
            not(shmem_apple_rules)
        ));
        match self.size.checked_sub(size) {
            Some(rest) => rest == 0 || !EXACT && rest < 64 << 10,
            None => false,
        }
    }
}

#[cfg(all(test, feature = "std", target_os = "linux"))]
mod tests;
