//! Missing huge pages are detected on every kernel, also before Linux 5.14.
#![allow(clippy::expect_used)]

use core::ptr::{self, NonNull};

use rustix::io::Errno;

use super::{may_be_of_huge_pages, populate, read_every_page};
use crate::backends::MemfdShMemProvider;
use crate::error::Error;
use crate::memory::mapping::Mapping;
use crate::sys::attachments::tests::skipped;
use crate::traits::ShMemProvider;

const SIZE: usize = 4 << 20;

/// Attaches a System V segment whose huge pages are not reserved, and maps its first `len` bytes.
fn unreserved(len: usize) -> Option<Mapping> {
    unsafe fn detach(base: NonNull<u8>, _len: usize) {
        // SAFETY: the segment was attached below, and the dropped `Mapping` was the only reference.
        unsafe { libc::shmdt(base.as_ptr().cast()) };
    }

    let flags = libc::IPC_CREAT | libc::SHM_HUGETLB | libc::SHM_NORESERVE | 0o600;
    // SAFETY: the call takes no pointer.
    let number = unsafe { libc::shmget(libc::IPC_PRIVATE, SIZE, flags) };
    if number == -1 {
        skipped(std::io::Error::last_os_error());
        return None;
    }
    // SAFETY: the kernel chooses the address, so no existing mapping is affected.
    let base = unsafe { libc::shmat(number, ptr::null(), 0) };
    // SAFETY: this command does not use the pointer.
    unsafe { libc::shmctl(number, libc::IPC_RMID, ptr::null_mut()) };
    let base = NonNull::new(base.cast::<u8>()).filter(|base| base.addr().get() != usize::MAX)?;
    // SAFETY: the attachment is new, and no test creates a slice of it.
    Some(unsafe { Mapping::from_raw(base, len, detach) })
}

fn huge_pages_are_available() -> bool {
    let number = |name| {
        let path = std::format!("/proc/sys/vm/{name}");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.trim().parse().unwrap_or(0_u64)
    };
    number("nr_hugepages") + number("nr_overcommit_hugepages") > 0
}

#[test]
fn missing_huge_pages_cause_an_error_instead_of_a_signal() {
    if !crate::sys::advice_is_heeded() {
        return skipped("an emulator that ignores advice");
    }
    if huge_pages_are_available() {
        return skipped("huge pages are available");
    }
    for len in [1, 4096, 65536, (2 << 20) + 1, SIZE] {
        let Some(mapping) = unreserved(len) else {
            return;
        };
        assert!(may_be_of_huge_pages(&mapping), "{len}");
        let refused = populate(&mapping);
        assert!(matches!(refused, Err(Error::Foreign { .. })), "{refused:?}");
        assert_eq!(read_every_page(&mapping), Err(Errno::FAULT), "{len}");
    }
}

#[test]
fn ordinary_pages_keep_their_content() {
    if !crate::sys::advice_is_heeded() {
        return skipped("an emulator that ignores advice");
    }
    let mut provider = MemfdShMemProvider::default();
    for size in [1, 65536 * 4, SIZE] {
        let Ok(mut segment) = provider.new_shmem(size) else {
            return skipped("memfd is not available");
        };
        segment.fill(7);
        let fd = segment.handle.as_ref().expect("a live segment");
        let mapping = crate::sys::map_fd(fd, size).expect("a second mapping");
        // For a single page, the only evidence is whether its address is aligned to huge pages.
        let is_aligned = mapping.base().as_ptr().addr() % (64 << 10) == 0;
        assert!(
            !may_be_of_huge_pages(&mapping) || size == 1 && is_aligned,
            "{size}"
        );
        let read = read_every_page(&mapping);
        assert_eq!(read, Ok(()));
        assert_eq!(populate(&mapping), Ok(()));
        assert!(segment.iter().all(|&byte| byte == 7));
    }
}
