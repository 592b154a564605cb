//! Threads, and `RcShMemProvider`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use shmem_providers::{
    Access, Error, MemfdBackend, MemfdShMemProvider, MmapShMemProvider, NopShMemProvider,
    PosixBackend, RcShMem, RcShMemProvider, ServedShMem, ServedShMemProvider, ShMem, ShMemId,
    ShMemProvider, ShMemService, StdServedShMemProvider, StdShMemProvider, UnixShMemProvider,
};

use super::lifetime::TestDir;
use super::peer::{Commands, Provider};
use testkit::{Outcome, lacking};

/// The compiler checks these.
const fn may_go_to_other_threads<T: Send + Sync>() {}
const _: () = {
    may_go_to_other_threads::<RcShMemProvider<StdShMemProvider>>();
    may_go_to_other_threads::<RcShMem<StdShMemProvider>>();
    may_go_to_other_threads::<RcShMemProvider<StdServedShMemProvider>>();
    may_go_to_other_threads::<RcShMem<StdServedShMemProvider>>();
    may_go_to_other_threads::<RcShMem<NopShMemProvider>>();
    may_go_to_other_threads::<ServedShMemProvider<MemfdBackend>>();
    may_go_to_other_threads::<ServedShMem<PosixBackend>>();
    may_go_to_other_threads::<ShMemService>();
};

/// Eight threads create, open, clone and drop segments at the same time. None sees bytes of another segment.
fn use_from_threads<P>(provider: &P) -> Result<(), Error>
where
    P: ShMemProvider + Send + Sync,
    P::ShMem: Send + Sync,
{
    let known: Mutex<Vec<(ShMemId, u8)>> = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let work = |number: u8| {
            let mut provider = provider.clone();
            let known = &known;
            move || -> Result<(), Error> {
                let mut kept = provider.new_shmem(64)?;
                kept[63] = number;
                known
                    .lock()
                    .expect("no thread has panicked")
                    .push((kept.id(), number));
                for round in 0..100 {
                    let mut made = provider.new_shmem(100)?;
                    made.fill(number);
                    let clone = provider.clone_ref(&made)?;
                    assert!(clone.iter().all(|&byte| byte == number));
                    let all = known.lock().expect("no thread has panicked").clone();
                    let (id, byte) = all[round % all.len()];
                    // The segment may have been dropped.
                    if let Ok(mut other) = provider.shmem_from_id(id) {
                        let mut seen = [0];
                        let access: Access<'_> = other.access();
                        access.read_at(63, &mut seen)?;
                        assert!(seen[0] == byte || seen[0] == 0);
                    }
                }
                Ok(())
            }
        };
        let threads: Vec<_> = (1..=8).map(|number| scope.spawn(work(number))).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("no thread has panicked"))
    })
}

pub(crate) fn many_threads_share_a_provider() -> Outcome {
    let dir = TestDir::new()?;
    use_from_threads(&Provider::at(&dir.address))?;
    use_from_threads(&RcShMemProvider::from(Provider::at(&dir.address)))?;
    dir.assert_nothing_left();
    Ok(())
}

pub(crate) fn shared_providers_work_over_every_mechanism() -> Outcome {
    fn check<P: ShMemProvider + Send>(provider: P) -> Result<(), Error>
    where
        P::ShMem: Send + Sync,
    {
        let mut provider = RcShMemProvider::from(provider);
        let mut made = match provider.new_shmem(100) {
            Ok(made) => made,
            // The host lacks the mechanism.
            Err(error) if lacking(&error).is_some() => return Ok(()),
            Err(error) => return Err(error),
        };
        made[99] = 1;
        let id = made.id();
        let clone = provider.clone_ref(&made)?;
        assert_eq!((clone.len(), clone[99], clone.id()), (100, 1, id));
        let other = provider.clone();
        drop(provider);
        drop(made);
        assert_eq!(clone[99], 1);
        drop(other);
        assert_eq!(clone[99], 1);
        Ok(())
    }
    let dir = TestDir::new()?;
    check(StdShMemProvider::new()?)?;
    check(MemfdShMemProvider::new()?)?;
    check(UnixShMemProvider::new()?)?;
    check(MmapShMemProvider::new()?)?;
    check(Provider::at(&dir.address))?;
    check(ServedShMemProvider::<PosixBackend>::at(&dir.address))?;
    check(RcShMemProvider::<StdShMemProvider>::new()?)?;
    dir.assert_nothing_left();
    Ok(())
}

/// A provider that counts released segments and forks.
#[derive(Clone, Debug, Default)]
struct Counting(NopShMemProvider);

static RELEASED: AtomicUsize = AtomicUsize::new(0);
static FORKS: AtomicUsize = AtomicUsize::new(0);

impl ShMemProvider for Counting {
    type ShMem = <NopShMemProvider as ShMemProvider>::ShMem;

    fn new() -> Result<Self, Error> {
        Ok(Self::default())
    }

    fn new_shmem(&mut self, map_size: usize) -> Result<Self::ShMem, Error> {
        self.0.new_shmem(map_size)
    }

    fn shmem_from_id(&mut self, id: ShMemId) -> Result<Self::ShMem, Error> {
        self.0.shmem_from_id(id)
    }

    fn shmem_from_id_and_size(&mut self, id: ShMemId, size: usize) -> Result<Self::ShMem, Error> {
        self.0.shmem_from_id_and_size(id, size)
    }

    fn pre_fork(&mut self) -> Result<(), Error> {
        FORKS.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn post_fork(&mut self, is_child: bool) -> Result<(), Error> {
        FORKS.fetch_add(if is_child { 100 } else { 10 }, Ordering::Relaxed);
        Ok(())
    }

    fn release_shmem(&mut self, shmem: &mut Self::ShMem) {
        RELEASED.fetch_add(1, Ordering::Relaxed);
        self.0.release_shmem(shmem);
    }
}

pub(crate) fn segments_are_released_once() -> Outcome {
    let mut provider = RcShMemProvider::<Counting>::new()?;
    let mut segments = Vec::new();
    for _ in 0..10 {
        segments.push(provider.new_shmem(10)?);
    }
    let mut last = segments.pop().ok_or("there are ten")?;
    provider.release_shmem(&mut last);
    provider.release_shmem(&mut last);
    assert_eq!((last.len(), RELEASED.load(Ordering::Relaxed)), (0, 1));
    drop(last);
    provider.pre_fork()?;
    provider.post_fork(false)?;
    assert_eq!(FORKS.load(Ordering::Relaxed), 11);
    drop(provider);
    drop(segments);
    assert_eq!(RELEASED.load(Ordering::Relaxed), 10);
    Ok(())
}

pub(crate) fn segments_drop_without_a_service() -> Outcome {
    let dir = TestDir::new()?;
    for kill in [true, false] {
        let mut host = dir.host();
        let mut provider = RcShMemProvider::from(Provider::at(&dir.address));
        let (first, second) = (provider.new_shmem(10)?, provider.new_shmem(10)?);
        if kill {
            host.kill();
        } else {
            host.stop_serving()?;
        }
        drop(first);
        drop(provider);
        drop(second);
        dir.assert_nothing_left();
    }
    // The same where no service can start any more, because the directory was removed.
    let gone = tempfile::tempdir()?;
    let address = gone.path().join("service");
    let service = ShMemService::start_at(&address)?;
    let mut provider = RcShMemProvider::from(Provider::at(&address));
    let segment = provider.new_shmem(10)?;
    gone.close()?;
    service.stop();
    let error = provider.new_shmem(10).map(|_| ()).err();
    assert!(
        matches!(error, Some(Error::Os { .. } | Error::Service { .. })),
        "{error:?}"
    );
    drop((segment, provider));
    Ok(())
}
