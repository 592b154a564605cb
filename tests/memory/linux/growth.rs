//! Segments that grow: pointers stay, memory comes when it is asked for, and all holders see the size.

mod faults;
mod mechanisms;
mod peer;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use shmem_providers::{
    Error, Growable, HugePages, OptionStatus, Provider, Segment, ShMem, ShMemOptions,
    ShMemProvider, Snapshots, Sparse,
};

pub(crate) use self::faults::*;
pub(crate) use self::mechanisms::*;
pub(crate) use self::peer::execute;
use self::peer::{GrowthCommands, State};
use super::peer::Peer;
use super::smaps::Smaps;
use testkit::{Outcome, page_size, skip};

/// Not a multiple of the page size.
const SIZE: usize = 100;
const MAX: usize = 16 << 20;

/// Creates a segment that can grow. Skips the test if the mechanism has none, after a look at the reason.
fn growable<B: Growable>(p: &mut Provider<B>) -> Outcome<Segment<B>> {
    growable_with(p, ShMemOptions::new())
}

fn growable_with<B: Growable>(p: &mut Provider<B>, options: ShMemOptions) -> Outcome<Segment<B>> {
    match p.new_shmem_with(SIZE, options.reserve(MAX)) {
        Ok((segment, _)) => Ok(segment),
        Err(Error::Unsupported { what }) => {
            assert!(what.contains("System V"), "{what}");
            skip("System V segments cannot grow")
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns the word by which a peer knows the provider.
fn kind<B: Growable>(segment: &Segment<B>) -> &'static str {
    match segment.id().as_str().as_bytes().first() {
        Some(b's') => "served",
        _ => "default",
    }
}

fn attached<B: Growable>(segment: &Segment<B>) -> Outcome<Peer> {
    let mut peer = Peer::start();
    peer.execute(format!("grow open {} {}", kind(segment), segment.id()))?;
    Ok(peer)
}

/// Returns the descriptor of the object that is mapped at this address.
fn descriptor(byte: *const u8) -> Outcome<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let start = format!("{:x}-", byte.addr());
    let line = maps.lines().find(|line| line.starts_with(&start));
    let inode: u64 = line
        .and_then(|line| line.split_whitespace().nth(4))
        .ok_or("nothing is mapped there")?
        .parse()?;
    for entry in fs::read_dir("/proc/self/fd")?.flatten() {
        if fs::metadata(entry.path()).is_ok_and(|file| file.ino() == inode) {
            return Ok(entry.path());
        }
    }
    Err("no descriptor refers to it".into())
}

/// Returns how much memory the object has.
fn memory(byte: *const u8) -> Outcome<usize> {
    Ok(usize::try_from(
        fs::metadata(descriptor(byte)?)?.blocks() * 512,
    )?)
}

pub(crate) fn a_segment_grows_where_it_is<B: Growable>(p: &mut Provider<B>) -> Outcome {
    let mut segment = growable(p)?;
    let mut peer = attached(&segment)?;
    let start = segment.as_ptr();
    assert_eq!(
        (segment.len(), segment.committed(), segment.reserved()),
        (SIZE, SIZE, MAX)
    );
    let before = peer.state();
    assert_eq!(
        (before.len, before.committed, before.reserved),
        (SIZE, SIZE, MAX)
    );
    segment.fill(1);
    for len in [
        SIZE + 1,
        page_size(),
        page_size() + 1,
        1 << 20,
        (5 << 20) + 7,
        MAX,
    ] {
        let old = segment.len();
        segment.grow_to(len)?;
        assert_eq!(
            (segment.as_ptr(), segment.len(), segment.committed()),
            (start, len, len)
        );
        assert!(segment[..old].iter().all(|&byte| byte == 1));
        assert!(segment[old..].iter().all(|&byte| byte == 0));
        segment.fill(1);
        // The peer sees it, and its view is as before until it asks for more.
        let State {
            len: seen,
            committed,
            address,
            ..
        } = peer.state();
        assert_eq!((seen, committed, address), (old, len, before.address));
        assert_eq!(peer.grow_to(len)?, len);
        assert_eq!(
            peer.state(),
            State {
                len,
                committed: len,
                ..before
            }
        );
        assert_eq!(peer.ask(format!("grow get {}", len - 1))?, "1");
    }
    // Less is no error and changes nothing.
    segment.grow_to(SIZE)?;
    assert_eq!(segment.len(), MAX);
    Ok(())
}

pub(crate) fn a_peer_grows_it_too<B: Growable>(p: &mut Provider<B>) -> Outcome {
    let mut segment = growable(p)?;
    let mut peer = attached(&segment)?;
    peer.grow_to(3 << 20)?;
    peer.execute(format!("grow put {} 9", (3 << 20) - 1))?;
    peer.kill();
    assert_eq!((segment.len(), segment.committed()), (SIZE, 3 << 20));
    segment.grow_to(segment.committed())?;
    assert_eq!(segment[(3 << 20) - 1], 9);
    Ok(())
}

pub(crate) fn memory_comes_with_growth<B: Growable>(p: &mut Provider<B>) -> Outcome {
    let mut segment = growable(p)?;
    // What a huge page would add, where the system is set up to use them for all shared memory.
    let spare = 4 << 20;
    assert!(memory(segment.as_ptr())? <= 2 * page_size() + spare);
    let mut attached = p.shmem_from_id(segment.id())?;
    assert!(memory(segment.as_ptr())? <= 2 * page_size() + spare);
    segment.grow_to(8 << 20)?;
    let grown = memory(segment.as_ptr())?;
    assert!((8 << 20..=(8 << 20) + spare).contains(&grown), "{grown}");
    // To see what others have grown needs none.
    attached.grow_to(8 << 20)?;
    attached.fill(1);
    assert_eq!(memory(segment.as_ptr())?, grown);
    Ok(())
}

pub(crate) fn attaching_gets_what_is_committed<B: Growable>(p: &mut Provider<B>) -> Outcome {
    let mut segment = growable(p)?;
    segment.grow_to(5000)?;
    segment[4999] = 3;
    let (id, kind) = (segment.id(), kind(&segment));
    assert_eq!(p.shmem_from_id(id)?.len(), 5000);
    let mut part = p.shmem_from_id_and_size(id, 10)?;
    assert_eq!(
        (part.len(), part.committed(), part.reserved()),
        (10, 5000, MAX)
    );
    part.grow_to(5000)?;
    assert_eq!(part[4999], 3);
    let (asked, actual) = (5001, 5000);
    let refused = p.shmem_from_id_and_size(id, asked).err();
    assert_eq!(refused, Some(Error::TooLarge { asked, actual }));
    let mut clone = p.clone_ref(&segment)?;
    clone.grow_to(6000)?;
    assert_eq!((clone.len(), segment.committed()), (6000, 6000));

    let mut peer = Peer::start();
    peer.execute(format!("grow open {kind} {id} 5000"))?;
    assert_eq!(peer.state().len, 5000);
    let refused = peer.ask(format!("grow open {kind} {id} {MAX}"));
    assert!(refused.is_err_and(|error| error.contains("but the segment has 6000")));
    let mut command = Peer::command();
    segment.hand_over(&mut command, "GROWING")?;
    let mut peer = Peer::started(&mut command);
    peer.execute(format!("grow env {kind} GROWING"))?;
    assert_eq!(peer.state().len, 5000);

    let wanted = |max| ShMemOptions::new().reserve(max);
    assert_eq!(p.shmem_from_id_with(id, None, wanted(MAX))?.0.len(), 6000);
    let (asked, reserved) = (MAX + 1, MAX);
    let refused = p.shmem_from_id_with(id, None, wanted(asked)).err();
    assert_eq!(refused, Some(Error::NotReserved { asked, reserved }));
    Ok(())
}

pub(crate) fn nothing_grows_beyond_its_reservation<B: Growable>(p: &mut Provider<B>) -> Outcome {
    let mut ordinary = p.new_shmem(5000)?;
    assert_eq!((ordinary.committed(), ordinary.reserved()), (5000, 5000));
    ordinary.grow_to(5000)?;
    let (asked, reserved) = (5001, 5000);
    assert_eq!(
        ordinary.grow_to(asked),
        Err(Error::NotReserved { asked, reserved })
    );
    // A user may write anything, also where a growable segment has its size.
    ordinary.fill(255);
    let mut attached = p.shmem_from_id(ordinary.id())?;
    assert_eq!((attached.len(), attached.reserved()), (5000, 5000));
    assert!(attached.grow_to(asked).is_err());

    let mut segment = growable(p)?;
    for asked in [MAX + 1, usize::MAX] {
        let refused = segment.grow_to(asked);
        assert_eq!(
            refused,
            Err(Error::NotReserved {
                asked,
                reserved: MAX
            })
        );
    }
    assert_eq!((segment.len(), segment.committed()), (SIZE, SIZE));
    p.release_shmem(&mut segment);
    assert_eq!((segment.committed(), segment.reserved()), (0, 0));
    assert!(matches!(segment.grow_to(1), Err(Error::Released { .. })));

    for size in [usize::MAX, isize::MAX as usize] {
        let refused = p
            .new_shmem_with(SIZE, ShMemOptions::new().reserve(size))
            .err();
        assert_eq!(refused, Some(Error::InvalidSize { size }));
    }
    // Whole pages, and never less than the segment has.
    for (max, reserved) in [
        (0, page_size()),
        (1, page_size()),
        (5000, 5000_usize.next_multiple_of(page_size())),
    ] {
        let (small, _) = p.new_shmem_with(SIZE, ShMemOptions::new().reserve(max))?;
        assert_eq!((small.len(), small.reserved()), (SIZE, reserved));
    }
    Ok(())
}

pub(crate) fn options_apply_to_what_is_committed<B: Growable>(p: &mut Provider<B>) -> Outcome {
    drop(growable(p)?);
    let all = ShMemOptions::new()
        .prefault()
        .lock()
        .no_dump()
        .transparent_huge_pages();
    let options = all.try_huge_pages(HugePages::TwoMiB).reserve(MAX);
    let (segment, report) = p.new_shmem_with(SIZE, options)?;
    assert!(memory(segment.as_ptr())? < MAX / 2);
    for status in [&report.huge_pages, &report.transparent_huge_pages] {
        assert!(matches!(status, OptionStatus::Refused(_)), "{status:?}");
    }
    if report.no_dump.is_granted() {
        // Also what is committed later.
        assert!(Smaps::of(segment.as_ptr()).has("dd"));
        assert!(Smaps::of(segment.as_ptr().wrapping_add(MAX - 1)).has("dd"));
    }
    let required = ShMemOptions::new()
        .require_huge_pages(HugePages::TwoMiB)
        .reserve(MAX);
    assert!(matches!(
        p.new_shmem_with(SIZE, required),
        Err(Error::Unsupported { .. })
    ));
    let (attached, report) = p.shmem_from_id_with(segment.id(), None, all)?;
    assert_eq!(attached.len(), SIZE);
    assert!(memory(segment.as_ptr())? < MAX / 2);
    assert!(matches!(
        report.transparent_huge_pages,
        OptionStatus::Refused(_)
    ));
    Ok(())
}

pub(crate) fn parts_of_it_are_found_and_freed<B: Growable + Sparse>(
    p: &mut Provider<B>,
) -> Outcome {
    let mut segment = growable(p)?;
    segment.grow_to((3 << 20) + 5)?;
    segment.fill(7);
    let ranges: Vec<_> = segment.data_ranges().collect::<Result<_, _>>()?;
    assert_eq!(ranges.last().map(|range| range.end), Some((3 << 20) + 5));
    segment.clear();
    assert!(segment.iter().all(|&byte| byte == 0));
    segment.fill(7);
    match segment.trim(1 << 20..(3 << 20) + 5) {
        Ok(()) => assert_eq!((segment[(1 << 20) - 1], segment[1 << 20]), (7, 0)),
        Err(Error::Unsupported { .. }) => assert_eq!(kind_of_memory(&segment), "posix"),
        Err(error) => return Err(error.into()),
    }
    assert_eq!(segment.committed(), (3 << 20) + 5);
    segment.grow_to(4 << 20)?;
    assert!(segment[(3 << 20) + 5..].iter().all(|&byte| byte == 0));
    Ok(())
}

fn kind_of_memory<B: Growable>(segment: &Segment<B>) -> &'static str {
    match segment.id().as_str().as_bytes().first() {
        Some(b'/') => "posix",
        _ => "memfd",
    }
}

pub(crate) fn a_snapshot_has_what_is_covered<B: Growable + Snapshots>(
    p: &mut Provider<B>,
) -> Outcome {
    let mut segment = growable(p)?;
    segment.grow_to(9000)?;
    segment.fill(4);
    match p.snapshot(&segment) {
        Ok(snapshot) => {
            segment.grow_to(20000)?;
            let view = snapshot.view()?;
            assert_eq!((snapshot.len(), view.len()), (9000, 9000));
            assert!(view.iter().all(|&byte| byte == 4));
            Ok(())
        }
        Err(Error::Unsupported { .. }) => skip("this mechanism has no snapshots"),
        Err(error) => Err(error.into()),
    }
}
