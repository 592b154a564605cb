//! [`Table`]: runs the rows and prints the table.

use core::fmt;

use bench::Result;
use bench::pairs::{Pairs, Target};

/// How much is done per row.
pub(crate) struct Effort {
    /// The number of times that the servers are started.
    pub(crate) series: usize,
    /// The number of pairs of batches in each series.
    pub(crate) pairs: usize,
    /// The number of segments that are created in a batch.
    pub(crate) batch: u32,
    /// The number of pairs of slices of time in which eight clients work at once, and how long a slice is.
    pub(crate) slices: usize,
    pub(crate) slice_millis: u32,
    /// The number of live segments on the side that has many.
    pub(crate) segments: u32,
    /// The number of idle clients on the side that has some.
    pub(crate) idle_clients: u32,
}

const MEASURED: Effort = Effort {
    series: 5,
    pairs: 60,
    batch: 32,
    slices: 8,
    slice_millis: 150,
    segments: 10_000,
    idle_clients: 200,
};

/// For a test.
const ONCE: Effort = Effort {
    series: 1,
    pairs: 1,
    batch: 2,
    slices: 1,
    slice_millis: 10,
    segments: 500,
    idle_clients: 100,
};

/// Runs the rows whose names contain the filter.
pub(crate) struct Table<'a> {
    effort: &'a Effort,
    is_measured: bool,
    filter: Option<&'a str>,
}

impl<'a> Table<'a> {
    pub(crate) fn new(is_measured: bool, filter: Option<&'a str>) -> Self {
        println!("| create + attach + release | this | that | ratio | middle half | target |");
        println!("| --- | ---: | ---: | ---: | --- | --- |");
        Self {
            effort: if is_measured { &MEASURED } else { &ONCE },
            is_measured,
            filter,
        }
    }

    /// Prints a row.
    pub(crate) fn row(
        &self,
        work: &str,
        target: Target,
        measure: impl FnOnce(&Effort) -> Result<Found>,
    ) {
        if self.filter.is_some_and(|filter| !work.contains(filter)) {
            return;
        }
        let target_text = match target {
            Target::AtMost(most) => format!("≤ {most}"),
            Target::AtLeast(least) => format!("≥ {least}"),
            Target::Faster(least) => format!("≥ {least} × faster"),
            Target::None => "-".into(),
        };
        match measure(self.effort) {
            Ok(found) => {
                let missed = self.is_measured && target.is_met(found.pairs.ratio()) == Some(false);
                let verdict = if missed { ", MISSED" } else { "" };
                let note = &found.note;
                println!("| {work}{note} | {found} | {target_text}{verdict} |");
            }
            Err(reason) => println!("| {work} | skipped: {reason} | | | | {target_text} |"),
        }
    }
}

/// What the figures are.
#[derive(Clone, Copy)]
enum Unit {
    /// Seconds per operation.
    Time,
    /// Operations per second.
    Rate,
}

/// What a row has measured.
pub(crate) struct Found {
    pairs: Pairs,
    unit: Unit,
    /// Printed behind the name of the row.
    pub(crate) note: String,
}

impl Found {
    /// Pairs of seconds per operation.
    pub(crate) fn times(pairs: Pairs) -> Self {
        Self {
            pairs,
            unit: Unit::Time,
            note: String::new(),
        }
    }

    /// Pairs of operations per second.
    pub(crate) fn rates(pairs: Pairs) -> Self {
        Self {
            unit: Unit::Rate,
            ..Self::times(pairs)
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for median in [self.pairs.ours(), self.pairs.theirs()] {
            match self.unit {
                Unit::Time => write!(f, "{:.2} µs | ", median * 1e6)?,
                Unit::Rate => write!(f, "{median:.0}/s | ")?,
            }
        }
        let [low, high] = [0.25, 0.75].map(|part| self.pairs.ratio_at(part));
        write!(f, "{:.3} | {low:.3}–{high:.3}", self.pairs.ratio())
    }
}
