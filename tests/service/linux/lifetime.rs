//! A segment lives exactly as long as some process holds it.

use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{fs, thread};

use shmem_providers::{ShMem, ShMemId, ShMemProvider};
use tempfile::TempDir;

use super::peer::{Commands, Provider};
use testkit::Outcome;
use testkit::peer::Peer;

/// A directory for an address, which must be empty in the end.
pub(crate) struct TestDir {
    directory: TempDir,
    pub(crate) address: PathBuf,
}

impl TestDir {
    pub(crate) fn new() -> Result<Self, std::io::Error> {
        let directory = tempfile::tempdir()?;
        let address = directory.path().join("service");
        Ok(Self { directory, address })
    }

    /// Starts a client of this address.
    pub(crate) fn peer(&self) -> Peer {
        let mut peer = Peer::start();
        peer.use_address(&self.address)
            .expect("creating a provider cannot fail");
        peer
    }

    /// Starts a program that serves at this address.
    pub(crate) fn host(&self) -> Peer {
        let mut peer = Peer::start();
        peer.serve_at(&self.address)
            .expect("no other process serves here");
        peer
    }

    /// Returns the names in the directory, sorted.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).expect("it is ours");
        let names = entries.flatten().map(|entry| entry.file_name());
        let mut names: Vec<_> = names
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(self.files(), Vec::<String>::new());
    }
}

/// Repeats an attempt until it succeeds.
#[track_caller]
pub(crate) fn eventually(mut attempt: impl FnMut() -> Result<(), String>) {
    // The longest deadline of the service is that of an announced fork, 10 seconds.
    let end = Instant::now() + Duration::from_secs(40);
    while let Err(reason) = attempt() {
        assert!(Instant::now() < end, "after 40 seconds: {reason}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until the peer can open the segment.
#[track_caller]
pub(crate) fn eventually_opens(peer: &mut Peer, id: &str) {
    eventually(|| peer.try_open(id));
}

/// Waits until the segment has no holder.
#[track_caller]
pub(crate) fn eventually_gone(peer: &mut Peer, id: &str) {
    let gone = format!("knows no holder of segment {id}");
    eventually(|| match peer.try_open(id) {
        Ok(()) => Err(format!("{id} can still be opened")),
        Err(error) if error.contains(&gone) => Ok(()),
        Err(error) => Err(error),
    });
}

/// Waits until the peer has this number of open descriptors.
#[track_caller]
pub(crate) fn eventually_has_files(peer: &mut Peer, wanted: usize) {
    eventually(|| match peer.files()? {
        count if count == wanted => Ok(()),
        count => Err(format!("{count} descriptors are open, not {wanted}")),
    });
}

pub(crate) fn ids_outlive_their_creator() -> Outcome {
    let dir = TestDir::new()?;
    let host = dir.host();
    let (mut a, mut b) = (dir.peer(), dir.peer());
    let id = a.make(70000)?;
    assert_eq!((id.len(), &id[..1]), (19, "s"));
    a.put(69999, 1)?;
    assert_eq!(b.open(&id)?, 70000);
    b.put(0, 2)?;
    a.kill();
    let mut c = dir.peer();
    assert_eq!(c.open(&id)?, 70000);
    assert_eq!((c.get(69999)?, c.get(0)?), (1, 2));
    b.kill();
    c.kill();
    let mut d = dir.peer();
    eventually_gone(&mut d, &id);
    drop((d, host));
    dir.assert_nothing_left();
    Ok(())
}

pub(crate) fn segments_of_dead_clients_are_released() -> Outcome {
    let dir = TestDir::new()?;
    let mut host = dir.host();
    let mut other = dir.peer();
    let kept = other.make(100)?;
    let files = host.files()?;
    for _ in 0..5 {
        let mut peer = dir.peer();
        let mut ids = Vec::new();
        for _ in 0..20 {
            ids.push(peer.make(1000)?);
        }
        peer.open(&kept)?;
        assert_ne!(host.files()?, files);
        peer.kill();
        eventually_has_files(&mut host, files);
        for id in ids {
            assert!(other.try_open(&id).is_err());
        }
        other.try_open(&kept)?;
    }
    other.drop_newest()?;
    assert!(other.try_open(&kept).is_err());
    drop((other, host));
    dir.assert_nothing_left();
    Ok(())
}

pub(crate) fn everything_is_close_on_exec() -> Outcome {
    let dir = TestDir::new()?;
    // The first one is also the host.
    let (mut a, mut b) = (dir.peer(), dir.peer());
    // What they have inherited from the program that runs the tests.
    let inherited = [a.ask("inherited")?, b.ask("inherited")?];
    let id = a.make(100)?;
    b.open(&id)?;
    b.make(100)?;
    assert_eq!([a.ask("inherited")?, b.ask("inherited")?], inherited);
    drop(b);
    drop(a);
    dir.assert_nothing_left();
    Ok(())
}

pub(crate) fn the_service_maps_nothing() -> Outcome {
    let dir = TestDir::new()?;
    let mut host = dir.host();
    let mut peer = dir.peer();
    for _ in 0..10 {
        peer.make(100_000)?;
    }
    assert_eq!(
        (peer.ask("mappings")?, host.ask("mappings")?),
        ("10".into(), "0".into())
    );
    drop((peer, host));
    dir.assert_nothing_left();
    Ok(())
}

pub(crate) fn a_stopped_service_leaves_no_file() -> Outcome {
    let dir = TestDir::new()?;
    let mut host = dir.host();
    let mut provider = Provider::at(&dir.address);
    // The provider is connected and holds nothing any more.
    drop(provider.new_shmem(100)?);
    assert_eq!(dir.files(), ["service", "service.lock"]);
    let before = host.files()?;
    host.stop_serving()?;
    assert_ne!(host.files()?, before);
    dir.assert_nothing_left();
    // Now the provider hosts a service.
    drop(provider.new_shmem(100)?);
    assert_eq!(dir.files(), ["service", "service.lock"]);
    drop(provider);
    dir.assert_nothing_left();
    Ok(())
}

pub(crate) fn clients_survive_a_stop() -> Outcome {
    let dir = TestDir::new()?;
    let mut host = dir.host();
    let mut provider = Provider::at(&dir.address);
    let mut other = dir.peer();
    let ours = provider.new_shmem(100)?;
    let theirs = other.make(100)?;
    for round in 0..10 {
        host.stop_serving()?;
        let mut fresh = dir.peer();
        fresh.open(&theirs)?;
        fresh.open(&ours.id())?;
        assert_eq!(
            provider.shmem_from_id(ShMemId::from_string(&theirs))?.len(),
            100
        );
        other.try_open(&ours.id())?;
        drop(fresh);
        // One of the clients is the host now, so that no service can be started.
        let again = host.serve_at(&dir.address);
        assert!(again.is_err(), "round {round}");
    }
    drop((other, host));
    let gone = ShMemId::from_string(&theirs);
    let end = Instant::now() + Duration::from_secs(40);
    while !provider
        .shmem_from_id(gone)
        .is_err_and(|error| error.is_not_found())
    {
        assert!(Instant::now() < end);
    }
    assert_eq!(provider.shmem_from_id(ours.id())?.len(), 100);
    drop((ours, provider));
    dir.assert_nothing_left();
    Ok(())
}
