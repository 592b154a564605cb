//! Snapshots and their views.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{fs, thread};

use shmem_providers::{
    Error, MemfdBackend, MemfdShMemProvider, MmapShMemProvider, ServedShMemProvider, ShMem,
    ShMemId, ShMemProvider, StdShMemProvider, UnixShMemProvider,
};

use super::peer::{Answer, Commands, Peer};
use super::smaps::Smaps;
use testkit::{Outcome, page_size};

const SIZE: usize = (1 << 20) + 100;

pub(crate) fn views_are_of_the_moment_and_private() -> Outcome {
    let mut p = StdShMemProvider::new()?;
    let before = super::open();
    let mut segment = p.new_shmem(SIZE)?;
    segment[5000..].fill(3);
    let snapshot = p.snapshot(&segment)?;
    assert_eq!((snapshot.len(), snapshot.is_empty()), (SIZE, false));
    segment.fill(9);

    let mut first = snapshot.view()?;
    let mut second = p.view_from_id(snapshot.id())?;
    let is_as_before = |bytes: &[u8]| {
        bytes[..5000].iter().all(|&b| b == 0) && bytes[5000..].iter().all(|&b| b == 3)
    };
    assert!(is_as_before(&first) && is_as_before(&second));
    for round in 0..3 {
        first.fill(round);
        second[SIZE - 1] = 7;
        let third = first.duplicate()?;
        assert!(is_as_before(&third));
        assert!(first.iter().all(|&byte| byte == round));
        first.reset()?;
        assert!(is_as_before(&first));
        assert_eq!((second[SIZE - 2], second[SIZE - 1]), (3, 7));
        second.reset()?;
        assert!(is_as_before(&second));
    }
    assert!(segment.iter().all(|&byte| byte == 9));
    drop((segment, snapshot, first, second));
    assert_eq!(super::open(), before);
    Ok(())
}

pub(crate) fn other_processes_have_views_of_their_own() -> Outcome {
    let mut p = StdShMemProvider::new()?;
    let snapshot = p.snapshot(&p.clone().shmem_from_bytes(&vec![4; SIZE])?)?;
    let mut mine = snapshot.view()?;
    mine.fill(5);
    let mut peers = [Peer::start(), Peer::start()];
    for peer in &mut peers {
        peer.view(&snapshot.id(), 4)?;
    }
    assert!(mine.iter().all(|&byte| byte == 5));
    assert!(snapshot.view()?.iter().all(|&byte| byte == 4));
    Ok(())
}

/// What a peer does: checks all bytes of a view, changes and resets them, and holds the view until it ends.
pub(crate) fn view(id: &str, expected: u8) -> Answer {
    let mut view = StdShMemProvider::new()?.view_from_id(ShMemId::from_string(id))?;
    for round in 0..3 {
        if view.iter().any(|&byte| byte != expected) {
            return Err(format!("other bytes in round {round}").into());
        }
        view.fill(round);
        view.reset()?;
    }
    std::mem::forget(view);
    Ok(String::new())
}

pub(crate) fn nobody_can_change_a_snapshot() -> Outcome {
    let mut p = MemfdShMemProvider::new()?;
    let snapshot = p.snapshot(&p.clone().shmem_from_bytes(&[4; 8192])?)?;
    for refused in [
        p.shmem_from_id(snapshot.id()),
        p.shmem_from_id_and_size(snapshot.id(), 1),
    ] {
        assert!(matches!(refused, Err(Error::Foreign { .. })), "{refused:?}");
    }
    let file = file_of(snapshot.id())?;
    let errno = |done: std::io::Result<()>| done.err().and_then(|error| error.raw_os_error());
    assert_eq!(errno(file.write_all_at(&[1], 0)), Some(libc::EPERM));
    assert_eq!(errno(file.set_len(4096)), Some(libc::EPERM));
    assert_eq!(errno(file.set_len(16384)), Some(libc::EPERM));
    assert!(snapshot.view()?.iter().all(|&byte| byte == 4));
    Ok(())
}

pub(crate) fn a_snapshot_lives_as_long_as_its_holders() -> Outcome {
    let mut p = StdShMemProvider::new()?;
    let snapshot = p.snapshot(&p.clone().shmem_from_bytes(&vec![4; SIZE])?)?;
    let id = snapshot.id();
    let view = snapshot.view()?;
    drop(snapshot);
    assert_eq!(p.view_from_id(id)?[0], 4);
    let mut peer = Peer::start();
    peer.view(&id, 4)?;
    drop(view);
    // Now the peer is the only holder.
    assert_eq!(p.view_from_id(id)?[SIZE - 1], 4);
    peer.kill();
    let gone = p.view_from_id(id).expect_err("it has no holder");
    assert!(gone.is_not_found(), "{gone:?}");
    Ok(())
}

pub(crate) fn a_snapshot_takes_memory_for_written_pages_only() -> Outcome {
    let page = page_size();
    let mut p = MemfdShMemProvider::new()?;
    let mut segment = p.new_shmem(1024 * page)?;
    for number in [0, 77, 1000] {
        segment[number * page] = 1;
    }
    let snapshot = p.snapshot(&segment)?;
    let blocks = file_of(snapshot.id())?.metadata()?.blocks();
    assert_eq!(blocks * 512, 3 * page as u64);
    let mut view = snapshot.view()?;
    assert_eq!((view[0], view[77 * page], view[1000 * page]), (1, 1, 1));
    for number in 0..100 {
        view[number * page] = 2;
    }
    assert_eq!(Smaps::of(view.as_ptr()).bytes("Anonymous"), 100 * page);
    view.reset()?;
    assert_eq!(Smaps::of(view.as_ptr()).bytes("Anonymous"), 0);
    assert_eq!((view[0], view[page]), (1, 0));
    Ok(())
}

/// A snapshot of an attachment to a part of a segment has that part only.
pub(crate) fn a_part_has_a_snapshot_of_its_own() -> Outcome {
    let page = page_size();
    let size = 64 * page + 5;
    let mut p = MemfdShMemProvider::new()?;
    let mut segment = p.new_shmem(size)?;
    segment[2 * page..].fill(1);
    for len in [1, 100, page, 2 * page + 1, 5 * page + 7, size - 1, size] {
        let part = p.shmem_from_id_and_size(segment.id(), len)?;
        let snapshot = p.snapshot(&part)?;
        let view = p.view_from_id(snapshot.id())?;
        assert_eq!((snapshot.len(), view.len()), (len, len));
        assert_eq!(file_of(snapshot.id())?.metadata()?.len(), len as u64);
        assert!(view[..] == segment[..len], "{len}");
    }
    Ok(())
}

pub(crate) fn other_segments_are_refused_as_snapshots() -> Outcome {
    let mut p = StdShMemProvider::new()?;
    let mut segment = p.new_shmem(100)?;
    let refused = p.view_from_id(segment.id()).expect_err("a segment");
    assert!(matches!(refused, Error::Foreign { .. }), "{refused:?}");
    let id = segment.id();
    p.release_shmem(&mut segment);
    assert_eq!(
        p.snapshot(&segment).expect_err("released"),
        Error::Released { id }
    );
    assert!(p.view_from_id(ShMemId::from_string("x")).is_err());
    // Mechanisms without snapshots report that.
    let mut p = UnixShMemProvider::new()?;
    if let Ok(segment) = p.new_shmem(100) {
        let refused = (
            p.snapshot(&segment).err(),
            p.view_from_id(segment.id()).err(),
        );
        assert!(
            matches!(
                refused,
                (
                    Some(Error::Unsupported { .. }),
                    Some(Error::Unsupported { .. })
                )
            ),
            "{refused:?}"
        );
    }
    let mut p = MmapShMemProvider::new()?;
    if let Ok(segment) = p.new_shmem(100) {
        let refused = p.snapshot(&segment).expect_err("there are none");
        assert!(matches!(refused, Error::Unsupported { .. }), "{refused:?}");
    }
    Ok(())
}

pub(crate) fn the_service_hands_out_snapshots() -> Outcome {
    let mut maker = ServedShMemProvider::<MemfdBackend>::new()?;
    // Like another process, this provider has a connection of its own.
    let mut other = ServedShMemProvider::<MemfdBackend>::new()?;
    let mut segment = maker.new_shmem(SIZE)?;
    segment[5000..].fill(3);
    let snapshot = maker.snapshot(&segment)?;
    segment.fill(9);
    let mut view = other.view_from_id(snapshot.id())?;
    view.fill(5);
    view.reset()?;
    assert!(view[..5000].iter().all(|&b| b == 0) && view[5000..].iter().all(|&b| b == 3));
    // A snapshot does not open as a segment, nor a segment as a snapshot.
    for refused in [
        other.shmem_from_id(snapshot.id()).err(),
        other.view_from_id(segment.id()).err(),
    ] {
        assert!(
            matches!(refused, Some(Error::Foreign { .. })),
            "{refused:?}"
        );
    }
    // A view is a holder.
    let id = snapshot.id();
    drop(snapshot);
    drop(maker.view_from_id(id)?);
    drop(view);
    // The release and the request arrive on different connections, in any order.
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match maker.view_from_id(id) {
            Err(error) => {
                assert!(error.is_not_found(), "{error:?}");
                return Ok(());
            }
            Ok(_) => assert!(Instant::now() < end, "it opens without a holder"),
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Opens the memfd of this segment without the crate.
pub(crate) fn file_of(id: ShMemId) -> std::io::Result<fs::File> {
    fs::File::options()
        .read(true)
        .write(true)
        .open(path_of(id)?)
}

/// Returns the path in `/proc` of the descriptor of this segment.
pub(crate) fn path_of(id: ShMemId) -> std::io::Result<PathBuf> {
    let nonce = &id.as_str()[8..];
    for entry in fs::read_dir("/proc/self/fd")? {
        let path = entry?.path();
        let link = fs::read_link(&path).unwrap_or_default();
        if link.to_string_lossy().contains(nonce) {
            return Ok(path);
        }
    }
    Err(std::io::ErrorKind::NotFound.into())
}
