//! The files of memfd segments: sealed when they are created, and checked before they are mapped.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{self, MemfdFlags, SealFlags};
use rustix::io::Errno;

use super::locator;
use crate::backend::Expected;
use crate::error::{Error, Result, Subject};
use crate::id::ShMemId;
use crate::id::kind::MemfdLocator;
use crate::memory::mapping::Protection;
use crate::sys::{self, FileInfo, failed, failed_for, identity};

/// The seals of every segment but those with a single writer: no process can change its size, or add
/// seals that would keep others from writing.
const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);

/// The seals that a file must have before it is mapped.
const NEEDED: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// Why a snapshot is not mapped for writing.
const IS_SNAPSHOT: Error = Error::Foreign {
    found: "it is a snapshot: open it with `view_from_id`",
};

/// Why a frozen segment is not mapped for writing.
const IS_FROZEN: Error = Error::Foreign {
    found: "it is frozen: open it with `shmem_from_id_read_only` or `view_from_id`",
};

/// Why a segment has no views.
pub(super) const IS_SEGMENT: Error = Error::Foreign {
    found: "it is a segment, not a snapshot",
};

/// Creates a sealed memfd of this size, and returns it with its id.
#[inline]
pub(super) fn create_segment(size: usize, pages: MemfdFlags) -> Result<(OwnedFd, ShMemId)> {
    let (fd, id) = create_unsealed(size, pages)?;
    seal(&fd, SEALS)?;
    Ok((fd, id))
}

/// Creates a memfd of this size that is not sealed yet, and returns it with its id.
#[inline]
pub(super) fn create_unsealed(size: usize, pages: MemfdFlags) -> Result<(OwnedFd, ShMemId)> {
    sys::limits::check_file_size(size)?;
    let nonce = identity::nonce()?;
    let fd = create(
        locator::name(MemfdLocator::new(None, nonce)).as_bytes(),
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | pages,
    )?;
    fs::ftruncate(&fd, size as u64)
        .map_err(|errno| failed("ftruncate", errno, Subject::Bytes(size)))?;
    let number = u32::try_from(fd.as_raw_fd()).ok();
    let id = MemfdLocator::new(identity::visible_pid().zip(number), nonce).id();
    Ok((fd, id))
}

/// Seals a memfd of [`create_unsealed`] as a snapshot, which no process can write to.
pub(super) fn seal_snapshot(fd: &OwnedFd) -> Result<()> {
    seal(fd, SEALS | SealFlags::WRITE)
}

fn seal(fd: &OwnedFd, seals: SealFlags) -> Result<()> {
    fs::fcntl_add_seals(fd, seals)
        .map_err(|errno| failed("fcntl(F_ADD_SEALS)", errno, Subject::Nothing))
}

/// Calls `memfd_create`, with `MFD_NOEXEC_SEAL` if the kernel has it (since 6.3; it can be set up to
/// demand it).
pub(super) fn create(name: &[u8], flags: MemfdFlags) -> Result<OwnedFd> {
    static NO_EXEC_UNKNOWN: AtomicBool = AtomicBool::new(false);

    let refused = |errno| {
        let limit_for = sys::for_unprivileged;
        failed_for("memfd_create", errno, Subject::Nothing, limit_for)
    };
    if !NO_EXEC_UNKNOWN.load(Relaxed) {
        match fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
            Err(Errno::INVAL) => NO_EXEC_UNKNOWN.store(true, Relaxed),
            result => return result.map_err(refused).and_then(sys::above_stdio),
        }
    }
    fs::memfd_create(name, flags)
        .map_err(refused)
        .and_then(sys::above_stdio)
}

/// Checks that the file belongs to this user and cannot shrink.
pub(super) fn check(fd: &OwnedFd) -> Result<(FileInfo, SealFlags)> {
    // This comes first, because the kernel answers it without asking a file system. It fails with
    // EINVAL for everything but a file in memory.
    let seals = match fs::fcntl_get_seals(fd) {
        Ok(seals) if seals.contains(NEEDED) => seals,
        Ok(_) => {
            return Err(Error::Foreign {
                found: "it is not sealed against shrinking",
            });
        }
        Err(_) => {
            return Err(Error::Foreign {
                found: "it is not a file in memory",
            });
        }
    };
    let info = FileInfo::of(fd)?;
    sys::check_owner(info.owner)?;
    Ok((info, seals))
}

/// Checks that the file is the kind of object that is expected, and large enough.
pub(super) fn check_expected(fd: &OwnedFd, expected: Expected) -> Result<()> {
    let (info, seals) = check(fd)?;
    info.mapped_len(expected.len)?;
    if !expected.is_snapshot {
        check_protection(seals, expected.protection)
    } else if seals.contains(SealFlags::WRITE) {
        Ok(())
    } else {
        Err(IS_SEGMENT)
    }
}

/// As [`check`], for a file that is to be mapped with this protection.
pub(super) fn check_mappable(fd: &OwnedFd, protection: Protection) -> Result<FileInfo> {
    let (info, seals) = check(fd)?;
    check_protection(seals, protection)?;
    Ok(info)
}

/// Returns the reason why a file with these seals cannot be mapped with this protection.
fn check_protection(seals: SealFlags, protection: Protection) -> Result<()> {
    let has = |seal| protection == Protection::ReadWrite && seals.contains(seal);
    match (has(SealFlags::WRITE), has(SealFlags::FUTURE_WRITE)) {
        (false, false) => Ok(()),
        (true, false) => Err(IS_SNAPSHOT),
        (false, true) => Err(sys::HAS_SINGLE_WRITER),
        (true, true) => Err(IS_FROZEN),
    }
}
