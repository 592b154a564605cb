//! Objects of huge pages where ordinary ones are expected. No huge page has to be available to
//! create such an object, only to map it.
#![allow(clippy::expect_used)]

use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, SealFlags};

use super::{PageSize, refuse_huge_pages};
use crate::backend::{Attach, Backend, Snapshots};
use crate::backends::memfd::MemfdBackend;
use crate::backends::posix::PosixBackend;
use crate::error::Error;
use crate::options::{HugePages, OptionReport};
use crate::sys::FileInfo;
use crate::sys::attachments::tests::skipped;

/// Creates an object with this kind of pages and these seals.
fn object(pages: MemfdFlags, seals: SealFlags) -> Option<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | pages;
    let created = rustix::fs::memfd_create("huge", flags)
        .and_then(|fd| rustix::fs::ftruncate(&fd, 4 << 20).map(|()| fd))
        .and_then(|fd| rustix::fs::fcntl_add_seals(&fd, seals).map(|()| fd));
    created.map_err(skipped).ok()
}

fn is_foreign<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Foreign { .. }))
}

#[test]
fn objects_of_huge_pages_are_recognised_and_refused() {
    let seals = SealFlags::SHRINK | SealFlags::GROW;
    let Some(fd) = object(MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB, seals) else {
        return;
    };
    let info = FileInfo::of(&fd).expect("it is open");
    let pages = PageSize::of(&fd, &info);
    assert_eq!(pages, Ok(PageSize::Huge(HugePages::TwoMiB)));
    // The service can pass such an object as a POSIX segment.
    assert!(is_foreign(&refuse_huge_pages(&fd, &info)));
    assert!(is_foreign(&PosixBackend.map(
        &fd,
        Attach::plain(None),
        &mut OptionReport::default()
    )));
    // A snapshot never consists of huge pages.
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
fn objects_of_ordinary_pages_are_recognised_and_accepted() {
    let Some(fd) = object(MemfdFlags::empty(), SealFlags::SHRINK | SealFlags::GROW) else {
        return;
    };
    let info = FileInfo::of(&fd).expect("it is open");
    assert_eq!(PageSize::of(&fd, &info), Ok(PageSize::Ordinary));
    assert_eq!(refuse_huge_pages(&fd, &info), Ok(()));
}
