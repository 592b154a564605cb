//! Android's anonymous memory: the calls.
//!
//! `ASharedMemory_create` is in `libandroid.so` since API level 26, and is looked for when it is
//! needed: programs for older systems have to load, too. Before, everybody opened `/dev/ashmem`;
//! since Android 10 only the system may, under a name with the boot's id in it (`ashmem-dev.cpp` in
//! Android's libcutils).
#![allow(unsafe_code)]

use core::ffi::{CStr, c_int};

use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags, SeekFrom, open, seek};
use rustix::io::{Errno, read};
use rustix::ioctl::{Opcode, opcode};

use crate::error::{Error, Result, Subject};
use crate::sys::{above_stdio, failed, last_errno};
use crate::util::fixed_str::FixedStr;

/// How many bytes a name has, its zero included (`ASHMEM_NAME_LEN`).
const NAME_LEN: usize = 256;

/// What the region is called in `/proc/PID/maps`.
const NAME: &CStr = c"shmem";

// `linux/ashmem.h`.
const SET_NAME: Opcode = opcode::write::<[u8; NAME_LEN]>(0x77, 1);
const SET_SIZE: Opcode = opcode::write::<usize>(0x77, 3);
const GET_SIZE: Opcode = opcode::none(0x77, 4);

/// Whether memfd is to be tried where the system has nothing else.
pub(crate) const OR_MEMFD: bool = cfg!(any(target_os = "android", shmem_android_rules));

/// A new region of this size, close-on-exec: by the system's own function, or else by the device.
pub(crate) fn create(size: usize) -> Result<OwnedFd> {
    if let Some(made) = library::create(size) {
        return made;
    }
    let device = open_device()
        .map_err(|errno| failed("open(/dev/ashmem)", errno, Subject::Bytes(size)))
        .and_then(above_stdio)?;
    let mut name = [0; NAME_LEN];
    for (room, &byte) in name.iter_mut().zip(NAME.to_bytes()) {
        *room = byte;
    }
    let refused = |call| move |errno| failed(call, errno, Subject::Bytes(size));
    // SAFETY: the kernel reads as many bytes from there as a name has.
    unsafe { ioctl(&device, SET_NAME, name.as_ptr().addr()) }
        .map_err(refused("ioctl(ASHMEM_SET_NAME)"))?;
    // SAFETY: no pointer is passed.
    unsafe { ioctl(&device, SET_SIZE, size) }.map_err(refused("ioctl(ASHMEM_SET_SIZE)"))?;
    Ok(device)
}

/// Whether this error of [`create`] means that there is no such thing here for us.
pub(crate) fn is_missing(error: &Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        errno,
        Some(Errno::NOENT | Errno::ACCESS | Errno::PERM | Errno::NODEV | Errno::NXIO)
    )
}

/// How many bytes a region has; `None` if the descriptor leads to something else.
///
/// The device is asked only if it is one of its kind: a file of a file system in user space would ask
/// the program behind it, for as long as that likes.
pub(crate) fn size(fd: impl AsFd) -> Option<u64> {
    if !is_misc_device(&fd)? {
        return None;
    }
    // SAFETY: no pointer is passed.
    let size = unsafe { ioctl(&fd, GET_SIZE, 0) }.ok()?;
    // The kernel cuts what `ioctl` returns to 32 bits. The end of a region is told in full, but only
    // once it is mapped, as all of ours are.
    match seek(fd, SeekFrom::End(0)) {
        Ok(end) => Some(end),
        Err(_) => u64::try_from(size).ok(),
    }
}

/// Whether it is a device of the kind that ashmem is one of (`MISC_MAJOR`).
fn is_misc_device(fd: impl AsFd) -> Option<bool> {
    const MISC_MAJOR: u32 = 10;
    const CHARACTERS: u32 = 0o020_000;
    const KIND: u32 = 0o170_000;
    let (mode, major) = mode_and_major(fd)?;
    Some(mode & KIND == CHARACTERS && major == MISC_MAJOR)
}

/// From what the kernel remembers, without asking the file system.
#[cfg(not(target_os = "android"))]
fn mode_and_major(fd: impl AsFd) -> Option<(u32, u32)> {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let facts = statx(fd, c"", flags, StatxFlags::TYPE).ok()?;
    Some((facts.stx_mode.into(), facts.stx_rdev_major))
}

/// `statx` would end a program on an older Android, whose filter of system calls does not know it.
/// Nobody but the system has file systems in user space there.
#[cfg(target_os = "android")]
fn mode_and_major(fd: impl AsFd) -> Option<(u32, u32)> {
    let facts = rustix::fs::fstat(fd).ok()?;
    #[allow(clippy::useless_conversion, reason = "the types differ")]
    let (mode, device) = (facts.st_mode.into(), facts.st_rdev.into());
    Some((mode, rustix::fs::major(device)))
}

/// Opens the device, under the name that only Android's own processes may know, or its old one.
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

/// Gives the device a command.
///
/// # Safety
///
/// The argument is what the command takes; if that is an address, then of as many bytes as it says.
unsafe fn ioctl(fd: impl AsFd, command: Opcode, argument: usize) -> Result<c_int, Errno> {
    let number = fd.as_fd().as_raw_fd();
    #[allow(
        clippy::cast_lossless,
        clippy::cast_possible_wrap,
        reason = "the type differs between C libraries"
    )]
    let command = command as _;
    // SAFETY: demanded from the caller.
    match unsafe { libc::ioctl(number, command, argument) } {
        -1 => Err(last_errno()),
        returned => Ok(returned),
    }
}

/// The system's own function.
#[cfg(any(target_os = "android", shmem_android_rules))]
mod library {
    use core::ffi::{CStr, c_char, c_int, c_void};
    use core::mem;
    use core::ptr;
    use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

    use rustix::fd::{FromRawFd, OwnedFd};
    use rustix::io::{FdFlags, fcntl_setfd};

    use super::{NAME, failed, last_errno};
    use crate::error::{Result, Subject};
    use crate::sys::above_stdio;

    const LIBRARY: &CStr = c"libandroid.so";
    const FUNCTION: &CStr = c"ASharedMemory_create";

    /// A descriptor, or a negative number.
    type Create = unsafe extern "C" fn(name: *const c_char, size: usize) -> c_int;

    /// A new region, if the system has the function.
    pub(super) fn create(size: usize) -> Option<Result<OwnedFd>> {
        let create = find()?;
        // SAFETY: the name ends with a zero; the function is what Android's manual says.
        let number = unsafe { create(NAME.as_ptr(), size) };
        if number < 0 {
            let errno = last_errno();
            return Some(Err(failed(
                "ASharedMemory_create",
                errno,
                Subject::Bytes(size),
            )));
        }
        // SAFETY: the descriptor is new and ours.
        let fd = match above_stdio(unsafe { OwnedFd::from_raw_fd(number) }) {
            Ok(fd) => fd,
            Err(error) => return Some(Err(error)),
        };
        // Android 8 did not do so.
        let closed = fcntl_setfd(&fd, FdFlags::CLOEXEC)
            .map_err(|errno| failed("fcntl(F_SETFD)", errno, Subject::Nothing));
        Some(closed.map(|()| fd))
    }

    /// Looks for it once.
    fn find() -> Option<Create> {
        static FOUND: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
        /// Its address stands for the knowledge that there is none.
        static NONE: u8 = 0;
        let none = || (&raw const NONE).cast_mut().cast::<c_void>();

        let mut found = FOUND.load(Relaxed);
        if found.is_null() {
            found = look_up().unwrap_or_else(none);
            FOUND.store(found, Relaxed);
        }
        if found == none() {
            return None;
        }
        // SAFETY: this is the function of that name in a library that is never unloaded, and such
        // is its type since the level of the API that introduced it.
        Some(unsafe { mem::transmute::<*mut c_void, Create>(found) })
    }

    fn look_up() -> Option<*mut c_void> {
        // SAFETY: the name ends with a zero. The library is part of the system, and does nothing
        // when it is loaded that a program must not have.
        let library = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            return None;
        }
        // SAFETY: the library is loaded, and the name ends with a zero.
        let found = unsafe { libc::dlsym(library, FUNCTION.as_ptr()) };
        (!found.is_null()).then_some(found)
    }
}

/// No other system has it.
#[cfg(not(any(target_os = "android", shmem_android_rules)))]
mod library {
    use rustix::fd::OwnedFd;

    use crate::error::Result;

    pub(super) fn create(_size: usize) -> Option<Result<OwnedFd>> {
        None
    }
}
