//! Objects that consist of huge pages.
#![allow(unsafe_code)]

use core::ptr::NonNull;

use rustix::fd::AsFd;

use super::page_size;
use crate::error::{Error, Result, Subject};
use crate::memory::mapping::Unmap;
use crate::options::HugePages;
use crate::sys::fd::unmap;
use crate::sys::{FileInfo, failed};

/// The size of the pages of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageSize {
    /// The page size of the system.
    Ordinary,
    /// Huge pages, which the administrator sets aside.
    Huge(HugePages),
}

impl PageSize {
    /// Returns the page size of the object behind `fd`. `info` is the information about the same
    /// object.
    pub(crate) fn of(fd: impl AsFd, info: &FileInfo) -> Result<Self> {
        /// The number of hugetlbfs (`statfs(2)`).
        const HUGETLBFS: u64 = 0x9584_58f6;

        if info.block <= page_size() {
            return Ok(Self::Ordinary);
        }
        // Where transparent huge pages are enabled for shared memory, ordinary files in memory have
        // larger blocks as well.
        let system =
            rustix::fs::fstatfs(fd).map_err(|errno| failed("fstatfs", errno, Subject::Nothing))?;
        #[allow(
            clippy::cast_sign_loss,
            clippy::cast_lossless,
            trivial_numeric_casts,
            reason = "a magic number of 32 bits, whatever the type"
        )]
        let kind = system.f_type as u64 & 0xffff_ffff;
        if kind != HUGETLBFS {
            return Ok(Self::Ordinary);
        }
        [HugePages::TwoMiB, HugePages::OneGiB]
            .into_iter()
            .find(|size| size.bytes() == info.block)
            .map(Self::Huge)
            .ok_or(Error::Foreign {
                found: "it has huge pages of a size that this crate does not create",
            })
    }

    /// Returns the function that unmaps such pages.
    pub(crate) fn unmap(self) -> Unmap {
        match self {
            Self::Ordinary => unmap,
            Self::Huge(HugePages::TwoMiB) => unmap_huge::<{ HugePages::TwoMiB.bytes() }>,
            Self::Huge(HugePages::OneGiB) => unmap_huge::<{ HugePages::OneGiB.bytes() }>,
        }
    }
}

/// Returns an error for an object of huge pages, which a backend that does not create such pages
/// can still be given by other programs.
///
/// The kernel can only unmap such pages as a whole, and accessing a missing one raises SIGBUS.
#[cfg(target_os = "linux")]
pub(crate) fn refuse_huge_pages(fd: impl AsFd, info: &FileInfo) -> Result<()> {
    match PageSize::of(fd, info)? {
        PageSize::Ordinary => Ok(()),
        PageSize::Huge(_) => Err(Error::Foreign {
            found: "it consists of huge pages, which segments of this kind do not have",
        }),
    }
}

/// Unmaps a mapping of huge pages of this size. The kernel maps and unmaps only whole ones.
///
/// # Safety
///
/// As for [`unmap`], for a mapping of such pages.
unsafe fn unmap_huge<const PAGE: usize>(base: NonNull<u8>, len: usize) {
    // SAFETY: the caller gives up the mapping. The kernel has mapped the rest of the last page too,
    // which is therefore not used for anything else.
    unsafe { unmap(base, len.next_multiple_of(PAGE)) }
}

#[cfg(all(test, feature = "std", target_os = "linux"))]
mod tests;
