//! The raw calls.

use std::ffi::{CString, c_void};
use std::os::fd::OwnedFd;
use std::ptr::null_mut;

use rustix::fs::{self, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mm::{self, MapFlags, ProtFlags};

use crate::Result;

/// Mapped memory, for as long as it is needed.
pub(crate) struct Pages {
    pub(crate) base: *mut u8,
    pub(crate) len: usize,
}

impl Pages {
    pub(crate) fn of(fd: &OwnedFd, len: usize, flags: MapFlags) -> Result<Self> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the address.
        let base = unsafe { mm::mmap(null_mut(), len, prot, flags, fd, 0) }?;
        Ok(Self {
            base: base.cast(),
            len,
        })
    }

    pub(crate) fn write_all(&mut self) {
        let base = core::hint::black_box(self.base);
        // SAFETY: as many bytes are mapped for writing.
        unsafe { base.write_bytes(1, self.len) }
    }

    pub(crate) fn copy(&mut self, at: usize, from: &[u8]) {
        assert!(at + from.len() <= self.len);
        // SAFETY: checked above.
        unsafe {
            self.base
                .add(at)
                .copy_from_nonoverlapping(from.as_ptr(), from.len())
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped by `of`, once.
        let _ = unsafe { mm::munmap(self.base.cast::<c_void>(), self.len) };
    }
}

/// A sealed memfd.
pub(crate) fn memfd(len: usize) -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::NOEXEC_SEAL;
    let fd = fs::memfd_create(c"raw", flags)?;
    fs::ftruncate(&fd, len as u64)?;
    fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

/// Makes, maps, perhaps writes, and drops one.
pub(crate) fn life(len: usize, write: bool) -> Result {
    let fd = memfd(len)?;
    let mut pages = Pages::of(&fd, len, MapFlags::SHARED)?;
    if write {
        pages.write_all();
    }
    Ok(())
}

/// Makes one, maps it and copies this into it.
pub(crate) fn holding(bytes: &[u8]) -> Result {
    let fd = memfd(bytes.len())?;
    Pages::of(&fd, bytes.len(), MapFlags::SHARED)?.copy(0, bytes);
    Ok(())
}

/// The path under `/proc` of the memfd with this id in a process.
pub(crate) fn path(pid: u32, id: &str) -> Result<CString> {
    let nonce = id.get(8..).ok_or("the default is not memfd here")?;
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        let link = std::fs::read_link(&path).unwrap_or_default();
        if link.to_string_lossy().contains(nonce) {
            return Ok(CString::new(path.into_os_string().into_encoded_bytes())?);
        }
    }
    Err("the segment's descriptor does not show in /proc".into())
}

/// Opens and maps it, and drops both.
pub(crate) fn attach(path: &CString, len: usize) -> Result {
    let fd = fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    Pages::of(&fd, len, MapFlags::SHARED)?;
    Ok(())
}
