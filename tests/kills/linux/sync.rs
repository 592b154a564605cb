//! Words that other processes sleep on. Each state has a process that sleeps, or is about to.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, Release};

use shmem_providers::sync::Turn;
use shmem_providers::wake;
use shmem_providers::{ShMem, ShMemProvider, StdShMemProvider};
use testkit::Outcome;
use testkit::stepper::{At, sweep};

use super::{Bystander, SLEEP, until};

pub(crate) fn a_changed_word_wakes_with_the_next_wake_up() -> Outcome {
    let report = sweep(
        At::Instructions,
        || {
            let shared = StdShMemProvider::new()?.new_shmem(64)?.share();
            let word = shared.view::<AtomicU32>(0)?;
            let asleep = Bystander::start(|| Ok(SLEEP.while_equal(&word, 0)? == Some(1)))?;
            Ok((word, asleep))
        },
        |(word, _), doomed| {
            doomed.during(|| {
                word.store(1, Release);
                wake::one(word)
            })?;
            Ok(())
        },
        |(word, asleep)| {
            let found = word.swap(1, Release);
            wake::one(&word)?;
            assert!(asleep.has_succeeded()?, "it was not woken");
            Ok(["old", "new"][usize::try_from(found)?])
        },
    )?;
    assert_eq!(report.phases(), ["old", "new"]);
    Ok(())
}

pub(crate) fn a_turn_is_passed_or_not_and_the_next_pass_wakes() -> Outcome {
    let report = sweep(
        At::Instructions,
        || {
            let shared = StdShMemProvider::new()?.new_shmem(64)?.share();
            let turn = shared.view::<Turn>(0)?;
            let asleep = Bystander::start(|| turn.wait_for(1, SLEEP))?;
            // The word of the announcements. The others see it before it sleeps, and need not see that.
            let announced = shared.view::<AtomicU32>(4)?;
            until(|| announced.load(Relaxed) != 0);
            Ok((turn, asleep))
        },
        |(turn, _), doomed| {
            doomed.during(|| turn.pass(1))?;
            Ok(())
        },
        |(turn, asleep)| {
            let found = turn.current();
            turn.pass(1)?;
            assert!(asleep.has_succeeded()?, "it was not woken");
            Ok(["old", "new"][usize::try_from(found)?])
        },
    )?;
    assert_eq!(report.phases(), ["old", "new"]);
    Ok(())
}
