//! Mappings that only Linux has: aligned, of huge pages, private.
#![allow(unsafe_code)]

use core::ffi::c_void;
use core::ptr::{self, NonNull};

use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::mm::{self, MapFlags, ProtFlags};

use super::huge_pages::PageSize;
use crate::error::{Error, Result, Subject};
use crate::memory::mapping::{Mapping, Protection, Unmap};
use crate::sys::fd::{prot, unmap};
use crate::sys::{failed, failed_for, limits};

/// Returns the page size of the system in bytes.
///
/// It is queried through the C library. rustix would read the auxiliary vector by itself, which
/// crashes under valgrind.
pub(crate) fn page_size() -> usize {
    // SAFETY: the function has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// Maps the first `len` bytes like [`map_fd`](crate::sys::map_fd), for pages of any size, at an
/// address that is a multiple of `align`. `align` must be a multiple of the page size.
pub(crate) fn map_fd_aligned(
    fd: impl AsFd,
    len: usize,
    pages: PageSize,
    align: Option<usize>,
) -> Result<Mapping> {
    let limit_for = |errno| match pages {
        PageSize::Huge(size) if errno == Errno::NOMEM => limits::free_huge_pages(size),
        _ => limits::for_mapping(errno),
    };
    let refused = |errno| failed_for("mmap", errno, Subject::Bytes(len), limit_for);
    let Some(align) = align else {
        return map_fd_at(fd, None, len, Protection::ReadWrite, pages.unmap()).map_err(refused);
    };
    let page = page_size();
    // Enough to contain an aligned range of the length.
    let whole = len
        .checked_next_multiple_of(page)
        .and_then(|len| len.checked_add(align))
        .ok_or(Error::InvalidSize { size: len })?;
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: the kernel chooses the address, so no existing mapping is affected.
    let start = unsafe { mm::mmap_anonymous(ptr::null_mut(), whole, ProtFlags::empty(), flags) }
        .map_err(refused)?;
    let before = start.align_offset(align).min(align);
    let address = start.wrapping_byte_add(before);
    // This replaces a part of the mapping that was reserved above.
    let mapping = map_fd_at(fd, Some(address), len, Protection::ReadWrite, pages.unmap());
    let end = match &mapping {
        Ok(_) => address.wrapping_byte_add(len.next_multiple_of(page)),
        Err(_) => address,
    };
    let after = (start.addr() + whole).saturating_sub(end.addr());
    for (rest, len) in [(start, before), (end, after)] {
        if len > 0 {
            // SAFETY: the range was reserved above and not replaced, and nothing refers to it.
            let _ = unsafe { mm::munmap(rest, len) };
        }
    }
    mapping.map_err(refused)
}

/// Creates a shared mapping. The caller must own what is mapped at `address`.
pub(super) fn map_fd_at(
    fd: impl AsFd,
    address: Option<*mut c_void>,
    len: usize,
    protection: Protection,
    unmap: Unmap,
) -> Result<Mapping, Errno> {
    let (address, flags) = match address {
        Some(address) => (address, MapFlags::SHARED | MapFlags::FIXED),
        None => (ptr::null_mut(), MapFlags::SHARED),
    };
    map_at(fd, address, len, prot(protection), flags, unmap)
}

/// With `MAP_FIXED`, the caller must own what is mapped at `address`.
fn map_at(
    fd: impl AsFd,
    address: *mut c_void,
    len: usize,
    prot: ProtFlags,
    flags: MapFlags,
    unmap: Unmap,
) -> Result<Mapping, Errno> {
    // SAFETY: either the kernel chooses the address, or the caller owns the mapping that is
    // replaced, so no other mapping is affected.
    let base = unsafe { mm::mmap(address, len, prot, flags, fd, 0) }?;
    let base = NonNull::new(base.cast()).ok_or(Errno::NOMEM)?;
    // SAFETY: the mapping is new, nothing else unmaps it, and its address is a multiple of the page
    // size. The object has at least `len` bytes: the backends have compared its size, and the
    // caller passes an `unmap` that fits the pages.
    Ok(unsafe { Mapping::from_raw(base, len, unmap) })
}

/// Maps the first `len` bytes so that what is written stays private to this process.
pub(crate) fn map_private(fd: impl AsFd, len: usize) -> Result<Mapping> {
    let prot = prot(Protection::ReadWrite);
    map_at(fd, ptr::null_mut(), len, prot, MapFlags::PRIVATE, unmap)
        .map_err(|errno| failed_for("mmap", errno, Subject::Bytes(len), limits::for_mapping))
}

/// Discards what was written to a mapping of [`map_private`].
pub(crate) fn reset_private(mapping: &mut Mapping) -> Result<()> {
    let (base, len) = (mapping.base().as_ptr().cast(), mapping.len());
    // SAFETY: the pages stay mapped. Their bytes change to those of the object, which are
    // initialised as well, while the mapping is borrowed mutably.
    unsafe { mm::madvise(base, len, mm::Advice::LinuxDontNeed) }
        .map_err(|errno| failed("madvise(MADV_DONTNEED)", errno, Subject::Bytes(len)))
}
