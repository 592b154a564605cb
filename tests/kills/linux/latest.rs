//! `Latest`.

use shmem_providers::channel::Latest;
use shmem_providers::{ShMemProvider, StdShMemProvider};
use testkit::Outcome;
use testkit::stepper::{At, sweep};

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
