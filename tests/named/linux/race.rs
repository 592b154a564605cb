//! Many processes and threads that ask for the same name at the same time.

use std::fs;
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use shmem_providers::error::NamedError;
use shmem_providers::{Error, ErrorKind};
use testkit::Outcome;
use testkit::peer::Peer;

use super::peer::{SIZE, initialise, initialised_by};
use super::{Names, reason};

const RACERS: usize = 64;

pub(crate) fn one_of_64_processes_initialises() -> Outcome {
    let here = Names::new()?;
    let logs = tempfile::tempdir()?;
    let mut racers: Vec<Peer> = (0..RACERS).map(|_| here.peer()).collect();
    for round in 0..3 {
        let log = logs.path().join(round.to_string());
        let make = format!("make race {}", log.display());
        for racer in &mut racers {
            racer.send(&make);
        }
        let creators: Result<Vec<_>, _> = racers
            .iter_mut()
            .map(|racer| racer.answer_to(&make))
            .collect();
        let creators = creators?;
        // All of them have the segment of the one process that has written to the log.
        let log = fs::read_to_string(log)?;
        let expected = log.trim_end();
        assert!(
            creators.iter().all(|creator| creator == expected),
            "{creators:?}, {log:?}"
        );
        // It is the same memory.
        let mut counts = Vec::new();
        for racer in &mut racers {
            counts.push(racer.ask_for::<usize>("count race")?);
        }
        assert_eq!(counts, (0..RACERS).collect::<Vec<_>>());
        assert_eq!(here.list(), ["race"]);
        for racer in &mut racers {
            racer.send("drop race");
        }
        for racer in &mut racers {
            racer.answer_to("drop race")?;
        }
        here.assert_empty();
    }
    Ok(())
}

/// Generations come and go, and no opener gets a segment that is not complete.
pub(crate) fn names_survive_a_storm_of_openers() -> Outcome {
    let here = Names::new()?;
    let mut peers: Vec<Peer> = (0..8).map(|_| here.peer()).collect();
    for peer in &mut peers {
        peer.send("storm storm 100");
    }
    for _ in 0..50 {
        let listed = here.list();
        assert!(listed.is_empty() || listed == ["storm"], "{listed:?}");
    }
    for peer in &mut peers {
        peer.answer_to("storm")?;
    }
    drop(peers);
    here.assert_empty();
    Ok(())
}

pub(crate) fn threads_of_one_process_race_as_well() -> Outcome {
    let here = Names::new()?;
    let options = here.options();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| options.open_or_create("a", SIZE, initialise)))
            .collect();
        let mut opened = Vec::new();
        for thread in threads {
            opened.push(thread.join().map_err(|_| "a thread panicked")??);
        }
        assert_eq!(opened.iter().filter(|named| named.is_creator()).count(), 1);
        for named in &mut opened {
            initialised_by(named)?;
        }
        Ok::<_, Box<dyn std::error::Error>>(())
    })?;
    here.assert_empty();
    Ok(())
}

pub(crate) fn a_stopped_creator_is_an_error_and_not_a_hang() -> Outcome {
    let here = Names::new()?;
    let mut creator = here.peer();
    creator.send("stuck a");
    assert_eq!(creator.answer_to("stuck"), Ok("initialising".into()));
    kill_process(creator.process(), Signal::STOP)?;
    let brief = here.options().timeout(Duration::from_millis(100));
    let error = brief.open_or_create("a", SIZE, initialise).err();
    let error = error.ok_or("it is being initialised")?;
    assert_eq!(error.kind(), ErrorKind::NameBusy);
    assert!(error.to_string().contains("timeout"), "{error}");
    assert_eq!(
        error.kind(),
        brief.remove("a").err().ok_or("the same")?.kind()
    );
    // What is not complete is not there, and other names are not affected.
    assert_eq!(reason(brief.open("a")), NamedError::Unknown);
    assert_eq!(here.list(), Vec::<String>::new());
    drop(brief.open_or_create("b", SIZE, initialise)?);
    creator.kill();
    assert!(brief.open_or_create("a", SIZE, initialise)?.is_creator());
    here.assert_empty();
    Ok(())
}

pub(crate) fn asking_for_the_name_during_its_initialisation_is_an_error() -> Outcome {
    let here = Names::new()?;
    let brief = here.options().timeout(Duration::from_millis(50));
    let named = brief.try_open_or_create("a", 64, |_| {
        let inner = reason(brief.open_or_create("a", 64, |_| {}));
        assert!(matches!(inner, NamedError::Busy { .. }), "{inner}");
        // Another name is another matter.
        brief.open_or_create("b", 64, |_| {}).map(drop)
    });
    assert!(named.map_err(|error: Error| error)?.is_creator());
    here.assert_empty();
    Ok(())
}
