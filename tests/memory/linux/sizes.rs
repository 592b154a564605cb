//! Segments that a process of 64 bits has created and one of 32 bits cannot map as a whole. On 64 bits the same
//! tests show that the segments are valid.

use std::os::fd::{AsRawFd, OwnedFd};
use std::{fs, io, ptr};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use shmem_providers::{
    Error, MemfdShMemProvider, MmapShMemProvider, ShMem, ShMemId, ShMemProvider, UnixShMemProvider,
};

use testkit::{Outcome, skip};

/// More than 2 GiB, the limit of slices on 32 bits, but less than 4 GiB, the limit of sizes.
const OVER_HALF: u64 = 0x9800_0000;

/// More than 4 GiB. The lower 32 bits are 4096.
const OVER_ALL: u64 = (1 << 32) + 4096;

/// Removes what a test has created, also if the test fails.
struct Left<F: Fn()>(F);

impl<F: Fn()> Drop for Left<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Attaches to a whole segment and writes its last byte, or checks the error if this process cannot map it.
fn attach_all<P: ShMemProvider>(p: &mut P, id: ShMemId, size: u64) {
    let most = isize::MAX as usize;
    match (p.shmem_from_id(id), usize::try_from(size)) {
        (Ok(mut segment), Ok(size)) if size <= most => {
            assert_eq!(segment.len(), size);
            segment[size - 1] = 1;
        }
        (Err(Error::InvalidSize { .. }), size) if !size.is_ok_and(|size| size <= most) => {}
        (done, size) => panic!("{size:?}: {done:?}"),
    }
}

/// Attaches to parts of a segment, and checks the errors for more than it has.
fn attach_parts<P: ShMemProvider>(p: &mut P, id: ShMemId, size: u64) -> Outcome {
    let largest = isize::MAX as usize;
    for asked in [largest + 1, usize::MAX] {
        let refused = p.shmem_from_id_and_size(id, asked);
        assert!(
            matches!(refused, Err(Error::InvalidSize { .. })),
            "{refused:?}"
        );
    }
    if let Some(asked) = usize::try_from(size + 1)
        .ok()
        .filter(|&size| size <= largest)
    {
        let refused = p.shmem_from_id_and_size(id, asked);
        assert!(
            matches!(refused, Err(Error::TooLarge { .. })),
            "{refused:?}"
        );
    }
    for asked in [1, 4096, 8192, 1 << 20] {
        let mut part = p.shmem_from_id_and_size(id, asked)?;
        assert_eq!(part.len(), asked);
        part[asked - 1] = 1;
    }
    Ok(())
}

/// Replaces the memfd of a segment by a larger one, as a program of 64 bits would create it.
pub(crate) fn memfd_larger_than_a_slice_is_refused() -> Outcome {
    let mut p = MemfdShMemProvider::new()?;
    for size in [OVER_HALF, OVER_ALL] {
        let segment = p.new_shmem(1)?;
        let id = segment.id();
        let own = super::snapshot::path_of(id)?;
        let link = fs::read_link(&own)?;
        let name = link.to_string_lossy();
        let name = name.trim_start_matches("/memfd:");
        let name = name.trim_end_matches(" (deleted)");
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let large = rustix::fs::memfd_create(name, flags)?;
        rustix::fs::ftruncate(&large, size)?;
        rustix::fs::fcntl_add_seals(&large, SealFlags::SHRINK | SealFlags::GROW)?;
        let number: i32 = own
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
            .parse()?;
        // SAFETY: the call closes the segment's descriptor. The segment owns the new one, which has the same
        // number.
        if unsafe { libc::dup3(large.as_raw_fd(), number, libc::O_CLOEXEC) } == -1 {
            return Err(io::Error::last_os_error().into());
        }
        // Only pages that are accessed take memory.
        attach_all(&mut p, id, size);
        attach_parts(&mut p, id, size)?;
    }
    Ok(())
}

pub(crate) fn posix_segment_larger_than_a_slice_is_refused() -> Outcome {
    let mut p = MmapShMemProvider::new()?;
    for size in [OVER_HALF, OVER_ALL] {
        let id = ShMemId::from_string(&format!("/large-{}", std::process::id()));
        let path = format!("/dev/shm{id}");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let large: OwnedFd = match rustix::fs::open(&path, flags, mode) {
            Ok(large) => large,
            Err(error) => return skip(error),
        };
        let sized = rustix::fs::ftruncate(&large, size);
        let _left = Left(|| drop(fs::remove_file(&path)));
        sized?;
        // Attaching reserves memory, which the host may not have on 64 bits.
        if cfg!(target_pointer_width = "32") {
            attach_all(&mut p, id, size);
        }
        attach_parts(&mut p, id, size)?;
    }
    Ok(())
}

pub(crate) fn system_v_segment_larger_than_a_slice_is_refused() -> Outcome {
    let mut p = UnixShMemProvider::new()?;
    // The kernel always maps all of a segment, so the size is the smallest that is too large for a slice.
    let size = (1 << 31) + 4096;
    let flags = libc::IPC_CREAT | libc::SHM_NORESERVE | 0o600;
    // SAFETY: the call takes no pointer.
    let number = unsafe { libc::shmget(libc::IPC_PRIVATE, size, flags) };
    if number == -1 {
        return skip(io::Error::last_os_error());
    }
    let _left = Left(|| {
        // SAFETY: this command does not use the pointer.
        unsafe { libc::shmctl(number, libc::IPC_RMID, ptr::null_mut()) };
    });
    let id = ShMemId::from_int(number);
    if let Err(error @ Error::Os { .. }) = p.shmem_from_id_and_size(id, 4096) {
        return skip(error);
    }
    attach_all(&mut p, id, size as u64);
    attach_parts(&mut p, id, size as u64)
}
