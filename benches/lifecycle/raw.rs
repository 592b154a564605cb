//! The raw twins: the calls that give the same guarantees, and nothing around them.
//!
//! They are written for a program that runs where everything goes well: what fails ends the row,
//! and what has been made by then ends with the process.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::io;
use std::sync::LazyLock;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mm::{self, MapFlags, ProtFlags};
use rustix::{io::fcntl_dupfd_cloexec, shm};

use crate::Result;
use crate::rows::SIZE;

/// Creates a sealed memfd, maps it, writes so many bytes, and drops it.
pub(crate) fn memfd(written: usize) -> Result {
    const OLD: MemfdFlags = MemfdFlags::CLOEXEC.union(MemfdFlags::ALLOW_SEALING);
    // Since Linux 6.3.
    static FLAGS: LazyLock<MemfdFlags> = LazyLock::new(|| {
        let new = OLD | MemfdFlags::NOEXEC_SEAL;
        fs::memfd_create("shmem-probe", new).map_or(OLD, |_| new)
    });

    let mut bytes = *b"shmem-___________\0";
    let fd = fs::memfd_create(name(&mut bytes)?, *FLAGS)?;
    fs::ftruncate(&fd, SIZE as u64)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fs::fcntl_add_seals(&fd, seals)?;
    map_write_unmap(&fd, written)
}

/// The same with a POSIX name and reserved memory.
pub(crate) fn posix(written: usize) -> Result {
    let mut bytes = *b"/shmem-___________\0";
    let name = name(&mut bytes)?;
    let flags = shm::OFlags::RDWR | shm::OFlags::CREATE | shm::OFlags::EXCL;
    let fd = shm::open(name, flags, Mode::RUSR | Mode::WUSR)?;
    let use_it = || {
        fs::ftruncate(&fd, SIZE as u64)?;
        fs::fallocate(&fd, FallocateFlags::empty(), 0, SIZE as u64)?;
        map_write_unmap(&fd, written)
    };
    let used = use_it();
    shm::unlink(name)?;
    used
}

/// The same with System V, removed as soon as it is attached.
pub(crate) fn system_v(written: usize) -> Result {
    let flags = libc::IPC_CREAT | libc::IPC_EXCL | 0o600;
    // SAFETY: no pointer is passed.
    let shmid = unsafe { libc::shmget(libc::IPC_PRIVATE, SIZE, flags) };
    done(shmid)?;
    let base = shmat(shmid);
    // SAFETY: this command reads nothing from the pointer.
    done(unsafe { libc::shmctl(shmid, libc::IPC_RMID, null_mut()) })?;
    let base = base?;
    write(base, written);
    shmdt(base)
}

/// Attaches to a System V segment and detaches.
pub(crate) fn attach_system_v(shmid: i32) -> Result {
    shmdt(shmat(shmid)?)
}

/// Attaches to a POSIX segment and detaches.
pub(crate) fn attach_posix(name: &CStr) -> Result {
    let fd = shm::open(name, shm::OFlags::RDWR, Mode::empty())?;
    map_write_unmap(fd, 0)
}

/// Attaches to what the path leads to and detaches, without a question.
pub(crate) fn attach(path: &CStr) -> Result {
    map_write_unmap(open(path)?, 0)
}

/// The same with the questions that the crate asks: is it the segment, is it large enough, is it
/// sealed?
pub(crate) fn attach_asking(path: &CStr) -> Result {
    let fd = open(path)?;
    let mut link = [0; 64];
    let link = fs::readlinkat_raw(fs::CWD, path, &mut link)?;
    let stat = fs::fstat(&fd)?;
    let seals = fs::fcntl_get_seals(&fd)?;
    if link == 0 || stat.st_size == 0 || !seals.contains(SealFlags::SHRINK) {
        return Err("it is not the segment".into());
    }
    map_write_unmap(fd, 0)
}

/// Maps a segment once more by another descriptor, and gives both up.
pub(crate) fn duplicate(fd: &OwnedFd) -> Result {
    map_write_unmap(fcntl_dupfd_cloexec(fd, 0)?, 0)
}

/// Opens a path of `/proc`.
pub(crate) fn open(path: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    Ok(fs::open(path, flags, Mode::empty())?)
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
    // SAFETY: the callers got it from `shmat`, and nothing refers to it.
    done(unsafe { libc::shmdt(base) })
}

fn map_write_unmap(fd: impl AsFd, written: usize) -> Result {
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses the address, so no other memory of this process is touched.
    let base = unsafe { mm::mmap(null_mut(), SIZE, prot, MapFlags::SHARED, fd, 0) }?;
    write(base, written);
    // SAFETY: mapped above, and nothing refers to it.
    Ok(unsafe { mm::munmap(base, SIZE) }?)
}

fn write(base: *mut c_void, count: usize) {
    let base = core::hint::black_box(base.cast::<u8>());
    // SAFETY: the callers have mapped `SIZE` bytes for writing, and ask for no more.
    unsafe { base.write_bytes(1, count) }
}

/// Puts the next number, in 11 letters, before the final zero: a name not used before.
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
