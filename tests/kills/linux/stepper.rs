//! The harness itself: it finds a protocol that does not survive, and misses no position.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use shmem_providers::{ShMem, ShMemProvider, Shared, StdShMem, StdShMemProvider};
use testkit::Outcome;
use testkit::stepper::{At, sweep};

fn shared() -> Outcome<Shared<StdShMem>> {
    Ok(StdShMemProvider::new()?.new_shmem(64)?.share())
}

/// Two words that are to be equal, written one after the other.
pub(crate) fn a_counter_of_two_words_is_torn() -> Outcome {
    let report = sweep(
        At::Instructions,
        shared,
        |shared, doomed| {
            let words = shared.view::<[AtomicU32; 2]>(0)?;
            doomed.during(|| {
                words[0].store(1, Relaxed);
                words[1].store(1, Relaxed);
            });
            Ok(())
        },
        |shared| {
            let words = shared.view::<[AtomicU32; 2]>(0)?;
            match [words[0].load(Relaxed), words[1].load(Relaxed)] {
                [0, 0] => Ok("old"),
                [1, 0] => Ok("torn"),
                [1, 1] => Ok("new"),
                other => Err(format!("{other:?}").into()),
            }
        },
    )?;
    assert_eq!(report.phases(), ["old", "torn", "new"]);
    Ok(())
}

pub(crate) fn a_store_is_seen_or_not() -> Outcome {
    let report = sweep(
        At::Instructions,
        shared,
        |shared, doomed| {
            let word = shared.view::<AtomicU32>(0)?;
            doomed.during(|| word.store(7, Relaxed));
            Ok(())
        },
        |shared| match shared.view::<AtomicU32>(0)?.load(Relaxed) {
            0 => Ok("old"),
            7 => Ok("new"),
            other => Err(format!("{other}").into()),
        },
    )?;
    assert_eq!(report.phases(), ["old", "new"]);
    Ok(())
}

/// Positions in a loop have the same address. No child may be killed in another iteration.
pub(crate) fn every_iteration_of_a_loop_is_a_position() -> Outcome {
    const NUMBERS: [&str; 7] = ["0", "1", "2", "3", "4", "5", "6"];
    let report = sweep(
        At::Instructions,
        shared,
        |shared, doomed| {
            let word = shared.view::<AtomicU32>(0)?;
            doomed.during(|| {
                for number in 1..=6 {
                    word.store(number, Relaxed);
                }
            });
            Ok(())
        },
        |shared| {
            let number = shared.view::<AtomicU32>(0)?.load(Relaxed);
            Ok(NUMBERS[usize::try_from(number)?])
        },
    )?;
    assert_eq!(report.phases(), NUMBERS);
    Ok(())
}
