//! [`Bench`]: runs the rows, prints the table.

use std::time::Instant;

use crate::Result;
use crate::calls::{self, Calls};

/// How many pairs of batches make a row.
const PAIRS: usize = 200;

/// Less than this, in seconds, is nothing that a ratio could be taken of.
const CLOCK: f64 = 1e-9;

/// How much is done per row.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// All pairs.
    Measured,
    /// One pair of batches of one operation each: to see that it works.
    Once,
    /// A few single operations between marks: this process runs under strace.
    Traced,
}

/// Runs the rows whose name contains the filter.
pub(crate) struct Bench<'a> {
    effort: Effort,
    filter: Option<&'a str>,
    calls: Result<Calls, String>,
}

impl<'a> Bench<'a> {
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

    /// Lets another process run everything under strace, for the last column.
    pub(crate) fn count_calls(&mut self) {
        self.calls = calls::traced(self.filter);
    }

    /// One row of the table: `ours` and its twin, of which `batch` make a batch.
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
        let found = match self.effort {
            Effort::Measured => measure(PAIRS, batch, &mut ours, &mut raw),
            Effort::Once => measure(1, 1, &mut ours, &mut raw),
            Effort::Traced => return trace(work, &mut ours, &mut raw),
        };
        let cells = match found {
            Ok([ours, raw, ratio]) => {
                let ratio = match raw {
                    raw if raw < CLOCK => "-".into(),
                    _ => format!("{ratio:.3}"),
                };
                let [ours, raw] = [Time(ours), Time(raw)];
                format!("{ours} | {raw} | {ratio} | {}", self.counted(work))
            }
            Err(reason) => format!("skipped: {reason} | | | "),
        };
        println!("| {work} | {cells} |");
    }

    /// The second table: which calls the parts of a segment's life are made of.
    pub(crate) fn print_splits(&self) {
        let calls = match &self.calls {
            Ok(calls) => calls,
            Err(reason) => return println!("\nSystem calls were not counted: {reason}"),
        };
        println!("\n| system calls of | create | attach by id | drop |");
        println!("| --- | --- | --- | --- |");
        for mechanism in calls::MECHANISMS {
            let [create, attach, drop] = calls::PARTS.map(|part| {
                let names = calls.of(&calls::part_label(part, mechanism));
                names.map_or("skipped".into(), |names| {
                    format!("{}: {}", names.len(), names.join(", "))
                })
            });
            println!("| {mechanism} | {create} | {attach} | {drop} |");
        }
        println!(
            "\nCounted are operations of a process that has done such before. The first memfd of a \
             process and every 32nd after it fill a stock of random numbers: these calls are in \
             the times (a batch of 32 has one filling), not in the counts."
        );
        if cfg!(debug_assertions) {
            println!("This is a debug build: std adds a call of fcntl to each close.");
        }
    }

    fn counted(&self, work: &str) -> String {
        let count = |side| {
            let calls = self.calls.as_ref().ok()?;
            Some(calls.of(&format!("{work}: {side}"))?.len().to_string())
        };
        let [ours, raw] = ["ours", "raw"].map(|side| count(side).unwrap_or("?".into()));
        format!("{ours}, {raw}")
    }
}

/// Lets the two take turns, and changes who comes first each time. Returns the medians of the times
/// of an operation of ours and of the raw one, in seconds, and of the ratio.
fn measure(
    pairs: usize,
    batch: u32,
    ours: &mut impl FnMut() -> Result,
    raw: &mut impl FnMut() -> Result,
) -> Result<[f64; 3]> {
    ours()?;
    raw().map_err(|error| format!("the raw twin: {error}"))?;
    let mut times = Vec::with_capacity(pairs);
    for pair in 0..pairs {
        times.push(if pair % 2 == 0 {
            let first = time(batch, ours)?;
            (first, time(batch, raw)?)
        } else {
            let first = time(batch, raw)?;
            (time(batch, ours)?, first)
        });
    }
    let of = |value: fn(&(f64, f64)) -> f64| median(times.iter().map(value));
    Ok([
        of(|time| time.0),
        of(|time| time.1),
        of(|time| time.0 / time.1),
    ])
}

/// The time of one operation in a batch of them.
fn time(batch: u32, operation: &mut impl FnMut() -> Result) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..batch {
        operation()?;
    }
    Ok(start.elapsed().as_secs_f64() / f64::from(batch))
}

/// Three of each between marks, after one to warm up. An error shows in the other process as well.
fn trace(work: &str, ours: &mut impl FnMut() -> Result, raw: &mut impl FnMut() -> Result) {
    if ours().and_then(|()| raw()).is_err() {
        return;
    }
    for _ in 0..3 {
        let _ = calls::between_marks(&format!("{work}: ours"), &mut *ours);
        let _ = calls::between_marks(&format!("{work}: raw"), &mut *raw);
    }
}

/// The median; not a number if there are none.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    values.get(middle).copied().unwrap_or(f64::NAN)
}

/// Seconds, printed in a unit that suits them.
pub(crate) struct Time(pub(crate) f64);

impl core::fmt::Display for Time {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 * 1e6 {
            micros if micros < 1.0 => write!(f, "{:.1} ns", micros * 1e3),
            micros => write!(f, "{micros:.2} µs"),
        }
    }
}
