//! Names. An election, a draft, an entry and locks: what is left of them never stops the next process.

use std::fs;

use shmem_providers::{
    MmapShMemProvider, Named, NamedOptions, ShMem, ShMemProvider, StdShMemProvider,
};
use tempfile::TempDir;
use testkit::stepper::{At, Report, sweep};
use testkit::{Outcome, if_lacking};

use super::PosixNames;

const SIZE: usize = 4096;
const FILL: u8 = 0xab;

/// What a creation and the drop that follows leave in the directory, one after the other.
const LIFE: [&str; 6] = ["nothing", "lock", "lock new", "0 lock", "0", "nothing"];

fn initialise(bytes: &mut [u8]) {
    bytes.fill(FILL);
}

/// Returns the kinds of the files that are left in the directory.
fn left(directory: &TempDir) -> Outcome<&'static str> {
    let mut kinds = Vec::new();
    for entry in fs::read_dir(directory.path())? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        kinds.push(name.split('.').nth(1).unwrap_or_default().to_owned());
    }
    kinds.sort();
    let kinds = kinds.join(" ");
    let known = ["", "lock", "lock new", "0 lock", "0"];
    match known.iter().find(|&&known| known == kinds) {
        Some(&"") => Ok("nothing"),
        Some(known) => Ok(known),
        None => Err(format!("the files {kinds:?} are left").into()),
    }
}

/// Goes on with the name: there is no segment, and the one that is created now is the only one.
fn go_on<P: ShMemProvider>(options: &NamedOptions<P>, directory: &TempDir) -> Outcome {
    let mut named: Named<P> = options.open_or_create("a", SIZE, initialise)?;
    assert!(named.is_creator(), "a segment without a holder is left");
    let mut opened = options.open_or_create("a", SIZE, initialise)?;
    assert!(!opened.is_creator(), "there are two segments");
    named.access().write_at(0, &[7])?;
    let mut bytes = [0; SIZE];
    opened.access().read_at(0, &mut bytes)?;
    assert!(bytes[0] == 7 && bytes[1..] == [FILL; SIZE - 1]);
    drop((named, opened));
    assert_eq!(left(directory)?, "nothing");
    Ok(())
}

/// Kills a process while it creates a name and drops it.
fn create_and_drop<P: ShMemProvider>(steps: usize, provider: &P) -> Outcome<Report> {
    let options = |directory: &TempDir| {
        NamedOptions::with_provider(provider.clone()).directory(directory.path())
    };
    sweep(
        At::SystemCalls { steps },
        || Ok(tempfile::tempdir()?),
        |directory, doomed| {
            let options = options(directory);
            doomed.during(|| options.open_or_create("a", SIZE, initialise).map(drop))?;
            Ok(())
        },
        |directory| {
            let left = left(&directory)?;
            go_on(&options(&directory), &directory)?;
            Ok(left)
        },
    )
}

pub(crate) fn killed_creators_leave_a_name_that_can_be_created() -> Outcome {
    let provider = StdShMemProvider::new()?;
    let report = create_and_drop(5, &provider)?;
    assert_eq!(report.phases(), LIFE);
    Ok(())
}

pub(crate) fn killed_creators_leave_no_posix_segment() -> Outcome {
    let mut provider = MmapShMemProvider::new()?;
    if let Err(error) = provider.new_shmem(1) {
        return if_lacking(error);
    }
    let before = PosixNames::now();
    let report = create_and_drop(0, &provider)?;
    assert_eq!(report.phases(), LIFE);
    MmapShMemProvider::remove_orphans()?;
    before.assert_no_more();
    Ok(())
}

pub(crate) fn killed_openers_leave_the_name_to_its_holder() -> Outcome {
    let report = sweep(
        At::SystemCalls { steps: 0 },
        || {
            let directory = tempfile::tempdir()?;
            let options = NamedOptions::new().directory(directory.path());
            let held = options.open_or_create("a", SIZE, initialise)?;
            Ok((directory, options, held))
        },
        |(_, options, _), doomed| {
            doomed.during(|| options.open_or_create("a", SIZE, initialise).map(drop))?;
            Ok(())
        },
        |(directory, options, held)| {
            assert_eq!(left(&directory)?, "0");
            let mut opened = options.open("a")?;
            assert_eq!(opened.id(), held.id());
            assert_eq!(opened.access().as_atomic_u8().len(), SIZE);
            drop((opened, held));
            assert_eq!(left(&directory)?, "nothing");
            Ok("held")
        },
    )?;
    assert_eq!(report.phases(), ["held"]);
    Ok(())
}
