//! [`Bench`]: runs the rows, prints the table.

use core::fmt;

use crate::Result;

/// How much is done per row.
pub(crate) struct Effort {
    /// How often the servers are started anew.
    pub(crate) series: usize,
    /// Pairs of batches, for each of these times.
    pub(crate) pairs: usize,
    /// Segments that are made in one batch.
    pub(crate) batch: u32,
    /// Pairs of slices in which eight clients work at once, and how long a slice is.
    pub(crate) slices: usize,
    pub(crate) slice_millis: u32,
    /// Segments that live meanwhile, where there are to be many.
    pub(crate) segments: u32,
    /// Clients that are idle meanwhile.
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

/// To see that it works.
const ONCE: Effort = Effort {
    series: 1,
    pairs: 1,
    batch: 2,
    slices: 1,
    slice_millis: 10,
    segments: 500,
    idle_clients: 100,
};

/// What a ratio should be.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// It is there for scale.
    None,
}

/// Runs the rows whose name contains the filter.
pub(crate) struct Bench<'a> {
    effort: &'a Effort,
    measures: bool,
    filter: Option<&'a str>,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(measures: bool, filter: Option<&'a str>) -> Self {
        println!("| create + attach + release | this | that | ratio | middle half | target |");
        println!("| --- | ---: | ---: | ---: | --- | --- |");
        Self {
            effort: if measures { &MEASURED } else { &ONCE },
            measures,
            filter,
        }
    }

    /// One row of the table.
    pub(crate) fn row(
        &self,
        work: &str,
        target: Target,
        measure: impl FnOnce(&Effort) -> Result<Pairs>,
    ) {
        if self.filter.is_some_and(|filter| !work.contains(filter)) {
            return;
        }
        match measure(self.effort) {
            Ok(pairs) => {
                let missed = self.measures && !pairs.meet(target);
                let verdict = if missed { ", MISSED" } else { "" };
                println!("| {work}{} | {pairs} | {target}{verdict} |", pairs.note);
            }
            Err(reason) => println!("| {work} | skipped: {reason} | | | | {target} |"),
        }
    }
}

/// What is compared.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    /// Seconds for one.
    Time,
    /// So many in a second.
    Rate,
}

/// Figures of this and that, which have taken turns.
pub(crate) struct Pairs {
    unit: Unit,
    figures: Vec<(f64, f64)>,
    /// What else is to be known.
    pub(crate) note: String,
}

impl Pairs {
    pub(crate) fn new(unit: Unit) -> Self {
        Self {
            unit,
            figures: Vec::new(),
            note: String::new(),
        }
    }

    /// Lets the two take turns so many times, and changes who comes first each time.
    pub(crate) fn add(
        &mut self,
        count: usize,
        mut this: impl FnMut() -> Result<f64>,
        mut that: impl FnMut() -> Result<f64>,
    ) -> Result {
        this()?;
        that()?;
        for pair in 0..count {
            self.figures.push(if pair % 2 == 0 {
                let first = this()?;
                (first, that()?)
            } else {
                let first = that()?;
                (this()?, first)
            });
        }
        Ok(())
    }

    fn ratio(&self, rank: f64) -> f64 {
        quantile(rank, self.figures.iter().map(|pair| pair.0 / pair.1))
    }

    fn meet(&self, target: Target) -> bool {
        match target {
            Target::AtMost(most) => self.ratio(0.5) <= most,
            Target::AtLeast(least) => self.ratio(0.5) >= least,
            Target::None => true,
        }
    }
}

impl fmt::Display for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for figures in [|pair: &(f64, f64)| pair.0, |pair: &(f64, f64)| pair.1] {
            let middle = quantile(0.5, self.figures.iter().map(figures));
            match self.unit {
                Unit::Time => write!(f, "{:.2} µs | ", middle * 1e6)?,
                Unit::Rate => write!(f, "{middle:.0}/s | ")?,
            }
        }
        let [low, middle, high] = [0.25, 0.5, 0.75].map(|rank| self.ratio(rank));
        write!(f, "{middle:.3} | {low:.3}–{high:.3}")
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::AtLeast(least) => write!(f, "≥ {least}"),
            Self::None => f.write_str("-"),
        }
    }
}

/// The value below which this part of the values is; not a number if there are none.
fn quantile(part: f64, values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "there are some hundred values"
    )]
    let rank = (values.len() as f64 * part) as usize;
    values.get(rank).copied().unwrap_or(f64::NAN)
}
