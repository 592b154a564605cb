//! A segment lives exactly as long as some process holds it.

use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{fs, thread};

use shmem_providers::{ShMem, ShMemId, ShMemProvider};
use tempfile::TempDir;

use super::peer::Provider;
use testkit::Outcome;
use testkit::peer::Peer;

/// A folder with an address in it.
pub(crate) struct Place {
    folder: TempDir,
    pub(crate) address: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Result<Self, std::io::Error> {
        let folder = tempfile::tempdir()?;
        let address = folder.path().join("service");
        Ok(Self { folder, address })
    }

    /// A client here.
    pub(crate) fn peer(&self) -> Peer {
        let mut peer = Peer::start();
        let order = format!("at {}", self.address.display());
        peer.ask(order).expect("a provider needs nothing");
        peer
    }

    /// A program that serves here.
    pub(crate) fn host(&self) -> Peer {
        let mut peer = Peer::start();
        let order = format!("host {}", self.address.display());
        peer.ask(order).expect("nobody else serves here");
        peer
    }

    /// What is in the folder.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).expect("it is ours");
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

/// Asks until the answer is this one.
#[track_caller]
pub(crate) fn eventually(peer: &mut Peer, order: &str, wanted: &str) {
    // Nothing takes longer than an awaited fork, which is given up after ten.
    let end = Instant::now() + Duration::from_secs(40);
    loop {
        let answer = peer.ask(order).unwrap_or_else(|error| error);
        // Of an error, which has several words, a part is enough.
        if answer == wanted || wanted.contains(' ') && answer.contains(wanted) {
            return;
        }
        assert!(Instant::now() < end, "{order}: {answer}, not {wanted}");
        thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn ids_outlive_their_creator() -> Outcome {
    let place = Place::new()?;
    let host = place.host();
    let (mut a, mut b) = (place.peer(), place.peer());
    let id = a.ask("make 70000")?;
    assert_eq!((id.len(), &id[..1]), (19, "s"));
    a.ask("put 69999 1")?;
    assert_eq!(b.ask(format!("open {id}"))?, "70000");
    b.ask("put 0 2")?;
    a.kill();
    let mut c = place.peer();
    assert_eq!(c.ask(format!("open {id}"))?, "70000");
    assert_eq!(
        (c.ask("get 69999")?, c.ask("get 0")?),
        ("1".into(), "2".into())
    );
    b.kill();
    c.kill();
    let mut d = place.peer();
    let gone = format!("knows no holder of segment {id}");
    eventually(&mut d, &format!("try {id}"), &gone);
    drop((d, host));
    place.assert_nothing_left();
    Ok(())
}

pub(crate) fn segments_of_dead_clients_are_released() -> Outcome {
    let place = Place::new()?;
    let mut host = place.host();
    let mut other = place.peer();
    let kept = other.ask("make 100")?;
    let files = host.ask("files")?;
    for _ in 0..5 {
        let mut peer = place.peer();
        let mut ids = Vec::new();
        for _ in 0..20 {
            ids.push(peer.ask("make 1000")?);
        }
        peer.ask(format!("open {kept}"))?;
        assert_ne!(host.ask("files")?, files);
        peer.kill();
        eventually(&mut host, "files", &files);
        for id in ids {
            assert!(other.ask(format!("try {id}")).is_err());
        }
        other.ask(format!("try {kept}"))?;
    }
    other.ask("drop")?;
    assert!(other.ask(format!("try {kept}")).is_err());
    drop((other, host));
    place.assert_nothing_left();
    Ok(())
}

pub(crate) fn everything_is_close_on_exec() -> Outcome {
    let place = Place::new()?;
    // The first one is host as well.
    let (mut a, mut b) = (place.peer(), place.peer());
    // What they have themselves inherited from who runs the tests.
    let inherited = [a.ask("inherited")?, b.ask("inherited")?];
    let id = a.ask("make 100")?;
    b.ask(format!("open {id}"))?;
    b.ask("make 100")?;
    assert_eq!([a.ask("inherited")?, b.ask("inherited")?], inherited);
    drop(b);
    drop(a);
    place.assert_nothing_left();
    Ok(())
}

pub(crate) fn the_service_maps_nothing() -> Outcome {
    let place = Place::new()?;
    let mut host = place.host();
    let mut peer = place.peer();
    for _ in 0..10 {
        peer.ask("make 100000")?;
    }
    assert_eq!(
        (peer.ask("mappings")?, host.ask("mappings")?),
        ("10".into(), "0".into())
    );
    drop((peer, host));
    place.assert_nothing_left();
    Ok(())
}

pub(crate) fn a_stopped_service_leaves_no_file() -> Outcome {
    let place = Place::new()?;
    let mut host = place.host();
    let mut provider = Provider::at(&place.address);
    // It is connected, and holds nothing any more.
    drop(provider.new_shmem(100)?);
    assert_eq!(place.files(), ["service", "service.lock"]);
    let before = host.ask("files")?;
    host.ask("unhost")?;
    assert_ne!(host.ask("files")?, before);
    place.assert_nothing_left();
    // The provider serves itself now.
    drop(provider.new_shmem(100)?);
    assert_eq!(place.files(), ["service", "service.lock"]);
    drop(provider);
    place.assert_nothing_left();
    Ok(())
}

pub(crate) fn clients_survive_a_stop() -> Outcome {
    let place = Place::new()?;
    let mut host = place.host();
    let mut provider = Provider::at(&place.address);
    let mut other = place.peer();
    let ours = provider.new_shmem(100)?;
    let theirs = other.ask("make 100")?;
    for round in 0..10 {
        host.ask("unhost")?;
        let mut fresh = place.peer();
        fresh.ask(format!("open {theirs}"))?;
        fresh.ask(format!("open {}", ours.id()))?;
        assert_eq!(
            provider.shmem_from_id(ShMemId::from_string(&theirs))?.len(),
            100
        );
        other.ask(format!("try {}", ours.id()))?;
        drop(fresh);
        // Whoever has become the host may be any of us, so there is none to start.
        let again = host.ask(format!("host {}", place.address.display()));
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
    place.assert_nothing_left();
    Ok(())
}
