//! Clearing, trimming, and finding what was touched.

use shmem_providers::{Error, HugePages, MemfdShMemProvider, ShMem, ShMemOptions, ShMemProvider};

use super::any::Tuned;
use super::smaps::Smaps;
use super::support::{DONE, Outcome, skip};

const PAGE: usize = 4096;

/// More than what is cleared by filling it.
const LARGE: usize = 16 << 20;

pub(crate) fn a_cleared_segment_is_zero_everywhere<P: Tuned>(p: &mut P) -> Outcome {
    for size in [1, 4097, 1 << 20, (1 << 20) + 1, LARGE + 5] {
        let mut segment = p.new_shmem(size)?;
        let mut attached = p.shmem_from_id(segment.id())?;
        // First, last, the last of a page, the first of one, and some in between.
        let places = (0..size).step_by(size / 7 + 1).chain([size - 1]);
        let places = places.chain(
            [PAGE - 1, PAGE, 3 * PAGE]
                .into_iter()
                .filter(|&at| at < size),
        );
        for (index, place) in places.enumerate() {
            let side = if index % 2 == 0 {
                &mut segment
            } else {
                &mut attached
            };
            side[place] = 1;
        }
        P::clear(&mut segment);
        assert!(segment.iter().all(|&byte| byte == 0), "{size}");
        // All of it has memory now, because it was read.
        attached.fill(255);
        P::clear(&mut attached);
        assert!(segment.iter().all(|&byte| byte == 0), "{size}");
    }
    DONE
}

pub(crate) fn what_was_touched_is_found<P: Tuned>(p: &mut P) -> Outcome {
    let mut segment = p.new_shmem(LARGE + 100)?;
    match P::touched(&segment) {
        Ok(touched) => assert!(touched.is_empty(), "{touched:?}"),
        Err(Error::Unsupported { .. }) => return skip("this mechanism cannot tell"),
        Err(error) => return Err(error.into()),
    }
    let places = [0, 5 * PAGE, 6 * PAGE + 1, 700 * PAGE - 1, LARGE + 99];
    for place in places {
        segment[place] = 1;
    }
    let touched = P::touched(&segment)?;
    let expected = [
        0..PAGE,
        5 * PAGE..7 * PAGE,
        699 * PAGE..700 * PAGE,
        LARGE..LARGE + 100,
    ];
    assert_eq!(touched, expected);
    // Whoever asks.
    let mut attached = p.shmem_from_id_and_size(segment.id(), 6 * PAGE)?;
    assert_eq!(P::touched(&attached)?, [0..PAGE, 5 * PAGE..6 * PAGE]);
    attached[2 * PAGE] = 1;
    assert_eq!(P::touched(&segment)?[1], 2 * PAGE..3 * PAGE);
    DONE
}

pub(crate) fn what_is_trimmed_is_zero_for_everybody<P: Tuned>(p: &mut P) -> Outcome {
    let size = 10 * PAGE + 10;
    let mut segment = p.new_shmem(size)?;
    let attached = p.shmem_from_id(segment.id())?;
    segment.fill(1);
    for (start, end) in [(0, size + 1), (size + 1, size + 2), (2, 1)] {
        let error = P::trim(&mut segment, start..end).expect_err("no such bytes");
        assert!(matches!(error, Error::OutOfBounds { .. }), "{error:?}");
    }
    P::trim(&mut segment, 5..5)?;
    assert!(attached.iter().all(|&byte| byte == 1));
    match P::trim(&mut segment, 100..3 * PAGE + 1) {
        Err(Error::Unsupported { .. }) => {
            assert!(attached.iter().all(|&byte| byte == 1));
            return skip("this mechanism cannot");
        }
        done => done?,
    }
    let trimmed = |at: usize| (100..3 * PAGE + 1).contains(&at);
    assert!((0..size).all(|at| attached[at] == u8::from(!trimmed(at))));
    P::trim(&mut segment, 9 * PAGE..size)?;
    assert_eq!(
        (
            attached[9 * PAGE - 1],
            attached[9 * PAGE],
            attached[size - 1]
        ),
        (1, 0, 0)
    );
    segment[size - 1] = 2;
    assert_eq!(attached[size - 1], 2);
    DONE
}

pub(crate) fn a_released_segment_has_nothing_to_clear<P: Tuned>(p: &mut P) -> Outcome {
    let mut segment = p.new_shmem(LARGE)?;
    let id = segment.id();
    p.release_shmem(&mut segment);
    P::clear(&mut segment);
    assert_eq!(P::touched(&segment), Ok(vec![]));
    assert_eq!(P::trim(&mut segment, 0..0), Ok(()));
    assert!(p.shmem_from_id(id).is_err());
    DONE
}

pub(crate) fn to_clear_a_large_map_touches_nothing_new() -> Outcome {
    let mut segment = MemfdShMemProvider::new()?.new_shmem(LARGE)?;
    for page in [3, 4, 1000] {
        segment[page * PAGE] = 1;
    }
    segment.clear();
    assert_eq!(Smaps::of(segment.as_ptr()).bytes("Rss"), 3 * PAGE);
    assert_eq!(segment.touched_ranges().count(), 2);
    DONE
}

pub(crate) fn to_trim_gives_memory_back() -> Outcome {
    let mut segment = MemfdShMemProvider::new()?.new_shmem(LARGE + 1)?;
    segment.fill(1);
    assert_eq!(Smaps::of(segment.as_ptr()).bytes("Rss"), LARGE + PAGE);
    segment.trim(PAGE..LARGE + 1)?;
    assert_eq!(Smaps::of(segment.as_ptr()).bytes("Rss"), PAGE);
    let mut touched = segment.touched_ranges();
    assert_eq!(touched.next(), Some(Ok(0..PAGE)));
    assert_eq!(touched.next(), None);
    DONE
}

pub(crate) fn huge_pages_are_not_trimmed() -> Outcome {
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
    DONE
}
