//! Segments that another process can map and this one cannot: made by one of 64 bits, opened by one of
//! 32. On 64 bits the same tests show that these segments are good.

use std::os::fd::{AsRawFd, OwnedFd};
use std::{fs, io, ptr};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use shmem_providers::{
    Error, MemfdShMemProvider, MmapShMemProvider, ShMem, ShMemId, ShMemProvider, UnixShMemProvider,
};

use super::support::{DONE, Outcome, skip};

/// More than the half of 4 GiB, which no slice can have on 32 bits, but a size of 32 bits can say.
const OVER_HALF: u64 = 0x9800_0000;

/// The lower 32 bits say 4096.
const OVER_ALL: u64 = (1 << 32) + 4096;

/// Attaches to all of it and to parts, and touches the end of what is there.
fn attach<P: ShMemProvider>(p: &mut P, id: ShMemId, size: u64, parts: &[usize]) -> Outcome {
    let largest = isize::MAX as usize;
    match (p.shmem_from_id(id), usize::try_from(size)) {
        (Ok(mut segment), Ok(size)) if size <= largest => {
            assert_eq!(segment.len(), size);
            segment[size - 1] = 1;
        }
        (Err(Error::InvalidSize { .. }), size) if !size.is_ok_and(|size| size <= largest) => {}
        (done, size) => panic!("{size:?}: {done:?}"),
    }
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
    attach_parts(p, id, parts)
}

fn attach_parts<P: ShMemProvider>(p: &mut P, id: ShMemId, parts: &[usize]) -> Outcome {
    for &asked in parts {
        let mut part = p.shmem_from_id_and_size(id, asked)?;
        assert_eq!(part.len(), asked);
        part[asked - 1] = 1;
    }
    DONE
}

/// What a program of 64 bits would make: a memfd of this size in the place of a segment's own.
pub(crate) fn a_memfd_that_32_bits_cannot_map() -> Outcome {
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
        // SAFETY: the number is that of the segment's descriptor, which is closed by this, and whose
        // owner closes the new one.
        if unsafe { libc::dup3(large.as_raw_fd(), number, libc::O_CLOEXEC) } == -1 {
            return Err(io::Error::last_os_error().into());
        }
        attach(&mut p, id, size, &[1, 4096, 8192, 1 << 20])?;
    }
    DONE
}

pub(crate) fn a_posix_segment_that_32_bits_cannot_map() -> Outcome {
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
        let parts = [1, 4096, 8192, 1 << 20];
        let done = sized.map(|()| {
            if cfg!(target_pointer_width = "64") {
                // All that is attached is reserved: that would be too much for some machines.
                attach_parts(&mut p, id, &parts)
            } else {
                attach(&mut p, id, size, &parts)
            }
        });
        fs::remove_file(&path)?;
        done??;
    }
    DONE
}

pub(crate) fn a_system_v_segment_that_32_bits_cannot_map() -> Outcome {
    let mut p = UnixShMemProvider::new()?;
    // The kernel attaches all of it, for which there may be no addresses: as little as is too much.
    let size = (1 << 31) + 4096;
    let flags = libc::IPC_CREAT | libc::SHM_NORESERVE | 0o600;
    // SAFETY: no pointer is passed.
    let number = unsafe { libc::shmget(libc::IPC_PRIVATE, size, flags) };
    if number == -1 {
        return skip(io::Error::last_os_error());
    }
    let id = ShMemId::from_int(number);
    let done = match p.shmem_from_id_and_size(id, 4096) {
        Err(error @ Error::Os { .. }) => skip(error),
        _ => attach(&mut p, id, size as u64, &[1, 4096, 8192, 1 << 20]),
    };
    // SAFETY: this command reads nothing from the pointer.
    unsafe { libc::shmctl(number, libc::IPC_RMID, ptr::null_mut()) };
    done
}
