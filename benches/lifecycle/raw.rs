//! The raw twins: the calls that give the same guarantees, and nothing around them.
//!
//! After an error, what exists by then ends with the process.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::io;
use std::sync::LazyLock;

use bench::raw::{self, Pages};
use bench::{Result, SIZE};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, FallocateFlags, Mode, SealFlags};
use rustix::{io::fcntl_dupfd_cloexec, shm};

/// Creates a sealed memfd, maps it, writes the first `written` bytes, and drops it.
pub(crate) fn memfd(written: usize) -> Result {
    let mut bytes = *b"shmem-___________\0";
    let fd = raw::memfd(name(&mut bytes)?, SIZE)?;
    map_and_write(&fd, written)
}

/// Does the same with a POSIX name and reserved memory.
pub(crate) fn posix(written: usize) -> Result {
    let mut bytes = *b"/shmem-___________\0";
    let name = name(&mut bytes)?;
    let flags = shm::OFlags::RDWR | shm::OFlags::CREATE | shm::OFlags::EXCL;
    let fd = shm::open(name, flags, Mode::RUSR | Mode::WUSR)?;
    let use_it = || {
        fs::ftruncate(&fd, SIZE as u64)?;
        fs::fallocate(&fd, FallocateFlags::empty(), 0, SIZE as u64)?;
        map_and_write(&fd, written)
    };
    let used = use_it();
    shm::unlink(name)?;
    used
}

/// Does the same with a System V segment, which is removed as soon as it is attached.
pub(crate) fn system_v(written: usize) -> Result {
    assert!(written <= SIZE);
    let flags = libc::IPC_CREAT | libc::IPC_EXCL | 0o600;
    // SAFETY: no pointer is passed.
    let shmid = unsafe { libc::shmget(libc::IPC_PRIVATE, SIZE, flags) };
    done(shmid)?;
    let base = shmat(shmid);
    // SAFETY: this command reads nothing from the pointer.
    done(unsafe { libc::shmctl(shmid, libc::IPC_RMID, null_mut()) })?;
    let base = base?;
    let bytes = core::hint::black_box(base.cast::<u8>());
    // SAFETY: `SIZE` bytes are attached for writing, and there are no references to them.
    unsafe { bytes.write_bytes(1, written) }
    shmdt(base)
}

/// Attaches to a System V segment and detaches from it.
pub(crate) fn attach_system_v(shmid: i32) -> Result {
    shmdt(shmat(shmid)?)
}

/// Attaches to a POSIX segment and detaches from it.
pub(crate) fn attach_posix(name: &CStr) -> Result {
    let fd = shm::open(name, shm::OFlags::RDWR, Mode::empty())?;
    map_and_write(fd, 0)
}

/// Opens a path in `/proc` and maps what it leads to, without any check.
pub(crate) fn attach(path: &CStr) -> Result {
    map_and_write(raw::open(path)?, 0)
}

/// Does the same with checks: that it is the segment, that it is not empty, that it is sealed.
pub(crate) fn attach_asking(path: &CStr) -> Result {
    let fd = raw::open(path)?;
    let mut link = [0; 64];
    let link = fs::readlinkat_raw(fs::CWD, path, &mut link)?;
    let stat = fs::fstat(&fd)?;
    let seals = fs::fcntl_get_seals(&fd)?;
    if link == 0 || stat.st_size == 0 || !seals.contains(SealFlags::SHRINK) {
        return Err("it is not the segment".into());
    }
    map_and_write(fd, 0)
}

/// Maps a segment a second time, by a duplicate of its descriptor, and drops both.
pub(crate) fn duplicate(fd: &OwnedFd) -> Result {
    map_and_write(fcntl_dupfd_cloexec(fd, 0)?, 0)
}

fn shmat(shmid: i32) -> Result<*mut c_void> {
    // SAFETY: the kernel chooses the address, so no other memory of this process is touched.
    let base = unsafe { libc::shmat(shmid, null_mut(), 0) };
    match base.addr() {
        usize::MAX => Err(io::Error::last_os_error().into()),
        _ => Ok(base),
    }
}

fn shmdt(base: *mut c_void) -> Result {
    // SAFETY: the callers got the address from `shmat`, and have no references to the memory.
    done(unsafe { libc::shmdt(base) })
}

fn map_and_write(fd: impl AsFd, written: usize) -> Result {
    Pages::shared(fd, SIZE)?.write(written);
    Ok(())
}

/// Puts a number that was not used before, as 11 letters, in front of the final zero.
fn name(bytes: &mut [u8]) -> Result<&CStr> {
    static FIRST: LazyLock<u64> = LazyLock::new(|| u64::from(std::process::id()) << 20);
    static NEXT: AtomicU64 = AtomicU64::new(0);

    let number = *FIRST + NEXT.fetch_add(1, Relaxed);
    for (place, byte) in bytes.iter_mut().rev().skip(1).take(11).enumerate() {
        *byte = b'a' + (number >> (4 * place) & 15) as u8;
    }
    Ok(CStr::from_bytes_with_nul(bytes)?)
}

fn done(result: i32) -> Result {
    match result {
        -1 => Err(io::Error::last_os_error().into()),
        _ => Ok(()),
    }
}
