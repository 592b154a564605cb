//! [`sweep`]: kills a process by SIGKILL after each instruction of an operation in turn, and lets another process
//! recover each time.
//!
//! For every position, this process prepares a state and forks a child, which executes the operation under
//! `ptrace(2)`. The child is stopped after so many instructions, and killed. Then this process, or one that it asks,
//! looks at what is left, goes on with it, and returns what it found in one word. A test compares these words, in the
//! order of the positions, with what the operation promises: [`Report::phases`].
//!
//! ```no_run
//! use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
//! use shmem_providers::{ShMem, ShMemProvider, StdShMemProvider};
//! use testkit::Outcome;
//! use testkit::stepper::{At, sweep};
//!
//! fn a_store_is_seen_or_not() -> Outcome {
//!     let report = sweep(
//!         At::Instructions,
//!         // Before each kill: a new state, shared with the child.
//!         || Ok(StdShMemProvider::new()?.new_shmem(64)?.share()),
//!         // In the child, which dies somewhere in the closure that it passes to `during`.
//!         |shared, doomed| {
//!             let word = shared.view::<AtomicU32>(0)?; // locks, and all that knows its process, are created here
//!             doomed.during(|| word.store(7, Relaxed));
//!             Ok(())
//!         },
//!         // After each kill: what was found.
//!         |shared| match shared.view::<AtomicU32>(0)?.load(Relaxed) {
//!             0 => Ok("old"),
//!             7 => Ok("new"),
//!             other => Err(format!("{other}").into()),
//!         },
//!     )?;
//!     assert_eq!(report.phases(), ["old", "new"]);
//!     Ok(())
//! }
//! ```
//!
//! The positions of an operation are the instructions that its first child executed. A child is moved there by a
//! breakpoint, and by single steps behind it, so that the time is not quadratic. If it went another way, because it
//! read the clock for example, a new child gets there by single steps only: the report counts these detours.

mod route;
mod tracee;

use std::fmt;

use self::route::Route;
use self::tracee::{Tracee, mark};
use crate::{Failure, Outcome, natively, skip};

/// Where an operation is killed.
#[derive(Clone, Copy, Debug)]
pub enum At {
    /// After each instruction.
    Instructions,
    /// Where each system call begins, where it ends, and after each of the next instructions, so many. For
    /// operations of many instructions whose effects are those of their system calls.
    SystemCalls {
        /// The number of instructions.
        steps: usize,
    },
}

/// The mark of the operation in the child.
#[derive(Debug)]
pub struct Doomed(());

impl Doomed {
    /// Executes the operation. The child is killed before it returns.
    pub fn during<T>(&self, operation: impl FnOnce() -> T) -> T {
        mark();
        let result = operation();
        mark();
        result
    }
}

/// What was found after each kill.
#[derive(Debug)]
pub struct Report {
    found: Vec<&'static str>,
    /// How often a child went another way than the first one.
    detours: usize,
}

impl Report {
    /// Returns the number of positions at which a process was killed.
    pub fn positions(&self) -> usize {
        self.found.len()
    }

    /// Returns at how many positions this was found.
    pub fn count(&self, what: &str) -> usize {
        self.found.iter().filter(|&&found| found == what).count()
    }

    /// Returns what was found, in the order of the positions, without repetitions of what was found just before.
    pub fn phases(&self) -> Vec<&'static str> {
        let mut phases = self.found.clone();
        phases.dedup();
        phases
    }
}

/// `1203 positions: 800 old, 403 new`.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} positions:", self.positions())?;
        let mut listed: Vec<&str> = Vec::new();
        for &what in &self.found {
            if !listed.contains(&what) {
                let comma = if listed.is_empty() { "" } else { "," };
                write!(f, "{comma} {} {what}", self.count(what))?;
                listed.push(what);
            }
        }
        if self.detours > 0 {
            write!(f, "; {} detours", self.detours)?;
        }
        Ok(())
    }
}

/// Kills a child at each position of an operation, as the [module](self) describes, and prints the report.
///
/// To be called by a process with a single thread: set `test_threads` of the arguments of `libtest_mimic` to 1.
pub fn sweep<S>(
    at: At,
    mut prepare: impl FnMut() -> Outcome<S>,
    operation: impl Fn(&mut S, &Doomed) -> Outcome,
    mut recover: impl FnMut(S) -> Outcome<&'static str>,
) -> Outcome<Report> {
    natively("which has no single steps")?;
    if std::env::var_os("ASAN_OPTIONS").is_some() {
        return skip("AddressSanitizer makes an operation many times as long");
    }
    // Executes a part of the operation, and returns what that leaves.
    let mut kill_after = |lead: &mut dyn FnMut(&Tracee) -> Outcome| {
        let mut state = prepare()?;
        let child = Tracee::start(|doomed| operation(&mut state, doomed))?;
        lead(&child)?;
        drop(child);
        recover(state)
    };
    let mut route = None;
    kill_after(&mut |child| {
        route = Some(Route::of(at, child)?);
        Ok(())
    })?;
    let route = route.expect("it was assigned");
    let mut report = Report {
        found: Vec::new(),
        detours: 0,
    };
    for position in 0..=route.end() {
        let mut is_there = true;
        let mut found = kill_after(&mut |child| {
            is_there = route.lead(child, position)?;
            Ok(())
        });
        if !is_there {
            report.detours += 1;
            found = kill_after(&mut |child| route.lead_by_steps(child, position).map(drop));
        }
        match found {
            Ok(found) => report.found.push(found),
            Err(Failure::Skipped(reason)) => return skip(reason),
            Err(Failure::Failed(failed)) => {
                let text = failed.message().unwrap_or("failed");
                return Err(
                    format!("killed at position {position}, after {report}: {text}").into(),
                );
            }
        }
    }
    eprint!("{report} ");
    Ok(report)
}
