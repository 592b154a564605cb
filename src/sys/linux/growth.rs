//! Objects that can grow: all of their address space is mapped at once, and memory is allocated for the
//! part that is committed (`fallocate(2)`).
//!
//! Behind the reserved bytes is one more page, which contains the number of committed bytes. The mode of
//! the object tells that it has this page, because users choose the content of every other object.
//! Peers of the same user can write anything into the page, and change the mode: then a segment appears
//! longer or shorter than it is, but never longer than the object.
#![allow(unsafe_code)]

use core::ops::Range;

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, fchmod, ftruncate};
use rustix::io::Errno;

use super::allocate::{allocate, check_free_memory};
use super::huge_pages::PageSize;
use super::page_size;
use super::reopen::map_file_for_reading;
#[cfg(target_os = "linux")]
use super::reopen::writable;
use crate::error::limit::Limit;
use crate::error::{Error, Result, Subject};
use crate::memory::mapping::{Mapping, Protection};
use crate::memory::size::{check_size, mapped_len};
use crate::sys::{FileInfo, failed, failed_for, limits, map_fd};

/// The set-group-ID bit. In the mode of a file that its group may not execute, it means nothing else, and
/// stays when the file is written.
pub(in crate::sys) const GROWABLE: u32 = 0o2000;

/// What happens when a process accesses a page without memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// The page is allocated: memfd.
    OnDemand,
    /// The same, but SIGBUS if the file system is full: `/dev/shm`.
    #[cfg(target_os = "linux")]
    Limited,
}

impl Memory {
    fn limit(self, errno: Errno) -> Option<Limit> {
        match self {
            Self::OnDemand => limits::for_memory(errno),
            #[cfg(target_os = "linux")]
            Self::Limited => limits::for_dev_shm(errno),
        }
    }

    /// Allocates the memory of these bytes. Failures of other holders do not take it away again: of what
    /// was allocated before, the kernel frees nothing.
    fn commit(self, fd: &OwnedFd, range: Range<usize>) -> Result<()> {
        let refused = |errno| {
            let subject = Subject::Bytes(range.len());
            failed_for("fallocate", errno, subject, |errno| self.limit(errno))
        };
        // In one call if possible: if that fails, the kernel frees what it has allocated.
        allocate(fd, range.start as u64..range.end as u64, u64::MAX).map_err(refused)
    }

    /// The same for an object of another process, if an access to a page without memory could fail.
    #[cfg_attr(
        not(target_os = "linux"),
        allow(
            unused_variables,
            clippy::unnecessary_wraps,
            reason = "only files are limited"
        )
    )]
    fn commit_existing(self, fd: &OwnedFd, range: Range<usize>) -> Result<()> {
        match self {
            Self::OnDemand => Ok(()),
            #[cfg(target_os = "linux")]
            Self::Limited => {
                let reopened = writable(fd)?;
                self.commit(reopened.as_ref().unwrap_or(fd), range)
            }
        }
    }
}

/// Returns `true` if the object can grow.
pub(crate) fn is_growable(info: &FileInfo) -> bool {
    info.mode & (GROWABLE | 0o010) == GROWABLE
}

/// Returns the size of an object that can grow to `max` bytes, or somewhat more.
pub(crate) fn object_size(max: usize) -> Result<usize> {
    let whole_pages = max.checked_next_multiple_of(page_size());
    let size = whole_pages.and_then(|reserved| reserved.checked_add(page_size()));
    size.and_then(|size| check_size(size).ok())
        .ok_or(Error::InvalidSize { size: max })
}

/// Converts a new object into one that can grow to `max` bytes, of which `size` are committed, and maps it.
/// `size` is at most `max`.
pub(crate) fn create(fd: &OwnedFd, size: usize, max: usize, memory: Memory) -> Result<Mapping> {
    let object_size = object_size(max)?;
    limits::check_file_size(object_size)?;
    check_free_memory(size)?;
    // A memfd has this size already.
    ftruncate(fd, object_size as u64)
        .map_err(|errno| failed("ftruncate", errno, Subject::Bytes(object_size)))?;
    let reserved = object_size.saturating_sub(page_size());
    memory.commit(fd, 0..size)?;
    memory.commit(fd, reserved..object_size)?;
    mark(fd)?;
    // SAFETY: the object has one page more than `reserved`, which is committed or allocated by the first
    // access.
    let mut mapping = unsafe { map_fd(fd, object_size)?.growable(reserved) };
    mapping.publish(size);
    // SAFETY: `size` is at most `reserved`, and these bytes were committed above.
    unsafe { mapping.show(size) };
    Ok(mapping)
}

/// Marks an object as growable.
fn mark(fd: &OwnedFd) -> Result<()> {
    let mode = FileInfo::of(fd)?.mode & 0o1666 | GROWABLE;
    fchmod(fd, Mode::from_raw_mode(mode))
        .map_err(|errno| failed("fchmod", errno, Subject::Nothing))?;
    // The kernel ignores the bit where the file has a group of which this process is no member.
    if is_growable(&FileInfo::of(fd)?) {
        Ok(())
    } else {
        Err(Error::Unsupported {
            what: "new files in /dev/shm belong to a group of which this process is no member, so a \
                   segment cannot be marked as growable: use memfd",
        })
    }
}

/// Maps all of a growable object. The mapping has the `asked` number of bytes, or those that are committed.
pub(crate) fn attach(
    fd: &OwnedFd,
    info: &FileInfo,
    asked: Option<usize>,
    protection: Protection,
    memory: Memory,
) -> Result<Mapping> {
    let object_size = info.mapped_len(None)?;
    let reserved = object_size.saturating_sub(page_size());
    if reserved == 0 || object_size % page_size() != 0 {
        return Err(Error::Foreign {
            found: "it has the mode of a segment that can grow, but not its size",
        });
    }
    memory.commit_existing(fd, reserved..object_size)?;
    let whole = match protection {
        Protection::ReadWrite => map_fd(fd, object_size),
        Protection::Read => map_file_for_reading(fd, object_size, PageSize::Ordinary),
    }?;
    // SAFETY: the object has one page more than `reserved`, which is committed or allocated by the first
    // access.
    let mut mapping = unsafe { whole.growable(reserved) };
    let len = mapped_len(mapping.committed() as u64, asked)?;
    memory.commit_existing(fd, 0..len)?;
    // SAFETY: `len` is at most `reserved`. Its memory was committed just now, or it is allocated by the
    // first access.
    unsafe { mapping.show(len) };
    Ok(mapping)
}

/// Commits `len` bytes, unless as many are committed already, and makes the mapping cover them. `len` is
/// not lower than that of the mapping, and at most [`Mapping::reserved`].
pub(crate) fn grow(fd: &OwnedFd, mapping: &mut Mapping, len: usize, memory: Memory) -> Result<()> {
    let committed = mapping.committed();
    if len > committed {
        check_free_memory(len - committed)?;
    }
    if len > committed || memory != Memory::OnDemand {
        memory.commit(fd, mapping.len()..len)?;
    }
    mapping.publish(len);
    // SAFETY: `len` is at most `reserved`, as the caller ensures. Its memory was committed just now, or
    // another holder has committed it.
    unsafe { mapping.show(len) };
    Ok(())
}
