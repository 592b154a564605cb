//! The tests of this program: one for each cell of the tables.

mod page;
mod peer;
mod sandboxes;

use std::fs;
use std::path::Path;
use std::process::Command;

use libtest_mimic::{Arguments, Trial};
use testkit::peer::{make_public_program, remove_public_program};
use testkit::{Outcome, skip};

use self::page::{Cell, Expected, Page};
use self::peer::{Commands, INHERITED};
use self::sandboxes::Sandbox;

/// What happened in a cell: nothing special, or an error.
type Happened = Result<(), String>;

/// What the processes of a cell do.
type Scenario = fn(&Sandbox, &str, &Path) -> Outcome<Happened>;

pub(crate) fn main() {
    if std::env::args().nth(1).as_deref() == Some("peer") {
        return peer::serve();
    }
    let page = Page::read();
    let directions: [(&str, &[Cell], Scenario); 2] = [
        ("into", &page.into, attach_from_outside),
        ("inside", &page.inside, share_inside),
    ];
    let mut trials = Vec::new();
    for (direction, cells, scenario) in directions {
        let cells = cells.iter().cloned();
        trials.extend(cells.map(|cell| trial(direction, cell, scenario)));
    }
    trials.push(testkit::trial("page::is_complete", move || {
        page.assert_complete();
        Ok(())
    }));
    make_public_program();
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    remove_public_program();
    conclusion.exit();
}

/// Creates the trial of a cell. It has a directory for temporary files, in which nothing may be left.
fn trial(direction: &str, cell: Cell, scenario: Scenario) -> Trial {
    let name = format!("{direction}::{}::{}", cell.sandbox, cell.provider).replace(' ', "_");
    testkit::trial(name, move || {
        let Some(sandbox) = Sandbox::named(&cell.sandbox) else {
            return Err(format!("there is no sandbox {:?}", cell.sandbox).into());
        };
        let directory = tempfile::tempdir()?;
        let happened = scenario(sandbox, &cell.provider, directory.path())?;
        cell.expected.compare(happened);
        let left: Vec<_> = fs::read_dir(directory.path())?.flatten().collect();
        assert!(left.is_empty(), "left: {left:?}");
        Ok(())
    })
}

/// A process outside creates a segment, and one inside attaches to it. Returns the error of the latter.
fn attach_from_outside(sandbox: &Sandbox, provider: &str, directory: &Path) -> Outcome<Happened> {
    if provider == INHERITED {
        let segment = peer::segment()?;
        let pass_on = |command: &mut Command| peer::pass_on(&segment, command);
        let mut inside = sandbox.start_with(directory, &pass_on)?;
        return Ok(inside.execute("inherited"));
    }
    let mut outside = Sandbox::NONE.start(directory)?;
    let mut inside = sandbox.start(directory)?;
    match outside.make(provider) {
        Ok(id) => Ok(inside.open(provider, &id)),
        Err(error) => skip(format!("not available outside: {error}")),
    }
}

/// A process inside creates a segment, and a process that it starts attaches to it. Returns the first error.
fn share_inside(sandbox: &Sandbox, provider: &str, directory: &Path) -> Outcome<Happened> {
    let mut inside = sandbox.start(directory)?;
    if provider == INHERITED {
        return Ok(inside.execute("child-inherits"));
    }
    let made = inside.make(provider);
    Ok(made.and_then(|id| inside.child_opens(provider, &id)))
}

impl Expected {
    /// Compares with what has happened. The text of an error starts with its kind.
    #[track_caller]
    fn compare(&self, happened: Happened) {
        match (self, happened) {
            (Self::Works, happened) => assert_eq!(happened, Ok(())),
            (Self::Error { kind, .. }, Ok(())) => panic!("it works, instead of: {kind}"),
            (Self::Error { kind, says }, Err(error)) => {
                let (found, message) = error.split_once(' ').unwrap_or((&error, ""));
                assert_eq!(found, kind, "{message}");
                for part in says {
                    assert!(message.contains(part), "{part:?} is missing: {message}");
                }
            }
        }
    }
}
