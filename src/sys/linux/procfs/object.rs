//! The object of a descriptor in `/proc`: recognised before it is opened.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    self, AtFlags, CWD, MemfdFlags, Mode, OFlags, StatxFlags, openat, readlinkat_raw,
};
use rustix::io::Errno;
use rustix::path::DecInt;

use crate::sys::above_stdio_quietly;
use crate::sys::user::User;
use crate::util::fixed_str::FixedStr;

/// How an object is opened once it has been recognised, besides the access. With `O_NONBLOCK`, a lease
/// on it (`fcntl(2)`) does not block the call.
const FLAGS: OFlags = OFlags::CLOEXEC
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// The size of the buffer for a link. A longer link is truncated, and equals none that is looked
/// for.
pub(super) const LINK: usize = 64;

/// The object to look for.
pub(crate) struct Wanted<'a> {
    /// The user whose processes are examined.
    pub(crate) user: User,
    /// The text of links to it in `/proc`.
    pub(crate) link: &'a [u8],
    /// What it is opened for. The access of the holder's descriptor does not matter to the kernel.
    pub(crate) access: OFlags,
    /// Returns `true` if an object with this link, opened with `O_PATH`, may be opened for that.
    pub(crate) is_candidate: &'a dyn Fn(BorrowedFd<'_>) -> bool,
    /// Returns `true` if an object with this link, opened for that, is the right one.
    pub(crate) is_genuine: &'a dyn Fn(&OwnedFd) -> bool,
}

/// Opens the object of a descriptor, if it is the wanted one.
pub(super) fn open(
    at: &OwnedFd,
    path: &[u8],
    wanted: &Wanted<'_>,
) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let object = openat(at, path, flags, Mode::empty())?;
    let own = FixedStr::<32>::joined(&[
        b"/proc/thread-self/fd/",
        DecInt::from_fd(&object).as_bytes(),
    ]);
    let mut found = [0; LINK];
    let len = readlinkat_raw(CWD, own.as_bytes(), &mut found)?;
    if found.get(..len) != Some(wanted.link) || !(wanted.is_candidate)(object.as_fd()) {
        return Ok(None);
    }
    let flags = wanted.access | FLAGS;
    let fd = openat(CWD, own.as_bytes(), flags, Mode::empty())?;
    let fd = above_stdio_quietly(fd)?;
    Ok(Some(fd).filter(wanted.is_genuine))
}

/// Returns `true` if a file opened with `O_PATH` is a file in the kernel's memory.
///
/// The text of a link is only a path, and a process of the same user with its own root directory
/// can create a file whose path looks like that of a memfd. Opening that file could block forever
/// (FUSE). So the device is compared, which the kernel chooses. This sends no request to the file
/// system of the file.
///
/// Before Linux 4.11, and where `memfd_create` is forbidden, the device of memfds is not known. The
/// type of the file system is compared then, and FUSE can delay the answer to that.
pub(crate) fn is_memory(object: BorrowedFd<'_>) -> bool {
    match (device(object), memfd_device()) {
        (Some(0), _) => false,
        (Some(device), of_memfds) if of_memfds != 0 => {
            device == of_memfds || huge_devices().contains(&device)
        }
        _ => fs::fstatfs(object)
            .is_ok_and(|system| [TMPFS, HUGETLBFS].contains(&file_system(&system))),
    }
}

/// Returns `true` if a descriptor refers to a memfd, be it sealed or not, and `false` also if that is
/// not known. Sends no request to the file system of the file.
#[cfg(all(target_os = "linux", not(shmem_apple_rules)))]
pub(crate) fn is_memfd(fd: BorrowedFd<'_>) -> bool {
    match device(fd) {
        None | Some(0) => false,
        Some(device) => device == memfd_device() || huge_devices().contains(&device),
    }
}

/// The types of file systems in memory (`statfs(2)`).
const TMPFS: u32 = 0x0102_1994;
const HUGETLBFS: u32 = 0x9584_58f6;

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unnecessary_cast,
    reason = "a magic number of 32 bits, whatever the type"
)]
pub(in crate::sys) fn file_system(system: &fs::StatFs) -> u32 {
    system.f_type as u32
}

/// Returns the device of an open file from the kernel's cache, or 0 if it is not a regular file.
fn device(object: BorrowedFd<'_>) -> Option<u64> {
    /// `AT_STATX_DONT_SYNC` (`statx(2)`), which rustix names on Linux only.
    const DONT_SYNC: AtFlags = AtFlags::from_bits_retain(0x4000);
    let flags = AtFlags::EMPTY_PATH | DONT_SYNC;
    let stat = fs::statx(object, "", flags, StatxFlags::TYPE).ok()?;
    let is_file = u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFREG;
    Some(if is_file {
        // File systems without a device have major number 0 and a minor number other than 0.
        u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor)
    } else {
        0
    })
}

/// Returns the device of all memfds of ordinary pages, or 0 if it is not known. It is the same in
/// the whole system and never changes.
fn memfd_device() -> u64 {
    static KNOWN: AtomicU64 = AtomicU64::new(0);

    cached(&KNOWN, MemfdFlags::empty())
}

/// Returns the devices of all memfds of huge pages, one for each page size.
fn huge_devices() -> [u64; 2] {
    static KNOWN: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

    let [two, one] = &KNOWN;
    [
        cached(two, MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB),
        cached(one, MemfdFlags::HUGETLB | MemfdFlags::HUGE_1GB),
    ]
}

/// Returns the device of memfds of these pages, and stores it in `cache`.
fn cached(cache: &AtomicU64, pages: MemfdFlags) -> u64 {
    match cache.load(Relaxed) {
        0 => {
            let device = fs::memfd_create("shmem-device", MemfdFlags::CLOEXEC | pages)
                .ok()
                .and_then(|fd| device(fd.as_fd()))
                .unwrap_or(0);
            cache.store(device, Relaxed);
            device
        }
        device => device,
    }
}
