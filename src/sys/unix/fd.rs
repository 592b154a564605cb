//! Descriptors: what they lead to, and how it is mapped.
#![allow(unsafe_code)]

use core::ptr::{self, NonNull};

use rustix::fd::{AsFd, OwnedFd};
use rustix::io::{self, Errno};
use rustix::mm::{self, MapFlags, ProtFlags};

use super::failed;
use crate::error::{Result, Subject};
use crate::mapping::Mapping;
use crate::shmem::extent;

/// What the system says of the object behind a descriptor.
pub(crate) struct Facts {
    /// In bytes.
    pub(crate) size: usize,
    /// The user id of its owner.
    pub(crate) owner: u32,
}

impl Facts {
    /// Asks the system.
    pub(crate) fn of(fd: impl AsFd) -> Result<Self> {
        let stat =
            rustix::fs::fstat(fd).map_err(|errno| failed("fstat", errno, Subject::Nothing))?;
        Ok(Self {
            size: usize::try_from(stat.st_size.max(0)).unwrap_or(usize::MAX),
            owner: stat.st_uid,
        })
    }

    /// How many bytes to map, if `asked` is how many are wanted: as many as that, or all.
    pub(crate) fn extent(&self, asked: Option<usize>) -> Result<usize> {
        extent(self.size, asked)
    }
}

/// Maps the first `len` bytes for reading and writing, shared with everybody who maps the same
/// object.
///
/// The caller has checked that there are as many.
pub(crate) fn map_fd(fd: impl AsFd, len: usize) -> Result<Mapping> {
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses the address, so no other memory of this process is touched.
    let base = unsafe { mm::mmap(ptr::null_mut(), len, prot, MapFlags::SHARED, fd, 0) }
        .map_err(|errno| failed("mmap", errno, Subject::Bytes(len)))?;
    let base = NonNull::new(base.cast())
        .ok_or_else(|| failed("mmap", Errno::NOMEM, Subject::Bytes(len)))?;
    // SAFETY: the mapping is new and ours, its address a multiple of the page size; the object
    // behind it has `len` bytes, which the rooms have asked the system for.
    Ok(unsafe { Mapping::from_raw(base, len, unmap) })
}

/// Gives back what [`map_fd`] mapped.
///
/// # Safety
///
/// As for `munmap`: `len` bytes from `base` on are mapped, and nobody refers to them any more.
pub(super) unsafe fn unmap(base: NonNull<u8>, len: usize) {
    // SAFETY: demanded from the caller. A failure would mean that it was not mapped; there is
    // nothing to be done about that here.
    let _ = unsafe { mm::munmap(base.as_ptr().cast(), len) };
}

/// One more descriptor of the same open file, close-on-exec.
pub(crate) fn duplicate(fd: &OwnedFd) -> Result<OwnedFd> {
    io::fcntl_dupfd_cloexec(fd, 0)
        .map_err(|errno| failed("fcntl(F_DUPFD_CLOEXEC)", errno, Subject::Nothing))
}

/// One more descriptor, close-on-exec, for who does not want to know which limit was hit.
#[cfg(feature = "std")]
pub(crate) fn duplicate_quietly(fd: &OwnedFd) -> io::Result<OwnedFd> {
    io::fcntl_dupfd_cloexec(fd, 0)
}

/// An object in memory: which one, and how large.
#[cfg(feature = "std")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    size: u64,
    device: u64,
    inode: u64,
}

#[cfg(feature = "std")]
impl Memory {
    /// What is behind a descriptor that a stranger has sent, if it is such an object.
    ///
    /// On Linux that is what can have seals: files of the kernel's own file systems in memory
    /// (`F_GET_SEALS`, `fcntl(2)`). Nothing else is asked anything, because a file of a file system in
    /// user space would ask the program behind it, for as long as that likes.
    pub(crate) fn behind(fd: &OwnedFd) -> Option<Self> {
        #[cfg(all(
            any(target_os = "android", target_os = "linux"),
            not(shmem_apple_rules)
        ))]
        if rustix::fs::fcntl_get_seals(fd).is_err() {
            return Self::of_ashmem(fd);
        }
        let stat = rustix::fs::fstat(fd).ok()?;
        #[allow(
            clippy::useless_conversion,
            reason = "the types differ between systems"
        )]
        Some(Self {
            size: stat.st_size.try_into().ok()?,
            #[allow(
                clippy::cast_lossless,
                clippy::cast_sign_loss,
                reason = "a name, not a number, and of different types"
            )]
            device: stat.st_dev as u64,
            #[allow(
                clippy::cast_sign_loss,
                clippy::unnecessary_cast,
                reason = "a name, not a number, and of different types"
            )]
            inode: stat.st_ino as u64,
        })
    }

    /// A region of ashmem. Which one, the device does not tell.
    #[cfg(all(
        any(target_os = "android", target_os = "linux"),
        not(shmem_apple_rules)
    ))]
    fn of_ashmem(fd: &OwnedFd) -> Option<Self> {
        Some(Self {
            size: super::ashmem::size(fd)?.try_into().ok()?,
            device: 0,
            inode: 0,
        })
    }

    /// Whether it can be the memory of a segment of this size. Some systems make sizes whole pages,
    /// which have 16 KiB on some machines.
    pub(crate) fn may_have(&self, size: u64) -> bool {
        const EXACT: bool = cfg!(all(
            any(target_os = "android", target_os = "linux"),
            not(shmem_apple_rules)
        ));
        match self.size.checked_sub(size) {
            Some(rest) => rest == 0 || !EXACT && rest < 64 << 10,
            None => false,
        }
    }
}
