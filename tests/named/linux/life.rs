//! What a name is, and when it ends.

use std::ffi::OsStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use shmem_providers::error::NamedError;
use shmem_providers::{
    CommonUnixShMemProvider, Error, MemfdBackend, MemfdShMemProvider, MmapShMemProvider, Named,
    NamedOptions, Persist, RcShMemProvider, ServedShMemProvider, ShMem, ShMemProvider,
    StdShMemProvider,
};
use testkit::{Outcome, if_lacking, name_exists};

use super::peer::{SIZE, initialise};
use super::{Names, reason};

/// In the default directory, with a name of its own.
pub(crate) fn the_calls_of_the_documentation_work() -> Outcome {
    let name = format!("test/{}", std::process::id());
    let named = Named::open_or_create(&name, 4096, |bytes| bytes[0] = 7)?;
    assert_eq!(
        (named.name(), named.is_creator(), named[0]),
        (&*name, true, 7)
    );
    assert_eq!((named.len(), named.segment().len()), (4096, 4096));
    let other = Named::open(&name)?;
    assert!(!other.is_creator());
    assert_eq!(other.id(), named.id());
    let listed = Named::list()?;
    let found = listed.iter().find(|info| info.name == name);
    let found = found.ok_or("it is not listed")?;
    assert_eq!((found.id, found.size), (named.id(), 4096));
    assert_eq!(found.persist, Persist::WithHolders);
    drop((named, other));
    assert!(Named::list()?.iter().all(|info| info.name != name));
    Ok(())
}

pub(crate) fn a_name_ends_with_its_last_holder() -> Outcome {
    let here = Names::new()?;
    let first = here.options().open_or_create("cache", SIZE, initialise)?;
    let mut peer = here.peer();
    assert_eq!(peer.ask_for("open cache"), Ok(std::process::id()));
    drop(first);
    // The peer is a holder like any other, and the creator need not be one.
    assert_eq!(here.list(), ["cache"]);
    assert_eq!(here.peer().ask_for("open cache"), Ok(std::process::id()));
    peer.execute("drop cache")?;
    assert_eq!(here.files(), Vec::<String>::new());
    let error = here.options().open("cache").err().ok_or("it is gone")?;
    assert!(
        error.is_not_found() && error.to_string().contains("\"cache\""),
        "{error}"
    );
    here.assert_empty();
    Ok(())
}

/// As that of the segment does, also through a `Shared`, which knows no more than `ShMem`.
pub(crate) fn a_name_passes_its_descriptor_on() -> Outcome {
    let here = Names::new()?;
    let named = here.options().open_or_create("a", SIZE, initialise)?;
    let passes = |command: &Command| {
        let is_set = |(name, value): (&OsStr, Option<_>)| name == "SEGMENT_FD" && value.is_some();
        command.get_envs().any(is_set)
    };
    let mut command = Command::new("true");
    named.segment().inherit(&mut command, "SEGMENT")?;
    let expected = passes(&command);
    let mut command = Command::new("true");
    named.inherit(&mut command, "SEGMENT")?;
    assert_eq!(passes(&command), expected);
    let mut command = Command::new("true");
    named.share().inherit(&mut command, "SEGMENT")?;
    assert_eq!(passes(&command), expected);
    Ok(())
}

pub(crate) fn any_text_of_up_to_200_bytes_is_a_name() -> Outcome {
    let here = Names::new()?;
    let long = "x".repeat(200);
    let crabs = "\u{1f980}".repeat(50);
    let texts = [
        "a",
        "A",
        ".",
        "..",
        "/",
        "/etc/passwd",
        "../x",
        "a\nb",
        "\u{1b}[31m",
        " ",
        "a.0",
        "e\u{301}",
        "\u{e9}",
        &long,
        &crabs,
    ];
    let mut held = Vec::new();
    for (index, text) in (0..).zip(texts) {
        held.push(
            here.options()
                .open_or_create(text, 64, |bytes| bytes[0] = index)?,
        );
    }
    for (index, text) in (0..).zip(texts) {
        assert_eq!(here.options().open(text)?[0], index, "{text:?}");
    }
    let mut expected: Vec<_> = texts.map(str::to_owned).into();
    expected.sort();
    assert_eq!(here.list(), expected);
    drop(held);
    here.assert_empty();
    let invalid = |text: &str| reason(here.options().open_or_create(text, 64, |_| {}));
    assert_eq!(invalid(""), NamedError::Empty);
    assert_eq!(invalid("a\0b"), NamedError::ContainsNul);
    assert_eq!(invalid(&"x".repeat(201)), NamedError::TooLong { len: 201 });
    assert_eq!(
        invalid(&format!("{crabs}x")),
        NamedError::TooLong { len: 201 }
    );
    Ok(())
}

/// Each two of these have the same hash (FNV-1a of 64 bits).
pub(crate) const ALIKE: [[&str; 2]; 2] = [
    ["8yn0iYCKYHlIj4-BwPqk", "GReLUrM4wMqfg9yzV3KQ"],
    ["7mohtcOFVz", "c1E51sSEyx"],
];

pub(crate) fn names_with_the_same_hash_are_different_names() -> Outcome {
    for [one, other] in ALIKE {
        let here = Names::new()?;
        let options = here.options();
        let first = options.open_or_create(one, 64, |bytes| bytes.fill(1))?;
        assert_eq!(reason(options.open(other)), NamedError::Unknown);
        let second = options.open_or_create(other, 64, |bytes| bytes.fill(2))?;
        let hashes: Vec<_> = here.files();
        assert_eq!(hashes.len(), 2);
        assert_eq!(
            hashes[0][..16],
            hashes[1][..16],
            "they do not have the same hash"
        );
        assert_eq!((options.open(one)?[0], options.open(other)?[0]), (1, 2));
        assert_eq!(options.list()?.len(), 2);
        // The second stays where it is.
        drop(first);
        assert_eq!(options.open(other)?[0], 2);
        assert_eq!(reason(options.open(one)), NamedError::Unknown);
        let again = options.open_or_create(one, 64, |bytes| bytes.fill(3))?;
        assert_eq!((again[0], options.open(other)?[0]), (3, 2));
        drop((second, again));
        here.assert_empty();
    }
    Ok(())
}

pub(crate) fn a_larger_size_is_an_error() -> Outcome {
    let here = Names::new()?;
    let options = here.options();
    let error = options.open_or_create("a", 0, |_| {}).err();
    assert_eq!(error, Some(Error::InvalidSize { size: 0 }));
    let held = options.open_or_create("a", 100, |_| {})?;
    assert_eq!(options.open_or_create("a", 50, |_| {})?.len(), 100);
    let error = options.open_or_create("a", 101, |_| {}).err();
    let expected = Error::TooLarge {
        asked: 101,
        actual: 100,
    };
    assert_eq!(error, Some(expected));
    drop(held);
    here.assert_empty();
    Ok(())
}

pub(crate) fn a_failed_initialisation_leaves_nothing() -> Outcome {
    let here = Names::new()?;
    let options = here.options();
    let result = options.try_open_or_create("a", 64, |_| Err(Error::ForkPending));
    assert_eq!(result.err(), Some(Error::ForkPending));
    here.assert_empty();
    assert!(options.open_or_create("a", 64, |_| {})?.is_creator());
    here.assert_empty();
    Ok(())
}

pub(crate) fn a_panicking_initialisation_leaves_nothing() -> Outcome {
    let here = Names::new()?;
    let options = here.options();
    for _ in 0..2 {
        let create = || options.open_or_create("a", 64, |_| std::panic::resume_unwind(Box::new(5)));
        assert!(catch_unwind(AssertUnwindSafe(create)).is_err());
        here.assert_empty();
    }
    assert!(options.open_or_create("a", 64, |_| {})?.is_creator());
    here.assert_empty();
    Ok(())
}

pub(crate) fn names_persist_until_they_are_removed() -> Outcome {
    if let Err(error) = MmapShMemProvider::new()?.new_shmem(1) {
        return if_lacking(error);
    }
    let here = Names::new()?;
    let options = here.options().persist(Persist::UntilRemoved);
    let mut peer = here.peer();
    peer.execute("persist")?;
    let log = here.path().join("log");
    peer.execute(format!("make stays {}", log.display()))?;
    std::fs::remove_file(log)?;
    let creator = peer.kill();
    // Options without it open it as well, and the name keeps its lifetime.
    assert_eq!(here.peer().ask_for("open stays"), Ok(creator));
    // Not as an orphan either.
    MmapShMemProvider::remove_orphans()?;
    let opened = options.open("stays")?;
    let id = opened.id().to_string();
    assert!(name_exists(&id));
    drop(opened);
    let listed = here.options().list()?;
    assert_eq!(
        (&*listed[0].name, listed[0].persist),
        ("stays", Persist::UntilRemoved)
    );
    assert_eq!(here.options().open("stays")?.len(), SIZE);
    here.peer().execute("remove stays")?;
    assert!(!name_exists(&id));
    assert_eq!(reason(options.remove("stays")), NamedError::Unknown);
    here.assert_empty();
    // If the memory is removed by itself, the name is as well.
    let created = options.open_or_create("stays", 64, |_| {})?;
    let id = created.id();
    drop(created);
    MmapShMemProvider::remove(id)?;
    assert_eq!(reason(options.open("stays")), NamedError::Unknown);
    here.assert_empty();
    drop(options.open_or_create("stays", 64, |_| {})?);
    MmapShMemProvider::remove(options.open("stays")?.id())?;
    here.assert_empty();
    Ok(())
}

pub(crate) fn providers_that_cannot_persist_are_an_error() -> Outcome {
    fn check<P: ShMemProvider>(provider: P) -> Outcome {
        let here = Names::new()?;
        let options = NamedOptions::with_provider(provider).directory(here.path());
        let error = options
            .persist(Persist::UntilRemoved)
            .open_or_create("a", 64, |_| {})
            .err();
        assert!(
            matches!(error, Some(Error::Unsupported { .. })),
            "{error:?}"
        );
        here.assert_empty();
        Ok(())
    }
    check(MemfdShMemProvider::new()?)?;
    check(CommonUnixShMemProvider::new()?)?;
    check(RcShMemProvider::from(MemfdShMemProvider::new()?))
}

pub(crate) fn removed_names_stay_with_their_holders() -> Outcome {
    let here = Names::new()?;
    let options = here.options();
    let old = options.open_or_create("a", 64, |bytes| bytes.fill(1))?;
    here.peer().execute("remove a")?;
    assert_eq!(here.files(), Vec::<String>::new());
    let new = options.open_or_create("a", 64, |bytes| bytes.fill(2))?;
    // Dropping the old one does not end the new one.
    assert_eq!(old[..], [1; 64]);
    drop(old);
    assert_eq!(options.open("a")?[..], [2; 64]);
    drop(new);
    here.assert_empty();
    Ok(())
}

pub(crate) fn the_segment_can_be_taken_out() -> Outcome {
    let here = Names::new()?;
    let options = here.options();
    let (segment, hold) = options
        .open_or_create("a", 64, |bytes| bytes.fill(1))?
        .into_parts();
    assert_eq!(hold.name(), "a");
    assert_eq!(options.open("a")?.into_segment()[..], [1; 64]);
    drop(hold);
    here.assert_empty();
    assert_eq!(segment[..], [1; 64]);
    // A segment that is gone while its name is held: an error, not a hang.
    let (segment, hold) = options.open_or_create("a", 64, |_| {})?.into_parts();
    drop(segment);
    let brief = options
        .clone()
        .timeout(std::time::Duration::from_millis(50));
    assert!(brief.open("a").is_err_and(|error| error.is_not_found()));
    drop(hold);
    here.assert_empty();
    Ok(())
}

pub(crate) fn every_provider_has_names() -> Outcome {
    fn check<P: ShMemProvider>(mut provider: P) -> Outcome {
        if let Err(error) = provider.new_shmem(1) {
            return if_lacking(error);
        }
        let here = Names::new()?;
        let options = NamedOptions::with_provider(provider).directory(here.path());
        let first = options.open_or_create("a", SIZE, initialise)?;
        let id = first.id().to_string();
        let second = options.open("a")?;
        let third = options.open_or_create("a", SIZE, |_| unreachable!())?;
        assert_eq!((second.id(), third.id()), (first.id(), first.id()));
        assert_eq!(second[..], first[..]);
        // The creator goes first: the name stays usable.
        drop(first);
        drop(options.open("a")?);
        drop(second);
        assert_eq!(options.open("a")?.len(), SIZE);
        drop(third);
        assert_eq!(reason(options.open("a")), NamedError::Unknown);
        here.assert_empty();
        assert!(!id.starts_with('/') || !name_exists(&id), "{id} was left");
        Ok(())
    }
    let address = tempfile::tempdir()?;
    check(StdShMemProvider::new()?)?;
    check(MemfdShMemProvider::new()?)?;
    check(CommonUnixShMemProvider::new()?)?;
    check(RcShMemProvider::from(MmapShMemProvider::new()?))?;
    check(ServedShMemProvider::<MemfdBackend>::at(
        address.path().join("service"),
    ))?;
    check(MmapShMemProvider::new()?)
}
