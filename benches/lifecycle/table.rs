//! [`Table`]: runs the rows and prints the tables.

use bench::pairs::{Pairs, Time};
use bench::strace::{Calls, Side, between_marks};

use crate::{CHILD, Result};

/// The number of pairs of batches in a row.
const PAIRS: usize = 200;

/// Where the raw side takes less than this, in seconds, there is no ratio.
const CLOCK: f64 = 1e-9;

/// The mechanisms in the second table.
pub(crate) const MECHANISMS: [&str; 4] = ["default", "memfd", "System V", "POSIX"];

/// The parts of a segment's life in the second table.
pub(crate) const PARTS: [&str; 3] = ["create", "attach", "drop"];

/// Returns the label that marks a part.
pub(crate) fn part_label(part: &str, mechanism: &str) -> String {
    format!("{part}: {mechanism}")
}

/// How much is done per row.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// All pairs.
    Measured,
    /// One pair of batches of one operation, as a test.
    Once,
    /// A few single operations between marks: this process runs under strace.
    Traced,
}

/// Runs the rows whose names contain the filter.
pub(crate) struct Table<'a> {
    effort: Effort,
    filter: Option<&'a str>,
    calls: Result<Calls, String>,
}

impl<'a> Table<'a> {
    pub(crate) fn new(effort: Effort, filter: Option<&'a str>) -> Self {
        if effort != Effort::Traced {
            println!("| work | ours | raw | ratio | system calls: ours, raw |");
            println!("| --- | ---: | ---: | ---: | ---: |");
        }
        Self {
            effort,
            filter,
            calls: Err("not counted".into()),
        }
    }

    /// Runs everything in another process under strace, for the last column.
    pub(crate) fn count_calls(&mut self) {
        let arguments = [CHILD, "trace"].into_iter().chain(self.filter);
        self.calls = Calls::of_this_program(arguments).map_err(|error| error.to_string());
    }

    /// Prints a row: `ours` and the raw calls, in batches of `batch` operations.
    pub(crate) fn row(
        &mut self,
        work: &str,
        batch: u32,
        mut ours: impl FnMut() -> Result,
        mut raw: impl FnMut() -> Result,
    ) {
        if self.filter.is_some_and(|filter| !work.contains(filter)) {
            return;
        }
        let (count, batch) = match self.effort {
            Effort::Measured => (PAIRS, batch),
            Effort::Once => (1, 1),
            Effort::Traced => return trace(work, &mut ours, &mut raw),
        };
        let raw = || raw().map_err(|error| format!("the raw twin: {error}").into());
        let cells = match Pairs::timed(count, batch, ours, raw) {
            Ok(pairs) => {
                let ratio = match pairs.theirs() {
                    raw if raw < CLOCK => "-".into(),
                    _ => format!("{:.3}", pairs.ratio()),
                };
                let [ours, raw] = [Time(pairs.ours()), Time(pairs.theirs())];
                format!("{ours:.2} | {raw:.2} | {ratio} | {}", self.counted(work))
            }
            Err(reason) => format!("skipped: {reason} | | | "),
        };
        println!("| {work} | {cells} |");
    }

    /// Prints the second table: the system calls in each part of a segment's life.
    pub(crate) fn print_splits(&self) {
        let calls = match &self.calls {
            Ok(calls) => calls,
            Err(reason) => return println!("\nSystem calls were not counted: {reason}"),
        };
        println!("\n| system calls of | create | attach by id | drop |");
        println!("| --- | --- | --- | --- |");
        for mechanism in MECHANISMS {
            let [create, attach, drop] = PARTS.map(|part| {
                let summary = calls.summary(&part_label(part, mechanism), Side::Caller);
                summary.unwrap_or("skipped".into())
            });
            println!("| {mechanism} | {create} | {attach} | {drop} |");
        }
        println!(
            "\nThe counts are those of a process that has done the same before. The first memfd of a \
             process, and every 32nd after it, fetches random numbers for the next 32: the times \
             include these calls (once per batch of 32), the counts do not."
        );
        if cfg!(debug_assertions) {
            println!("This is a debug build, in which std calls fcntl before each close.");
        }
    }

    fn counted(&self, work: &str) -> String {
        let count = |side| {
            let calls = self.calls.as_ref().ok()?;
            let names = calls.shortest(&format!("{work}: {side}"), Side::Caller)?;
            Some(names.len().to_string())
        };
        let [ours, raw] = ["ours", "raw"].map(|side| count(side).unwrap_or("?".into()));
        format!("{ours}, {raw}")
    }
}

/// Runs three of each between marks, after one of each without. The measuring process reports errors.
fn trace(work: &str, ours: &mut impl FnMut() -> Result, raw: &mut impl FnMut() -> Result) {
    if ours().and_then(|()| raw()).is_err() {
        return;
    }
    for _ in 0..3 {
        let _ = between_marks(&format!("{work}: ours"), &mut *ours);
        let _ = between_marks(&format!("{work}: raw"), &mut *raw);
    }
}
