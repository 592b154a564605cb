//! Pages that are missing are found by every kernel, also by those before Linux 5.14.
#![allow(clippy::expect_used)]

use core::ptr::{self, NonNull};

use rustix::io::Errno;

use super::linux::{may_be_of_huge_pages, populate, read_every_page};
use crate::backends::MemfdShMemProvider;
use crate::error::Error;
use crate::memory::mapping::Mapping;
use crate::sys::attachments::tests::skipped;
use crate::traits::ShMemProvider;

const SIZE: usize = 4 << 20;

/// A System V segment of huge pages that nobody has reserved, of which these many bytes are used.
fn unreserved(len: usize) -> Option<Mapping> {
    unsafe fn detach(base: NonNull<u8>, _len: usize) {
        // SAFETY: attached below, and nothing refers to it any more.
        unsafe { libc::shmdt(base.as_ptr().cast()) };
    }

    let flags = libc::IPC_CREAT | libc::SHM_HUGETLB | libc::SHM_NORESERVE | 0o600;
    // SAFETY: no pointer is passed.
    let number = unsafe { libc::shmget(libc::IPC_PRIVATE, SIZE, flags) };
    if number == -1 {
        skipped(std::io::Error::last_os_error());
        return None;
    }
    // SAFETY: the kernel chooses the address.
    let base = unsafe { libc::shmat(number, ptr::null(), 0) };
    // SAFETY: this command reads nothing from the pointer.
    unsafe { libc::shmctl(number, libc::IPC_RMID, ptr::null_mut()) };
    let base = NonNull::new(base.cast::<u8>()).filter(|base| base.addr().get() != usize::MAX)?;
    // SAFETY: the attachment is new; nobody makes a slice of it.
    Some(unsafe { Mapping::from_raw(base, len, detach) })
}

fn huge_pages_may_be_had() -> bool {
    let number = |name| {
        let path = std::format!("/proc/sys/vm/{name}");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.trim().parse().unwrap_or(0_u64)
    };
    number("nr_hugepages") + number("nr_overcommit_hugepages") > 0
}

#[test]
fn missing_huge_pages_are_an_error_and_no_signal() {
    if !crate::sys::advice_is_heeded() {
        return skipped("an emulator that takes advice for hints");
    }
    if huge_pages_may_be_had() {
        return skipped("there are huge pages");
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
fn ordinary_pages_are_left_as_they_are() {
    if !crate::sys::advice_is_heeded() {
        return skipped("an emulator that takes advice for hints");
    }
    let mut provider = MemfdShMemProvider::default();
    for size in [1, 65536 * 4, SIZE] {
        let Ok(mut segment) = provider.new_shmem(size) else {
            return skipped("no memfd here");
        };
        segment.fill(7);
        let fd = segment.handle.as_ref().expect("it is not released");
        let mapping = crate::sys::map_fd(fd, size).expect("it is mapped once more");
        // Of a single page nothing more is known than whether its address suits a huge one.
        let suits = mapping.base().as_ptr().addr() % (64 << 10) == 0;
        assert!(
            !may_be_of_huge_pages(&mapping) || size == 1 && suits,
            "{size}"
        );
        let done = read_every_page(&mapping);
        assert_eq!(done, Ok(()));
        assert_eq!(populate(&mapping), Ok(()));
        assert!(segment.iter().all(|&byte| byte == 7));
    }
}
