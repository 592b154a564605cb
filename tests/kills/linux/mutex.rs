//! Mutexes.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use shmem_providers::sync::{LockError, Mutex, Presence, Slots};
use shmem_providers::wake::Wait;
use shmem_providers::{MemfdShMemProvider, ShMem, ShMemProvider, Shared, UnixShMemProvider};
use testkit::stepper::{At, sweep};
use testkit::{Outcome, if_lacking};

use super::LONG;

const WAIT: Wait = Wait::new().timeout(LONG);

type Pair = Mutex<[AtomicU32; 2]>;

/// Where the mutex is, behind the slots.
const AT: usize = 1024;

fn join<S: ShMem + Send + Sync + 'static>(shared: &Shared<S>) -> Outcome<Presence> {
    Ok(Presence::join(&shared.view::<Slots<4>>(0)?)?)
}

fn add(pair: &[AtomicU32; 2]) {
    pair[0].fetch_add(1, Relaxed);
    pair[1].fetch_add(1, Relaxed);
}

pub(crate) fn the_next_owner_learns_whether_a_killed_one_had_the_lock() -> Outcome {
    killed_owners(&MemfdShMemProvider::new()?)
}

pub(crate) fn so_does_the_next_owner_in_a_system_v_segment() -> Outcome {
    let mut provider = UnixShMemProvider::new()?;
    provider.new_shmem(1).map(drop).or_else(if_lacking)?;
    killed_owners(&provider)
}

fn killed_owners<P>(provider: &P) -> Outcome
where
    P: ShMemProvider<ShMem: Send + Sync + 'static>,
{
    let report = sweep(
        At::Instructions,
        || Ok(provider.clone().new_shmem(4096)?.share()),
        |shared, doomed| {
            let presence = join(shared)?;
            let mutex = shared.view::<Pair>(AT)?;
            let result: Result<(), String> = doomed.during(|| {
                add(&*mutex
                    .lock(&presence, WAIT)
                    .map_err(|error| error.to_string())?);
                Ok(())
            });
            Ok(result?)
        },
        |shared| {
            let presence = join(&shared)?;
            let mutex = shared.view::<Pair>(AT)?;
            let (pair, found) = match mutex.lock(&presence, WAIT) {
                Ok(pair) => {
                    let both = [pair[0].load(Relaxed), pair[1].load(Relaxed)];
                    let found = match both {
                        [0, 0] => "free",
                        [1, 1] => "done",
                        _ => return Err(format!("{both:?} and not abandoned").into()),
                    };
                    (pair, found)
                }
                Err(LockError::Abandoned(pair)) => (pair, "abandoned"),
                Err(error) => return Err(error.to_string().into()),
            };
            drop(pair);
            // The next one is told no more.
            assert!(mutex.lock(&presence, WAIT).is_ok());
            Ok(found)
        },
    )?;
    assert_eq!(report.phases(), ["free", "abandoned", "done"]);
    Ok(())
}
