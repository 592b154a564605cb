//! Segments with a single writer, and frozen segments. `read_only.rs` attacks them.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::Ordering::Acquire;

use rustix::fs::{SealFlags, fcntl_add_seals};
use shmem_providers::{
    Error, FreezeError, HugePages, MemfdBackend, MemfdShMemProvider, MmapShMemProvider,
    OptionStatus, ReadOnly, Segment, ServedShMemProvider, ShMem, ShMemId, ShMemOptions, ShMemPool,
    ShMemProvider, Snapshots, StdShMem, StdShMemProvider, UnixShMemProvider,
};

use super::any::Tuned;
use super::peer::{Answer, Peer};
use super::snapshot::file_of;
use testkit::{Outcome, fork, if_lacking, natively};

pub(crate) const SIZE: usize = 8192;

pub(crate) fn options() -> ShMemOptions {
    ShMemOptions::new().single_writer()
}

/// Creates a segment with a single writer whose bytes are all 5, or skips the test where there are none.
pub(crate) fn single_writer() -> Outcome<StdShMem> {
    match StdShMemProvider::new()?.new_shmem_with(SIZE, options()) {
        Ok((mut segment, report)) => {
            assert_eq!(report.single_writer, OptionStatus::Granted);
            segment.fill(5);
            Ok(segment)
        }
        Err(error) => if_lacking(error),
    }
}

pub(crate) fn bytes<S: ShMem>(reader: &ReadOnly<S>) -> Vec<u8> {
    let mut bytes = vec![0xaa; reader.len()];
    reader.access().read_at(0, &mut bytes).expect("they fit");
    bytes
}

/// Only the segment's creator may have it mapped for writing, so the kernel allows not even that process a
/// second mapping.
pub(crate) fn a_single_writer_has_one_mapping_and_no_more() -> Outcome {
    let mut segment = single_writer()?;
    let mut p = StdShMemProvider::new()?;
    for refused in [
        p.shmem_from_id(segment.id()),
        p.shmem_from_id_and_size(segment.id(), 1),
        p.clone_ref(&segment),
    ] {
        let text = refused.expect_err("it has a writer").to_string();
        assert!(
            text.contains("open it with `shmem_from_id_read_only`"),
            "{text}"
        );
    }
    // Its memory stays.
    let refused = segment.trim(0..SIZE).expect_err("it is sealed");
    assert!(matches!(refused, Error::Unsupported { .. }), "{refused:?}");
    segment.clear();
    assert!(segment.iter().all(|&byte| byte == 0));
    // A pool attaches to it as little as others do, and reuses nothing of it.
    let mut pool = ShMemPool::over(p.clone(), 4, 4 * SIZE);
    assert!(pool.shmem_from_id(segment.id()).is_err());
    let reader = pool.shmem_from_id_read_only(segment.id())?;
    assert_eq!(bytes(&reader), [0; SIZE]);
    drop(reader);
    assert_eq!(pool.idle(), 0);
    // A snapshot is a copy.
    segment.fill(7);
    let snapshot = p.snapshot(&segment)?;
    segment.fill(8);
    assert_eq!(p.view_from_id(snapshot.id())?[..], [7; SIZE]);
    assert!(p.view_from_id(segment.id()).is_err());
    // What cannot be written can be read as a segment, too.
    assert_eq!(
        p.shmem_from_id_read_only(snapshot.id())?.as_frozen(),
        Some(&[7; SIZE][..])
    );
    Ok(())
}

pub(crate) fn options_of_a_single_writer_are_granted_or_refused_as_usual() -> Outcome {
    natively("which has no MADV_DONTDUMP")?;
    drop(single_writer()?);
    let mut p = MemfdShMemProvider::new()?;
    let with = options()
        .prefault()
        .no_dump()
        .try_huge_pages(HugePages::TwoMiB);
    let (segment, report) = p.new_shmem_with(4 << 20, with)?;
    assert_eq!(report.prefault, OptionStatus::Granted);
    assert_eq!(report.no_dump, OptionStatus::Granted);
    assert!(
        matches!(report.huge_pages, OptionStatus::Refused(_)),
        "{report:?}"
    );
    let required = options().require_huge_pages(HugePages::TwoMiB);
    assert!(p.new_shmem_with(4 << 20, required).is_err());
    // An attachment cannot ask for it.
    let refused = p.shmem_from_id_with(segment.id(), None, options());
    assert!(
        matches!(refused, Err(Error::Unsupported { .. })),
        "{refused:?}"
    );
    Ok(())
}

/// It is a promise to readers, so a mechanism without it creates nothing.
pub(crate) fn mechanisms_without_a_single_writer_create_nothing() -> Outcome {
    let refused = [
        UnixShMemProvider::new()?
            .new_shmem_with(SIZE, options())
            .err(),
        MmapShMemProvider::new()?
            .new_shmem_with(SIZE, options())
            .err(),
    ];
    for error in refused {
        let text = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(text.contains("MemfdShMemProvider"), "{text}");
    }
    Ok(())
}

pub(crate) fn a_frozen_segment_opens_as_a_view_and_for_reading_only() -> Outcome {
    let segment = single_writer()?;
    let id = segment.id();
    let frozen = segment.freeze()?;
    assert!(frozen.freeze().is_ok());
    let mut p = StdShMemProvider::new()?;
    let refused = p.shmem_from_id(id).expect_err("it is frozen").to_string();
    assert!(refused.contains("it is frozen"), "{refused}");
    let mut view = p.view_from_id(id)?;
    view.fill(1);
    view.reset()?;
    assert_eq!(view[..], [5; SIZE]);
    // The view holds it.
    drop(frozen);
    assert_eq!(
        p.shmem_from_id_read_only(id)?.as_frozen(),
        Some(&[5; SIZE][..])
    );
    let mut peer = Peer::start();
    peer.execute(format!("view {id} 5"))?;
    drop(view);
    assert_eq!(bytes(&p.shmem_from_id_read_only(id)?), [5; SIZE]);
    peer.kill();
    assert!(
        p.shmem_from_id_read_only(id)
            .expect_err("no holder")
            .is_not_found()
    );
    Ok(())
}

/// Every mechanism returns the segment if it cannot be frozen.
pub(crate) fn what_cannot_be_frozen_stays_writable<P: Tuned>(p: &mut P) -> Outcome {
    let segment = p.new_shmem(SIZE)?;
    let mut segment = P::freeze(segment).expect_err("it has no single writer");
    segment.fill(2);
    assert_eq!(p.shmem_from_id(segment.id())?[SIZE - 1], 2);
    Ok(())
}

pub(crate) fn a_peer_can_prevent_a_segment_from_being_frozen_and_nothing_else() -> Outcome {
    let segment = single_writer()?;
    let reader = StdShMemProvider::new()?.shmem_from_id_read_only(segment.id())?;
    fcntl_add_seals(file_of(segment.id())?, SealFlags::SEAL)?;
    let mut segment = match segment.freeze() {
        Err(FreezeError::Unchanged(segment, Error::Unsupported { .. })) => segment,
        other => return Err(format!("{other:?}").into()),
    };
    segment.fill(6);
    assert_eq!(bytes(&reader), [6; SIZE]);
    Ok(())
}

/// A forked child inherits the mapping for writing.
pub(crate) fn a_forked_child_can_write_until_it_ends() -> Outcome {
    drop(single_writer()?);
    Ok(Peer::start().execute("fork-and-freeze")?)
}

/// What a peer, which has a single thread, does.
pub(crate) fn fork_and_freeze() -> Answer {
    let mut p = StdShMemProvider::new()?;
    let (mut segment, _) = p.new_shmem_with(SIZE, options())?;
    segment.fill(5);
    let mut ends = [0; 2];
    // SAFETY: the array has space for two descriptors.
    if unsafe { libc::pipe(ends.as_mut_ptr()) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    let [read, write] = ends;
    // SAFETY: this program has a single thread.
    let child = unsafe { fork() };
    if child == 0 {
        segment[0] = 6;
        // SAFETY: the descriptor is open. The child waits for the end of the pipe.
        unsafe { libc::close(write) };
        // SAFETY: the pointer is to a local variable of that size.
        unsafe { libc::read(read, ptr::from_mut(&mut [0_u8; 1]).cast(), 1) };
        // SAFETY: the call has no preconditions.
        unsafe { libc::_exit(0) };
    }
    while p
        .shmem_from_id_read_only(segment.id())?
        .access()
        .load_u8(0, Acquire)?
        != 6
    {
        std::thread::yield_now();
    }
    // Nothing is given up for that, as often as it is tried.
    for _ in 0..2 {
        segment = match segment.freeze() {
            Err(FreezeError::Unchanged(segment, Error::Unsupported { .. })) => segment,
            other => return Err(format!("{other:?}").into()),
        };
    }
    segment[1] = 7;
    assert_eq!(segment[..3], [6, 7, 5]);
    for end in ends {
        // SAFETY: the descriptors are open, and nothing else closes them.
        unsafe { libc::close(end) };
    }
    // SAFETY: the pointer may be null.
    unsafe { libc::waitpid(child, ptr::null_mut(), 0) };
    let frozen = segment.freeze()?;
    assert_eq!(frozen.as_frozen().map(|bytes| bytes[0]), Some(6));
    Ok(String::new())
}

/// What is left if a child appears at the last moment. Here, it is another mapping of this process.
pub(crate) fn a_segment_that_could_not_be_frozen_in_time_is_frozen_later() -> Outcome {
    natively("which cannot copy a mapping by mremap")?;
    let mut segment = single_writer()?;
    let start = segment.as_mut_ptr().cast();
    // SAFETY: an old size of zero copies the mapping to a new address, and nothing uses that.
    let other = unsafe { libc::mremap(start, 0, SIZE, libc::MREMAP_MAYMOVE) };
    assert_ne!(other, libc::MAP_FAILED);
    let reader = match segment.freeze() {
        Err(FreezeError::ReadOnly(reader, Error::Unsupported { .. })) => reader,
        outcome => return Err(format!("{outcome:?}").into()),
    };
    assert_eq!((reader.as_frozen(), bytes(&reader)), (None, vec![5; SIZE]));
    assert!(reader.freeze().is_err());
    // SAFETY: nothing refers to the mapping.
    assert_eq!(unsafe { libc::munmap(other, SIZE) }, 0);
    reader.freeze()?;
    assert_eq!(reader.as_frozen(), Some(&[5; SIZE][..]));
    Ok(())
}

pub(crate) fn readers_outlive_a_killed_writer() -> Outcome {
    drop(single_writer()?);
    for freeze in ["keep", "freeze"] {
        let mut writer = Peer::start();
        let id = ShMemId::from_string(&writer.ask(format!("single-writer {freeze}"))?);
        let mut p = StdShMemProvider::new()?;
        let reader = p.shmem_from_id_read_only(id)?;
        let mut other = Peer::start();
        other.execute(format!("read-only {id}"))?;
        writer.kill();
        assert_eq!(bytes(&reader), [5; SIZE]);
        drop(reader);
        // Now the other process is the only holder, and it only reads.
        let reader = p.shmem_from_id_read_only(id)?;
        // Nobody writes any more, so any holder can make that final.
        reader.freeze()?;
        assert_eq!(reader.as_frozen(), Some(&[5; SIZE][..]));
        drop(reader);
        other.kill();
        assert!(
            p.shmem_from_id_read_only(id)
                .expect_err("no holder")
                .is_not_found()
        );
    }
    Ok(())
}

/// What a peer does: holds a segment whose single writer it is, or that it has frozen, until it ends.
pub(crate) fn hold_single_writer(freeze: &str) -> Answer {
    let (mut segment, _) = StdShMemProvider::new()?.new_shmem_with(SIZE, options())?;
    segment.fill(5);
    let id = segment.id();
    if freeze == "freeze" {
        std::mem::forget(segment.freeze()?);
    } else {
        std::mem::forget(segment);
    }
    Ok(id.to_string())
}

pub(crate) fn the_service_hands_out_segments_with_a_single_writer() -> Outcome {
    drop(single_writer()?);
    let mut maker = ServedShMemProvider::<MemfdBackend>::new()?;
    let mut other = ServedShMemProvider::<MemfdBackend>::new()?;
    let (mut segment, _) = maker.new_shmem_with(SIZE, options())?;
    let id = segment.id();
    let reader = other.shmem_from_id_read_only(id)?;
    assert!(matches!(
        other.shmem_from_id(id),
        Err(Error::Foreign { .. })
    ));
    segment.fill(9);
    assert_eq!(bytes(&reader), [9; SIZE]);
    let frozen = segment.freeze()?;
    assert_eq!(
        (frozen.id(), reader.as_frozen()),
        (id, Some(&[9; SIZE][..]))
    );
    assert_eq!(other.view_from_id(id)?[..], [9; SIZE]);
    Ok(())
}

/// Gives the segment back if it was not frozen.
pub(crate) fn freeze_or_keep<B: Snapshots>(segment: Segment<B>) -> Result<(), Segment<B>> {
    match segment.freeze() {
        Ok(_) => Ok(()),
        Err(FreezeError::Unchanged(segment, Error::Unsupported { .. })) => Err(segment),
        Err(other) => panic!("{other:?}"),
    }
}
