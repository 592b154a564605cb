//! Clearing, trimming, and finding the pages that were written.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use shmem_providers::{Error, HugePages, MemfdShMemProvider, ShMem, ShMemOptions, ShMemProvider};

use super::any::Tuned;
use super::smaps::Smaps;
use testkit::{Outcome, page_size, skip};

/// Larger than segments that `clear` fills with zeros.
const LARGE: usize = 16 << 20;

pub(crate) fn a_cleared_segment_is_zero_everywhere<P: Tuned>(p: &mut P) -> Outcome {
    let page = page_size();
    for size in [1, 4097, 1 << 20, (1 << 20) + 1, LARGE + 5] {
        let mut segment = p.new_shmem(size)?;
        let mut attached = p.shmem_from_id(segment.id())?;
        // The first and last byte, those at the ends of pages, and some in between.
        let written = (0..size).step_by(size / 7 + 1).chain([size - 1]);
        let written = written.chain(
            [page - 1, page, 3 * page]
                .into_iter()
                .filter(|&at| at < size),
        );
        for (index, at) in written.enumerate() {
            let side = if index % 2 == 0 {
                &mut segment
            } else {
                &mut attached
            };
            side[at] = 1;
        }
        P::clear(&mut segment);
        assert!(segment.iter().all(|&byte| byte == 0), "{size}");
        // Now all pages exist, because they were read.
        attached.fill(255);
        P::clear(&mut attached);
        assert!(segment.iter().all(|&byte| byte == 0), "{size}");
    }
    Ok(())
}

pub(crate) fn written_pages_are_found<P: Tuned>(p: &mut P) -> Outcome {
    let page = page_size();
    let mut segment = p.new_shmem(LARGE + 100)?;
    match P::data_ranges(&segment) {
        Ok(ranges) => assert!(ranges.is_empty(), "{ranges:?}"),
        Err(Error::Unsupported { .. }) => return skip("this mechanism reports no ranges"),
        Err(error) => return Err(error.into()),
    }
    for at in [0, 5 * page, 6 * page + 1, 200 * page - 1, LARGE + 99] {
        segment[at] = 1;
    }
    let ranges = P::data_ranges(&segment)?;
    let expected = [
        0..page,
        5 * page..7 * page,
        199 * page..200 * page,
        LARGE..LARGE + 100,
    ];
    assert_eq!(ranges, expected);
    // Another holder finds the same.
    let mut attached = p.shmem_from_id_and_size(segment.id(), 6 * page)?;
    assert_eq!(P::data_ranges(&attached)?, [0..page, 5 * page..6 * page]);
    attached[2 * page] = 1;
    assert_eq!(P::data_ranges(&segment)?[1], 2 * page..3 * page);
    Ok(())
}

pub(crate) fn what_is_trimmed_is_zero_for_everybody<P: Tuned>(p: &mut P) -> Outcome {
    let page = page_size();
    let size = 10 * page + 10;
    let mut segment = p.new_shmem(size)?;
    let attached = p.shmem_from_id(segment.id())?;
    segment.fill(1);
    for (start, end) in [(0, size + 1), (size + 1, size + 2), (2, 1)] {
        let error = P::trim(&mut segment, start..end).expect_err("no such bytes");
        assert!(matches!(error, Error::OutOfBounds { .. }), "{error:?}");
    }
    P::trim(&mut segment, 5..5)?;
    assert!(attached.iter().all(|&byte| byte == 1));
    match P::trim(&mut segment, 100..3 * page + 1) {
        Err(Error::Unsupported { .. }) => {
            assert!(attached.iter().all(|&byte| byte == 1));
            return skip("this mechanism cannot trim");
        }
        done => done?,
    }
    let trimmed = |at: usize| (100..3 * page + 1).contains(&at);
    assert!((0..size).all(|at| attached[at] == u8::from(!trimmed(at))));
    P::trim(&mut segment, 9 * page..size)?;
    assert_eq!(
        (
            attached[9 * page - 1],
            attached[9 * page],
            attached[size - 1]
        ),
        (1, 0, 0)
    );
    segment[size - 1] = 2;
    assert_eq!(attached[size - 1], 2);
    Ok(())
}

/// A holder of a part changes nothing beyond that part.
pub(crate) fn nothing_beyond_a_part_is_trimmed_or_cleared<P: Tuned>(p: &mut P) -> Outcome {
    let page = page_size();
    let size = (4 << 20) + 10;
    let mut segment = p.new_shmem(size)?;
    // Parts that `clear` fills with zeros and larger ones, which end within a page or at its end.
    for len in [
        1,
        100,
        page,
        page + 1,
        3 * page + 5,
        (2 << 20) + 1,
        size - 1,
    ] {
        let mut part = p.shmem_from_id_and_size(segment.id(), len)?;
        segment.fill(1);
        P::clear(&mut part);
        assert!(segment[..len].iter().all(|&byte| byte == 0), "{len}");
        assert!(segment[len..].iter().all(|&byte| byte == 1), "{len}");
        segment.fill(1);
        let start = len / 2;
        match P::trim(&mut part, start..len) {
            Err(Error::Unsupported { .. }) => continue,
            done => done?,
        }
        let trimmed = |at: usize| (start..len).contains(&at);
        let wrong = (0..size).find(|&at| segment[at] != u8::from(!trimmed(at)));
        assert_eq!(wrong, None, "{start}..{len}");
        assert!(P::trim(&mut part, start..len + 1).is_err());
    }
    Ok(())
}

/// Another thread frees the page at which the next range starts, between the two calls that search for the
/// range. The ranges behind it are found nevertheless.
pub(crate) fn concurrent_trim_hides_no_data() -> Outcome {
    let page = page_size();
    let mut p = MemfdShMemProvider::new()?;
    let mut segment = p.new_shmem(64 * page)?;
    let mut other = p.shmem_from_id(segment.id())?;
    segment[50 * page] = 1;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let thread = scope.spawn(|| -> Result<(), Error> {
            while !stop.load(Relaxed) {
                other.access().write_at(0, &[1])?;
                other.trim(0..page)?;
            }
            Ok(())
        });
        let is_found = |_| {
            let mut ranges = segment.data_ranges().map_while(Result::ok);
            ranges.any(|part| part.contains(&(50 * page)))
        };
        let missed = (0..200_000).position(|round| !is_found(round));
        stop.store(true, Relaxed);
        thread.join().map_err(|_| "the thread has panicked")??;
        assert_eq!(missed, None);
        Ok(())
    })
}

pub(crate) fn a_released_segment_has_nothing_to_clear<P: Tuned>(p: &mut P) -> Outcome {
    let mut segment = p.new_shmem(LARGE)?;
    let id = segment.id();
    p.release_shmem(&mut segment);
    P::clear(&mut segment);
    assert_eq!(P::data_ranges(&segment), Ok(vec![]));
    assert_eq!(P::trim(&mut segment, 0..0), Ok(()));
    assert!(p.shmem_from_id(id).is_err());
    Ok(())
}

pub(crate) fn clear_touches_no_new_pages() -> Outcome {
    let page = page_size();
    let mut segment = MemfdShMemProvider::new()?.new_shmem(LARGE)?;
    for number in [3, 4, 200] {
        segment[number * page] = 1;
    }
    segment.clear();
    assert_eq!(Smaps::of(segment.as_ptr()).bytes("Rss"), 3 * page);
    assert_eq!(segment.data_ranges().count(), 2);
    Ok(())
}

pub(crate) fn trim_frees_memory() -> Outcome {
    let page = page_size();
    let mut segment = MemfdShMemProvider::new()?.new_shmem(LARGE + 1)?;
    segment.fill(1);
    assert_eq!(Smaps::of(segment.as_ptr()).bytes("Rss"), LARGE + page);
    segment.trim(page..LARGE + 1)?;
    assert_eq!(Smaps::of(segment.as_ptr()).bytes("Rss"), page);
    let mut ranges = segment.data_ranges();
    assert_eq!(ranges.next(), Some(Ok(0..page)));
    assert_eq!(ranges.next(), None);
    Ok(())
}

pub(crate) fn huge_pages_are_not_trimmed() -> Outcome {
    let _alone = match super::options::huge_pages_alone() {
        Ok(alone) => alone,
        Err(error) => return skip(format!("no huge pages: {error}")),
    };
    let options = ShMemOptions::new().require_huge_pages(HugePages::TwoMiB);
    let mut segment = match MemfdShMemProvider::new()?.new_shmem_with(4 << 20, options) {
        Ok((segment, _)) => segment,
        Err(error) => return skip(format!("no huge pages: {error}")),
    };
    segment.fill(1);
    let refused = segment.trim(0..2 << 20);
    assert!(
        matches!(refused, Err(Error::Unsupported { .. })),
        "{refused:?}"
    );
    assert!(segment.iter().all(|&byte| byte == 1));
    segment.clear();
    assert!(segment.iter().all(|&byte| byte == 0));
    Ok(())
}
