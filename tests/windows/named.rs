//! Names that programs agree on. Each test has a directory of names of its own, which is empty afterwards.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process;

use shmem_providers::error::{AddressOrigin, NamedError, ServiceError};
use shmem_providers::{Error, Named, NamedOptions, Persist, ShMem};
use tempfile::TempDir;

use crate::peer::Peer;
use testkit::Outcome;

/// More than a page, so that the size is not what the system reports.
const SIZE: usize = 5000;

fn initialise(bytes: &mut [u8]) {
    for byte in &mut bytes[4..] {
        *byte = 0xab;
        if std::ptr::from_ref(byte).addr() % 512 == 0 {
            std::thread::yield_now();
        }
    }
    bytes[..4].copy_from_slice(&process::id().to_ne_bytes());
}

/// Returns the number of the process that initialised the segment, if it did so to the end.
fn initialised_by(named: &Named) -> Result<u32, Box<dyn StdError>> {
    if named.len() != SIZE || named[4..].iter().any(|&byte| byte != 0xab) {
        return Err("it is not initialised".into());
    }
    Ok(u32::from_ne_bytes(named[..4].try_into()?))
}

/// Commands of peers that start with `named`.
#[derive(Default)]
pub(crate) struct Names(HashMap<String, Named>);

impl Names {
    pub(crate) fn execute(&mut self, command: &[&str]) -> Result<String, Box<dyn StdError>> {
        match *command {
            ["make", directory, name] => {
                let log = Path::new(directory).join("log");
                let options = NamedOptions::new().directory(Path::new(directory).join("names"));
                let named = options.try_open_or_create(name, SIZE, |bytes| {
                    let mut log = OpenOptions::new().append(true).create(true).open(log)?;
                    initialise(bytes);
                    writeln!(log, "{name}")?;
                    Ok::<_, Box<dyn StdError>>(())
                })?;
                let creator = initialised_by(&named)?;
                self.0.insert(name.into(), named);
                return Ok(creator.to_string());
            }
            ["stuck", directory, name] => {
                let options = NamedOptions::new().directory(Path::new(directory).join("names"));
                options.open_or_create(name, SIZE, |bytes| {
                    bytes.fill(1);
                    println!("ok");
                    loop {
                        std::thread::park();
                    }
                })?;
            }
            ["storm", directory, name, times] => {
                let options = NamedOptions::new().directory(Path::new(directory).join("names"));
                for _ in 0..times.parse()? {
                    let named = options.open_or_create(name, SIZE, initialise)?;
                    initialised_by(&named)?;
                    // While it is held, every process gets the same segment.
                    if options.open(name)?.id() != named.id() {
                        return Err("there are two segments of this name".into());
                    }
                }
            }
            ["drop", name] => drop(self.0.remove(name).ok_or("not held")?),
            ["default", name] => {
                self.0
                    .insert(name.into(), Named::open_or_create(name, SIZE, initialise)?);
            }
            _ => return Err(format!("unknown command {command:?}").into()),
        }
        Ok(String::new())
    }
}

struct Place {
    root: TempDir,
    options: NamedOptions,
}

impl Place {
    fn new() -> Outcome<Self> {
        let root = tempfile::tempdir()?;
        let options = NamedOptions::new().directory(root.path().join("names"));
        // Creates it.
        options.list()?;
        Ok(Self { root, options })
    }

    fn path(&self) -> &str {
        self.root.path().to_str().expect("it is Unicode")
    }

    fn files(&self) -> Vec<String> {
        let files = fs::read_dir(self.root.path().join("names")).expect("it exists");
        files
            .map(|file| file.expect("it is readable").file_name())
            .map(|name| name.into_string().expect("it is Unicode"))
            .collect()
    }

    #[track_caller]
    fn assert_empty(&self) {
        assert_eq!(self.files(), [""; 0]);
    }
}

pub(crate) fn one_process_of_many_initialises_a_name() -> Outcome {
    const ROUNDS: usize = 12;

    let place = Place::new()?;
    let mut peers: Vec<_> = (0..4).map(|_| Peer::start()).collect();
    for round in 0..ROUNDS {
        let command = format!("named make {} name-{round}", place.path());
        for peer in &mut peers {
            peer.send(&command);
        }
        let creators: Vec<_> = peers
            .iter_mut()
            .map(|peer| peer.answer_to(&command).expect("it opens"))
            .collect();
        assert!(
            creators.iter().all(|pid| *pid == creators[0]),
            "{creators:?}"
        );
        for peer in &mut peers {
            peer.execute(format!("named drop name-{round}"))?;
        }
    }
    let log = fs::read_to_string(place.root.path().join("log"))?;
    assert_eq!(log.lines().count(), ROUNDS, "{log}");
    place.assert_empty();
    Ok(())
}

pub(crate) fn last_holders_and_new_ones_may_meet() -> Outcome {
    let place = Place::new()?;
    let mut peers: Vec<_> = (0..4).map(|_| Peer::start()).collect();
    let command = format!("named storm {} x 100", place.path());
    for peer in &mut peers {
        peer.send(&command);
    }
    for peer in &mut peers {
        peer.answer_to(&command)?;
    }
    place.options.list()?;
    place.assert_empty();
    Ok(())
}

pub(crate) fn a_terminated_holder_frees_the_name() -> Outcome {
    let place = Place::new()?;
    let mut peer = Peer::start();
    let creator = peer.ask(format!("named make {} x", place.path()))?;
    let named = place.options.open("x")?;
    assert_eq!(initialised_by(&named)?.to_string(), creator);
    drop(named);
    peer.kill();
    assert!(
        place
            .options
            .open("x")
            .is_err_and(|error| error.is_not_found())
    );
    place.assert_empty();
    let named = place.options.open_or_create("x", SIZE, initialise)?;
    assert_eq!(initialised_by(&named)?, process::id());
    // The other way round: the creator drops it, and a process that is terminated was the last one.
    let mut peer = Peer::start();
    peer.ask(format!("named make {} x", place.path()))?;
    drop(named);
    assert!(place.options.open("x").is_ok());
    peer.kill();
    assert!(place.options.list()?.is_empty());
    place.assert_empty();
    Ok(())
}

pub(crate) fn a_process_terminated_while_it_initialises_is_replaced() -> Outcome {
    let place = Place::new()?;
    let mut peer = Peer::start();
    peer.ask(format!("named stuck {} x", place.path()))?;
    let impatient = place.options.clone().timeout(std::time::Duration::ZERO);
    let busy = impatient.open_or_create("x", SIZE, initialise);
    assert!(matches!(
        busy,
        Err(Error::Named {
            reason: NamedError::Busy { .. },
            ..
        })
    ));
    assert!(
        place
            .options
            .open("x")
            .is_err_and(|error| error.is_not_found())
    );
    peer.kill();
    let named = place.options.open_or_create("x", SIZE, initialise)?;
    assert!(named.is_creator());
    drop(named);
    place.assert_empty();
    Ok(())
}

/// While it creates, opens or drops: wherever it is after some calls of this process.
pub(crate) fn processes_terminated_at_any_time_leave_nothing() -> Outcome {
    let place = Place::new()?;
    for calls in 1..20 {
        let mut peer = Peer::start();
        peer.ask(format!("named storm {} x 1", place.path()))?;
        peer.send(&format!("named storm {} x 1000000", place.path()));
        for _ in 0..calls {
            initialised_by(&place.options.open_or_create("x", SIZE, initialise)?)?;
        }
        peer.kill();
        let named = place.options.open_or_create("x", SIZE, initialise)?;
        assert!(named.is_creator());
        assert_eq!(place.options.list()?.len(), 1);
        drop(named);
        place.options.list()?;
        place.assert_empty();
    }
    Ok(())
}

pub(crate) fn the_last_drop_removes_the_entry() -> Outcome {
    let place = Place::new()?;
    let first = place.options.open_or_create("x", SIZE, initialise)?;
    let second = place.options.open("x")?;
    assert_eq!((first.id(), first.len()), (second.id(), second.len()));
    assert!(!second.is_creator());
    assert_eq!(place.files().len(), 1);
    drop(first);
    assert_eq!(place.files().len(), 1);
    drop(second);
    place.assert_empty();
    let missing = place.options.open("x").err();
    assert!(missing.is_some_and(|error| error.is_not_found()));
    assert!(
        place
            .options
            .remove("x")
            .is_err_and(|error| error.is_not_found())
    );
    place.assert_empty();
    Ok(())
}

pub(crate) fn names_are_any_text_and_are_listed() -> Outcome {
    let place = Place::new()?;
    let long = "\u{1f980}".repeat(50);
    let mut names = [
        "a/b",
        "..",
        "..\\x",
        "CON",
        "c:*?|",
        "A",
        "a",
        "\u{1f980}/\u{1f980}",
        "\n",
        &long,
    ];
    let mut held = Vec::new();
    for name in names {
        held.push(place.options.open_or_create(name, SIZE, initialise)?);
        assert!(held.iter().filter(|named| named.is_creator()).count() == held.len());
    }
    let mut peer = Peer::start();
    for name in ["a/b", "\u{1f980}/\u{1f980}", &long] {
        let creator = peer.ask(format!("named make {} {name}", place.path()))?;
        assert_eq!(creator, process::id().to_string());
        peer.execute(format!("named drop {name}"))?;
    }
    let mut listed = place.options.list()?;
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    names.sort_unstable();
    let found: Vec<_> = listed.iter().map(|named| named.name.as_str()).collect();
    assert_eq!(found, names);
    assert!(
        listed
            .iter()
            .all(|named| (named.size, named.persist) == (SIZE, Persist::WithHolders))
    );
    drop(held);
    assert!(place.options.list()?.is_empty());
    place.assert_empty();
    Ok(())
}

/// More often than there are places for entries of the same hash.
pub(crate) fn held_names_can_be_removed() -> Outcome {
    let place = Place::new()?;
    let mut held = Vec::new();
    for round in 0..10 {
        held.push(
            place
                .options
                .open_or_create("x", SIZE, |bytes| bytes.fill(round))?,
        );
        place.options.remove("x")?;
        let missing = place.options.open("x").err();
        assert!(missing.is_some_and(|error| error.is_not_found()));
    }
    assert!((0..).zip(&held).all(|(round, named)| named[0] == round));
    drop(held);
    place.options.list()?;
    place.assert_empty();
    Ok(())
}

pub(crate) fn remains_are_replaced_and_other_things_left_alone() -> Outcome {
    let place = Place::new()?;
    let named = place.options.open_or_create("x", SIZE, initialise)?;
    let entry = place.root.path().join("names").join(&place.files()[0]);
    drop(named);
    fs::write(&entry, "nonsense")?;
    for rest in ["new", "lock", "gone0", "gone1"] {
        fs::write(entry.with_extension(rest), "")?;
    }
    let named = place.options.open_or_create("x", SIZE, initialise)?;
    assert!(named.is_creator());
    assert_eq!(place.options.open("x")?.id(), named.id());
    drop(named);
    place.options.list()?;
    place.assert_empty();
    for rest in ["0", "new", "lock"] {
        let stands_there = entry.with_extension(rest);
        fs::create_dir(&stands_there)?;
        let refused = place.options.open_or_create("x", SIZE, initialise);
        let reason = match refused {
            Err(Error::Named { reason, .. }) => reason,
            other => panic!("{rest}: {other:?}"),
        };
        assert!(matches!(reason, NamedError::NotAnEntry { .. }), "{reason}");
        fs::remove_dir(&stands_there)?;
        place.assert_empty();
    }
    Ok(())
}

pub(crate) fn the_environment_chooses_the_directory() -> Outcome {
    let root = tempfile::tempdir()?;
    let names = root.path().join("names");
    let mut peer = Peer::started(Peer::command().env("SHMEM_NAMES", &names));
    peer.execute("named default x")?;
    assert_eq!(NamedOptions::new().directory(&names).list()?.len(), 1);
    let local = root.path().join("local");
    let mut command = Peer::command();
    command
        .env_remove("SHMEM_NAMES")
        .env("LOCALAPPDATA", &local);
    let mut peer = Peer::started(&mut command);
    peer.execute("named default x")?;
    let of_session = fs::read_dir(local.join("shmem_providers"))?.next();
    let of_session = of_session.expect("there is one")?.path();
    assert_eq!(NamedOptions::new().directory(of_session).list()?.len(), 1);
    let mut peer = Peer::started(Peer::command().env("SHMEM_NAMES", "names"));
    let error = peer.ask("named default x").expect_err("it is relative");
    let expected = Error::Named {
        name: "x".into(),
        reason: NamedError::Directory {
            path: "names".into(),
            origin: AddressOrigin::ShMemNames,
            reason: Box::new(ServiceError::RelativePath),
            errno: None,
        },
    };
    assert_eq!(error, expected.to_string());
    Ok(())
}

pub(crate) fn names_do_not_persist() -> Outcome {
    let place = Place::new()?;
    let options = place.options.clone().persist(Persist::UntilRemoved);
    let refused = options.open_or_create("x", SIZE, initialise).err();
    assert!(
        matches!(refused, Some(Error::Unsupported { .. })),
        "{refused:?}"
    );
    place.assert_empty();
    Ok(())
}
