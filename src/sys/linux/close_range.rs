//! Descriptors of one thread alone: `close_range(2)`.
#![allow(unsafe_code)]

use std::fs;
use std::path::PathBuf;

use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::sys::above_stdio_quietly;

/// Gives the calling thread a descriptor table of its own, in which only `kept` is open and, at 0
/// to 2, `/dev/null`. Returns the `kept` of the new table, which has the same number.
///
/// A child that the program forks then inherits nothing that this thread opens, and this thread
/// keeps nothing open that the program closes. In return, it must not use descriptors of the
/// program by their numbers any more.
///
/// Returns `None` if the system cannot do this, or if it could affect files of the program: see
/// [`copies_are_harmless`].
pub(crate) fn own_descriptors(kept: BorrowedFd<'_>) -> Option<OwnedFd> {
    // The system call filter of older Android versions kills a program that calls `close_range`.
    if cfg!(target_os = "android") {
        return None;
    }
    let number = kept.as_raw_fd();
    let first = u32::try_from(number).ok()?;
    if first < 3 || !copies_are_harmless(first) {
        return None;
    }
    if !close_range(first + 1, u32::MAX, true) {
        return None;
    }
    if first > 3 && !close_range(3, first - 1, false) {
        // Cannot happen: the same call has just worked.
        return None;
    }
    // SAFETY: this thread has its own descriptor table now, in which `kept` is open, and nothing
    // owns that copy yet.
    let kept = unsafe { OwnedFd::from_raw_fd(number) };
    if let Ok(null) = openat(
        CWD,
        "/dev/null",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .and_then(above_stdio_quietly)
    {
        for standard in 0..3 {
            // SAFETY: the call takes no pointer, and nothing owns these numbers in the table of
            // this thread.
            unsafe { libc::dup2(null.as_raw_fd(), standard) };
        }
    }
    Some(kept)
}

/// Returns `true` if copies of this thread's descriptors up to number `last` can be closed without
/// a noticeable effect.
///
/// The kernel informs the file system of each close, not only of the last one (`flush`). A message
/// queue then cancels its notification (`mq_notify(3)`), and file systems in user space (FUSE) or
/// on other machines may block. The files themselves are not queried, because that could block as
/// well: `/proc` lists the mounts. The kernel copies descriptors in groups of 64, and copies all
/// groups that contain one up to `last`.
fn copies_are_harmless(last: u32) -> bool {
    /// File systems of the local kernel, which do nothing of that kind.
    const HARMLESS: &[&str] = &[
        "bcachefs",
        "bpf",
        "btrfs",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "devpts",
        "devtmpfs",
        "efivarfs",
        "erofs",
        "exfat",
        "ext2",
        "ext3",
        "ext4",
        "f2fs",
        "hugetlbfs",
        "iso9660",
        "jfs",
        "msdos",
        "ntfs3",
        "overlay",
        "proc",
        "ramfs",
        "reiserfs",
        "rootfs",
        "securityfs",
        "squashfs",
        "sysfs",
        "tmpfs",
        "tracefs",
        "udf",
        "vfat",
        "xfs",
        "zfs",
    ];

    let Ok(entries) = fs::read_dir("/proc/thread-self/fd") else {
        return false;
    };
    let mut mounts = None;
    for entry in entries {
        let Ok(entry) = entry else {
            return false;
        };
        let name = entry.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if number > (last | 63) {
            continue;
        }
        // Closed by now, so it will not be copied.
        let Ok(link) = fs::read_link(entry.path()) else {
            continue;
        };
        let link = link.as_os_str().as_encoded_bytes();
        // Pipes, sockets and the like have no path.
        if !link.starts_with(b"/") || link.starts_with(b"/memfd:") {
            continue;
        }
        let mut info = PathBuf::from("/proc/thread-self/fdinfo");
        info.push(&name);
        let info = fs::read_to_string(info).unwrap_or_default();
        let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
        let mounts = mounts.get_or_insert_with(|| {
            fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default()
        });
        let kind = mount.and_then(|mount| kind_of_mount(mounts, mount.trim()));
        if !kind.is_some_and(|kind| HARMLESS.contains(&kind)) {
            return false;
        }
    }
    true
}

/// Returns the file system type of a mount: the field after a lone hyphen
/// (`proc_pid_mountinfo(5)`).
fn kind_of_mount<'mounts>(mounts: &'mounts str, number: &str) -> Option<&'mounts str> {
    let mut lines = mounts.lines();
    let line = lines.find(|line| line.split(' ').next() == Some(number))?;
    line.split_once(" - ")?.1.split(' ').next()
}

/// Closes a range of descriptors (`close_range(2)`, since Linux 5.9). With `unshare`, the thread
/// gets its own copy of the table first. Returns `true` if the call succeeded.
fn close_range(first: u32, last: u32, unshare: bool) -> bool {
    const CLOSE_RANGE_UNSHARE: u32 = 2;
    let flags = if unshare { CLOSE_RANGE_UNSHARE } else { 0 };
    // SAFETY: the table is a copy for this thread alone, or becomes one by this call. No code of
    // this thread owns a descriptor in the range: the caller excludes the only one, `kept`.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) == 0 }
}
