//! Values in segments of their own.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use shmem_providers::{Error, MmapShMemProvider, ShMem, ShMemProvider, StdShMemProvider, Typed};
use testkit::stepper::{At, sweep};
use testkit::{Outcome, if_lacking};

use super::PosixNames;

type Pair = Typed<[AtomicU32; 2]>;

fn initialise(pair: &[AtomicU32; 2]) {
    pair[0].store(1, Relaxed);
    pair[1].store(2, Relaxed);
}

pub(crate) fn a_value_is_there_when_it_is_initialised_and_not_before() -> Outcome {
    let report = sweep(
        At::Instructions,
        || Ok(StdShMemProvider::new()?.new_shmem(Pair::SIZE)?),
        |segment, doomed| {
            doomed.during(|| Pair::initialise(segment, initialise))?;
            Ok(())
        },
        |segment| match Pair::in_segment(&segment.share()) {
            Err(Error::WrongType { .. }) => Ok("nothing"),
            Err(error) => Err(error.into()),
            Ok(pair) => {
                assert_eq!([pair[0].load(Relaxed), pair[1].load(Relaxed)], [1, 2]);
                Ok("complete")
            }
        },
    )?;
    assert_eq!(report.phases(), ["nothing", "complete"]);
    Ok(())
}

pub(crate) fn killed_creators_leave_no_segment() -> Outcome {
    if let Err(error) = MmapShMemProvider::new()?.new_shmem(1) {
        return if_lacking(error);
    }
    let before = PosixNames::now();
    sweep(
        At::SystemCalls { steps: 5 },
        || Ok(MmapShMemProvider::new()?),
        |provider, doomed| {
            drop(doomed.during(|| Pair::create(provider, initialise))?);
            Ok(())
        },
        |_| {
            MmapShMemProvider::remove_orphans()?;
            Ok("nothing")
        },
    )?;
    before.assert_no_more();
    Ok(())
}
