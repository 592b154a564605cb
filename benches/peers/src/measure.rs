//! [`Table`]: lets two sides take turns, and notes the medians.

use std::fmt::Write as _;
use std::time::Instant;

use crate::Result;

/// What the issue demands of a ratio.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// Ours is at most so many times theirs.
    AtMost(f64),
    /// Ours is at least so many times as fast.
    Faster(f64),
    /// No ratio is demanded.
    None,
}

/// One row.
struct Row {
    work: String,
    against: String,
    target: Target,
    found: Result<Found, String>,
}

/// Medians, in seconds; the ratio is that of the pairs.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    pub(crate) ours: f64,
    pub(crate) theirs: f64,
    pub(crate) ratio: f64,
}

/// The rows so far.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    /// What is no ratio.
    facts: Vec<[String; 3]>,
    pub(crate) once: bool,
    pub(crate) filter: Option<String>,
}

impl Table {
    /// Whether a row is wanted.
    pub(crate) fn wants(&self, work: &str) -> bool {
        self.filter
            .as_ref()
            .is_none_or(|filter| work.contains(filter))
    }

    /// A row: `pairs` of batches of either side.
    pub(crate) fn row(
        &mut self,
        work: &str,
        against: &str,
        target: Target,
        (pairs, batch): (u32, u32),
        ours: impl FnMut() -> Result,
        theirs: impl FnMut() -> Result,
    ) {
        if self.wants(work) {
            let (pairs, batch) = if self.once { (1, 1) } else { (pairs, batch) };
            let found = measure(pairs, batch, ours, theirs).map_err(|error| error.to_string());
            self.add(work, against, target, found);
        }
    }

    /// A row that was measured elsewhere, or a reason why it was not.
    pub(crate) fn add(
        &mut self,
        work: &str,
        against: &str,
        target: Target,
        found: Result<Found, String>,
    ) {
        eprintln!(
            "{work}: {}",
            found
                .as_ref()
                .map_or_else(Clone::clone, |f| format!("{:.3}", f.ratio))
        );
        let (work, against) = (work.into(), against.into());
        self.rows.push(Row {
            work,
            against,
            target,
            found,
        });
    }

    /// What is no ratio: the work, what is demanded, what was found.
    pub(crate) fn fact(&mut self, work: &str, target: &str, found: String) {
        eprintln!("{work}: {found}");
        self.facts.push([work.into(), target.into(), found]);
    }

    /// The table.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from(
            "| work | against | target | measured | | ours | theirs |\n| --- | --- | --- | ---: | --- | ---: | ---: |\n",
        );
        for row in &self.rows {
            let target = match row.target {
                Target::AtMost(most) => format!("≤ {most:.2} ×"),
                Target::Faster(least) => format!("≥ {least} × faster"),
                Target::None => "–".into(),
            };
            let cells = match &row.found {
                Err(reason) => format!("not measured: {reason} | | | "),
                Ok(found) => {
                    let (value, is_met) = match row.target {
                        Target::AtMost(most) => {
                            (format!("{:.2} ×", found.ratio), Some(found.ratio <= most))
                        }
                        Target::Faster(least) => {
                            let faster = 1.0 / found.ratio;
                            (format!("{faster:.1} × faster"), Some(faster >= least))
                        }
                        Target::None => (format!("{:.2} ×", found.ratio), None),
                    };
                    let mark = is_met.map_or("", |met| if met { "met" } else { "**missed**" });
                    format!(
                        "{value} | {mark} | {} | {}",
                        Time(found.ours),
                        Time(found.theirs)
                    )
                }
            };
            let _ = writeln!(
                text,
                "| {} | {} | {target} | {cells} |",
                row.work, row.against
            );
        }
        for [work, target, found] in &self.facts {
            let _ = writeln!(text, "| {work} | | {target} | {found} | | | |");
        }
        text
    }

    /// The same as raw data.
    pub(crate) fn csv(&self) -> String {
        let mut text = String::from("work,against,target,ratio,ours_ns,theirs_ns\n");
        for row in &self.rows {
            let target = match row.target {
                Target::AtMost(most) => most,
                Target::Faster(least) => 1.0 / least,
                Target::None => f64::NAN,
            };
            if let Ok(found) = &row.found {
                let _ = writeln!(
                    text,
                    "\"{}\",\"{}\",{target:.4},{:.4},{:.1},{:.1}",
                    row.work,
                    row.against,
                    found.ratio,
                    found.ours * 1e9,
                    found.theirs * 1e9
                );
            }
        }
        text
    }
}

/// Lets the two take turns, and changes who comes first each time.
fn measure(
    pairs: u32,
    batch: u32,
    mut ours: impl FnMut() -> Result,
    mut theirs: impl FnMut() -> Result,
) -> Result<Found> {
    ours()?;
    theirs()?;
    let mut times = Vec::new();
    for pair in 0..pairs {
        times.push(if pair % 2 == 0 {
            let first = time(batch, &mut ours)?;
            (first, time(batch, &mut theirs)?)
        } else {
            let first = time(batch, &mut theirs)?;
            (time(batch, &mut ours)?, first)
        });
    }
    Ok(Found::of(&times))
}

fn time(batch: u32, work: &mut impl FnMut() -> Result) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..batch {
        work()?;
    }
    Ok(start.elapsed().as_secs_f64() / f64::from(batch))
}

impl Found {
    /// The medians of pairs of times: ours, theirs.
    pub(crate) fn of(times: &[(f64, f64)]) -> Self {
        Self {
            ours: median(times.iter().map(|time| time.0)),
            theirs: median(times.iter().map(|time| time.1)),
            ratio: median(times.iter().map(|time| time.0 / time.1)),
        }
    }
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Seconds, in a unit that suits them.
pub(crate) struct Time(pub(crate) f64);

impl core::fmt::Display for Time {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 * 1e6 {
            micros if micros < 1.0 => write!(f, "{:.0} ns", micros * 1e3),
            micros if micros < 1e3 => write!(f, "{micros:.1} µs"),
            micros => write!(f, "{:.1} ms", micros / 1e3),
        }
    }
}
