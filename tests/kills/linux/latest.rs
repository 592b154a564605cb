//! `Latest`.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use shmem_providers::channel::Latest;
use shmem_providers::{ShMem, ShMemProvider, StdShMemProvider};
use testkit::Outcome;
use testkit::stepper::{At, sweep};

use super::{Bystander, SLEEP, until};

const LEN: usize = 40;

/// Returns the byte that the newest value consists of.
fn newest(latest: &Latest) -> Outcome<u8> {
    let mut value = Vec::new();
    latest
        .reader()
        .read(&mut value)?
        .ok_or("there is no value")?;
    assert!(
        value == [value[0]; LEN],
        "parts of several values: {value:?}"
    );
    Ok(value[0])
}

pub(crate) fn a_killed_writer_has_published_a_value_or_the_one_before_stays() -> Outcome {
    let report = sweep(
        At::Instructions,
        || {
            let latest = Latest::create(&mut StdShMemProvider::new()?, LEN)?;
            latest.writer().publish(&[0; LEN])?;
            Ok(latest)
        },
        |latest, doomed| {
            let mut writer = latest.writer();
            doomed.during(|| writer.publish(&[1; LEN]))?;
            Ok(())
        },
        |latest| {
            let found = newest(&latest)?;
            for next in 2..10 {
                latest.writer().publish(&[next; LEN])?;
                assert_eq!(newest(&latest)?, next);
            }
            Ok(["old", "new"][usize::from(found)])
        },
    )?;
    assert_eq!(report.phases(), ["old", "new"]);
    Ok(())
}

pub(crate) fn a_reader_that_sleeps_is_woken_once_another_writer_takes_over() -> Outcome {
    let report = sweep(
        At::Instructions,
        || {
            let mut segment = StdShMemProvider::new()?.new_shmem(Latest::size(LEN, 2))?;
            Latest::initialise(&mut segment, LEN, 2)?;
            let shared = segment.share();
            let latest = Latest::in_segment(&shared)?;
            let asleep =
                Bystander::start(|| Ok(latest.reader().next(&mut Vec::new(), SLEEP)?.is_some()))?;
            // The word of the announcements. The others see it before it sleeps, and need not see that.
            let announced = shared.view::<AtomicU32>(128)?;
            until(|| announced.load(Relaxed) != 0);
            Ok((latest, asleep))
        },
        |(latest, _), doomed| {
            let mut writer = latest.writer();
            // Copying bytes would be many more positions, long before anybody is woken.
            doomed.during(|| writer.write(0, |_| ()))?;
            Ok(())
        },
        |(latest, asleep)| {
            let mut writer = latest.writer();
            let found = latest.reader().read(&mut Vec::new())?.is_some();
            if !found {
                writer.publish(&[])?;
            }
            assert!(asleep.has_succeeded()?, "it was not woken");
            Ok(["old", "new"][usize::from(found)])
        },
    )?;
    assert_eq!(report.phases(), ["old", "new"]);
    Ok(())
}
