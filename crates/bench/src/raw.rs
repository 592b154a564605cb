//! Raw system calls: what a program would write that needs memfds and no library.
//!
//! They give the same guarantees as the crate and do nothing else. After an error, what exists by then ends
//! with the process.
#![allow(unsafe_code)]

use core::ffi::CStr;
use core::ptr::null_mut;
use std::ffi::CString;
use std::sync::LazyLock;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mm::{self, MapFlags, ProtFlags};

use crate::Result;

/// Creates a memfd of `len` bytes, sealed against shrinking and growing.
pub fn memfd(name: &CStr, len: usize) -> Result<OwnedFd> {
    const OLD: MemfdFlags = MemfdFlags::CLOEXEC.union(MemfdFlags::ALLOW_SEALING);
    // Since Linux 6.3.
    static FLAGS: LazyLock<MemfdFlags> = LazyLock::new(|| {
        let new = OLD | MemfdFlags::NOEXEC_SEAL;
        fs::memfd_create("shmem-probe", new).map_or(OLD, |_| new)
    });

    let fd = fs::memfd_create(name, *FLAGS)?;
    fs::ftruncate(&fd, len as u64)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fs::fcntl_add_seals(&fd, seals)?;
    Ok(fd)
}

/// Returns the path in `/proc` of the memfd with this id in a process: what a raw program would be told
/// instead of the id.
pub fn path_of_memfd(pid: u32, id: &str) -> Result<CString> {
    // Behind the `m` and 7 characters for process and descriptor comes the part that the memfd's name has.
    let nonce = id.strip_prefix('m').and_then(|text| text.get(7..));
    let nonce = nonce.ok_or("the default is not memfd here")?;
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        let link = std::fs::read_link(&path).unwrap_or_default();
        if link.to_string_lossy().contains(nonce) {
            return Ok(CString::new(path.into_os_string().into_encoded_bytes())?);
        }
    }
    Err("the segment's descriptor is not in /proc".into())
}

/// Opens a path in `/proc` for reading and writing.
pub fn open(path: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    Ok(fs::open(path, flags, Mode::empty())?)
}

/// Memory that is mapped until this is dropped.
#[derive(Debug)]
pub struct Pages {
    start: *mut u8,
    len: usize,
}

impl Pages {
    /// Maps `len` bytes for reading and writing, shared with other processes.
    pub fn shared(fd: impl AsFd, len: usize) -> Result<Self> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the address, so no other memory of this process is touched.
        let start = unsafe { mm::mmap(null_mut(), len, prot, MapFlags::SHARED, fd, 0) }?;
        Ok(Self {
            start: start.cast(),
            len,
        })
    }

    /// Returns the first byte, which is aligned to a page.
    #[inline]
    #[must_use]
    pub fn start(&self) -> *mut u8 {
        self.start
    }

    /// Writes the first `count` bytes.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    #[inline]
    pub fn write(&mut self, count: usize) {
        assert!(count <= self.len);
        let start = core::hint::black_box(self.start);
        // SAFETY: `len` bytes are mapped for writing, and there are no references to them.
        unsafe { start.write_bytes(1, count) }
    }

    /// Copies bytes to the offset `at`.
    ///
    /// # Panics
    ///
    /// If they do not fit.
    #[inline]
    pub fn copy(&mut self, at: usize, from: &[u8]) {
        assert!(from.len() <= self.len && at <= self.len - from.len());
        // SAFETY: the offset is within the mapping.
        let to = unsafe { self.start.add(at) };
        // SAFETY: the bytes fit, and a slice does not overlap a mapping to which there are no references.
        unsafe { to.copy_from_nonoverlapping(from.as_ptr(), from.len()) }
    }
}

impl Drop for Pages {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: mapped by `shared` with this length, and unmapped only here.
        let _ = unsafe { mm::munmap(self.start.cast(), self.len) };
    }
}
