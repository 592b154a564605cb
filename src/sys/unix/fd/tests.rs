//! Objects of huge pages where ordinary ones are expected. None has to be set aside to make such an
//! object, only to map it.
#![allow(clippy::expect_used)]

use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, SealFlags};

use super::{FileInfo, PageSize, refuse_huge_pages};
use crate::backend::{Attach, Backend, Snapshots};
use crate::backends::memfd::MemfdBackend;
use crate::backends::posix::PosixBackend;
use crate::error::Error;
use crate::options::HugePages;
use crate::sys::attachments::tests::skipped;

/// An object of this kind of page, with these seals.
fn object(pages: MemfdFlags, seals: SealFlags) -> Option<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | pages;
    let made = rustix::fs::memfd_create("huge", flags)
        .and_then(|fd| rustix::fs::ftruncate(&fd, 4 << 20).map(|()| fd))
        .and_then(|fd| rustix::fs::fcntl_add_seals(&fd, seals).map(|()| fd));
    made.map_err(skipped).ok()
}

fn is_foreign<T>(done: &Result<T, Error>) -> bool {
    matches!(done, Err(Error::Foreign { .. }))
}

#[test]
fn huge_pages_are_known_for_what_they_are() {
    let seals = SealFlags::SHRINK | SealFlags::GROW;
    let Some(fd) = object(MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB, seals) else {
        return;
    };
    let facts = FileInfo::of(&fd).expect("it is open");
    let pages = PageSize::of(&fd, &facts);
    assert_eq!(pages, Ok(PageSize::Huge(HugePages::TwoMiB)));
    // Handed in for a POSIX segment, by way of the service.
    assert!(is_foreign(&refuse_huge_pages(&fd, &facts)));
    assert!(is_foreign(&PosixBackend.map(&fd, Attach::plain(None))));
    // A snapshot is never made of them.
    let Some(fd) = object(
        MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB,
        seals | SealFlags::WRITE,
    ) else {
        return;
    };
    let view = MemfdBackend.map_private(&fd);
    assert!(is_foreign(&view), "{view:?}");
}

#[test]
fn ordinary_pages_are_known_for_what_they_are() {
    let Some(fd) = object(MemfdFlags::empty(), SealFlags::SHRINK | SealFlags::GROW) else {
        return;
    };
    let facts = FileInfo::of(&fd).expect("it is open");
    assert_eq!(PageSize::of(&fd, &facts), Ok(PageSize::Ordinary));
    assert_eq!(refuse_huge_pages(&fd, &facts), Ok(()));
}
