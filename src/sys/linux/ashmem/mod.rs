//! Android's anonymous shared memory: the calls.
//!
//! `ASharedMemory_create` has been in `libandroid.so` since API level 26. It is looked up at run
//! time, so that programs also load on older systems. There, programs opened `/dev/ashmem`; since
//! Android 10 only the system may, under a name that contains the boot id (`ashmem-dev.cpp` in
//! Android's libcutils).
#![allow(unsafe_code)]

#[cfg(any(target_os = "android", shmem_android_rules))]
mod library;
#[cfg(not(any(target_os = "android", shmem_android_rules)))]
mod no_library;

use core::ffi::{CStr, c_int};

use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags, SeekFrom, open, seek};
use rustix::io::{Errno, read};
use rustix::ioctl::{Opcode, opcode};

#[cfg(not(any(target_os = "android", shmem_android_rules)))]
use self::no_library as library;
use crate::error::{Error, Result, Subject};
use crate::sys::{above_stdio, failed, last_errno};
use crate::util::fixed_str::FixedStr;

/// The size of a name in bytes, including the terminating zero (`ASHMEM_NAME_LEN`).
const NAME_LEN: usize = 256;

/// The name of a region in `/proc/PID/maps`.
const NAME: &CStr = c"shmem";

// `linux/ashmem.h`.
const SET_NAME: Opcode = opcode::write::<[u8; NAME_LEN]>(0x77, 1);
const SET_SIZE: Opcode = opcode::write::<usize>(0x77, 3);
const GET_SIZE: Opcode = opcode::none(0x77, 4);

/// Whether memfd is used where the system has no ashmem.
pub(crate) const OR_MEMFD: bool = cfg!(any(target_os = "android", shmem_android_rules));

/// Creates a region of this size, close-on-exec: by the system's own function if it has one,
/// otherwise through the device.
pub(crate) fn create(size: usize) -> Result<OwnedFd> {
    if let Some(created) = library::create(size) {
        return created;
    }
    let device = open_device()
        .map_err(|errno| failed("open(/dev/ashmem)", errno, Subject::Bytes(size)))
        .and_then(above_stdio)?;
    let mut name = [0; NAME_LEN];
    for (slot, &byte) in name.iter_mut().zip(NAME.to_bytes()) {
        *slot = byte;
    }
    let refused = |call| move |errno| failed(call, errno, Subject::Bytes(size));
    // SAFETY: the command reads `NAME_LEN` bytes, the size of the local array.
    unsafe { ioctl(&device, SET_NAME, name.as_ptr().addr()) }
        .map_err(refused("ioctl(ASHMEM_SET_NAME)"))?;
    // SAFETY: the command takes a number, not a pointer.
    unsafe { ioctl(&device, SET_SIZE, size) }.map_err(refused("ioctl(ASHMEM_SET_SIZE)"))?;
    Ok(device)
}

/// Returns `true` if this error of [`create`] means that the system has no ashmem, or not for this
/// process.
pub(crate) fn is_missing(error: &Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        errno,
        Some(Errno::NOENT | Errno::ACCESS | Errno::PERM | Errno::NODEV | Errno::NXIO)
    )
}

/// Returns the size of a region in bytes, or `None` if the descriptor refers to something else.
///
/// The `ioctl` is sent only to a device of the right kind. A file of a file system in user space
/// would forward it to the program that serves the file system, which could block for as long as it
/// likes.
pub(crate) fn size(fd: impl AsFd) -> Option<u64> {
    if !is_misc_device(&fd)? {
        return None;
    }
    // SAFETY: the command takes no argument.
    let size = unsafe { ioctl(&fd, GET_SIZE, 0) }.ok()?;
    // The kernel truncates what `ioctl` returns to 32 bits. Seeking returns the whole size, but
    // only once the region was mapped, as all regions of this crate were.
    match seek(fd, SeekFrom::End(0)) {
        Ok(end) => Some(end),
        Err(_) => u64::try_from(size).ok(),
    }
}

/// Returns `true` for a character device of the class that contains ashmem (`MISC_MAJOR`).
fn is_misc_device(fd: impl AsFd) -> Option<bool> {
    const MISC_MAJOR: u32 = 10;
    const CHARACTERS: u32 = 0o020_000;
    const KIND: u32 = 0o170_000;
    let (mode, major) = mode_and_major(fd)?;
    Some(mode & KIND == CHARACTERS && major == MISC_MAJOR)
}

/// Reads both from the kernel's cache, without a request to the file system.
#[cfg(not(target_os = "android"))]
fn mode_and_major(fd: impl AsFd) -> Option<(u32, u32)> {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = statx(fd, c"", flags, StatxFlags::TYPE).ok()?;
    Some((stat.stx_mode.into(), stat.stx_rdev_major))
}

/// Uses `fstat`: the system call filter of older Android versions kills a program that calls
/// `statx`. Only the system has file systems in user space there.
#[cfg(target_os = "android")]
fn mode_and_major(fd: impl AsFd) -> Option<(u32, u32)> {
    let stat = rustix::fs::fstat(fd).ok()?;
    #[allow(clippy::useless_conversion, reason = "the types differ")]
    let (mode, device) = (stat.st_mode.into(), stat.st_rdev.into());
    Some((mode, rustix::fs::major(device)))
}

/// Opens the device: under the name with the boot id, which only Android's own processes may open,
/// or under the old name.
fn open_device() -> Result<OwnedFd, Errno> {
    const DEVICE: &[u8] = b"/dev/ashmem";
    const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let boot_id = || {
        let file = open(BOOT_ID, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let mut id = [0; 36];
        let len = read(&file, &mut id).ok()?;
        (len == id.len()).then_some(id)
    };
    if let Some(id) = boot_id() {
        let path = FixedStr::<64>::joined(&[DEVICE, &id]);
        if let Ok(device) = open(path.as_bytes(), flags, Mode::empty()) {
            return Ok(device);
        }
    }
    open(DEVICE, flags, Mode::empty())
}

/// Sends a command to the device.
///
/// # Safety
///
/// `argument` is what the command expects. If that is an address, as many bytes as the command
/// reads are readable there.
unsafe fn ioctl(fd: impl AsFd, command: Opcode, argument: usize) -> Result<c_int, Errno> {
    let number = fd.as_fd().as_raw_fd();
    #[allow(
        clippy::cast_lossless,
        clippy::cast_possible_wrap,
        reason = "the type differs between C libraries"
    )]
    let command = command as _;
    // SAFETY: the descriptor is borrowed from `fd`, so it is open. The caller guarantees that the
    // command and its argument belong together.
    match unsafe { libc::ioctl(number, command, argument) } {
        -1 => Err(last_errno()),
        returned => Ok(returned),
    }
}
