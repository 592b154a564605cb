//! [`Table`]: the rows and how they are printed.

use std::fmt::Write as _;

use bench::Result;
use bench::pairs::{Pairs, Target, Time};

/// One row.
struct Row {
    work: String,
    against: String,
    target: Target,
    found: Result<Pairs, String>,
}

/// The rows so far.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    /// Rows without a ratio: the work, the target, and what was found.
    facts: Vec<[String; 3]>,
    pub(crate) once: bool,
    pub(crate) filter: Option<String>,
}

impl Table {
    /// Returns `true` if the name of the row contains the filter.
    pub(crate) fn wants(&self, work: &str) -> bool {
        self.filter
            .as_ref()
            .is_none_or(|filter| work.contains(filter))
    }

    /// Measures a row: so many pairs of batches of so many operations.
    pub(crate) fn row(
        &mut self,
        work: &str,
        against: &str,
        target: Target,
        (pairs, batch): (usize, u32),
        ours: impl FnMut() -> Result,
        theirs: impl FnMut() -> Result,
    ) {
        if self.wants(work) {
            let (pairs, batch) = if self.once { (1, 1) } else { (pairs, batch) };
            let found = Pairs::timed(pairs, batch, ours, theirs).map_err(|error| error.to_string());
            self.add(work, against, target, found);
        }
    }

    /// Adds a row that was measured elsewhere, or the reason why it was not.
    pub(crate) fn add(
        &mut self,
        work: &str,
        against: &str,
        target: Target,
        found: Result<Pairs, String>,
    ) {
        eprintln!(
            "{work}: {}",
            found
                .as_ref()
                .map_or_else(Clone::clone, |pairs| format!("{:.3}", pairs.ratio()))
        );
        let (work, against) = (work.into(), against.into());
        self.rows.push(Row {
            work,
            against,
            target,
            found,
        });
    }

    /// Adds a row without a ratio.
    pub(crate) fn fact(&mut self, work: &str, target: &str, found: String) {
        eprintln!("{work}: {found}");
        self.facts.push([work.into(), target.into(), found]);
    }

    /// Returns the table as Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from(
            "| work | against | target | measured | | ours | theirs |\n| --- | --- | --- | ---: | --- | ---: | ---: |\n",
        );
        for row in &self.rows {
            let target = match row.target {
                Target::AtMost(most) => format!("≤ {most:.2} ×"),
                Target::AtLeast(least) => format!("≥ {least:.2} ×"),
                Target::Faster(least) => format!("≥ {least} × faster"),
                Target::None => "–".into(),
            };
            let cells = match &row.found {
                Err(reason) => format!("not measured: {reason} | | | "),
                Ok(pairs) => {
                    let ratio = pairs.ratio();
                    let value = match row.target {
                        Target::Faster(_) => format!("{:.1} × faster", 1.0 / ratio),
                        _ => format!("{ratio:.2} ×"),
                    };
                    let mark = match row.target.is_met(ratio) {
                        Some(true) => "met",
                        Some(false) => "**missed**",
                        None => "",
                    };
                    format!(
                        "{value} | {mark} | {:.1} | {:.1}",
                        Time(pairs.ours()),
                        Time(pairs.theirs())
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

    /// Returns the ratios as CSV. Targets are the largest ratios that meet them.
    pub(crate) fn csv(&self) -> String {
        let mut text = String::from("work,against,target,ratio,ours_ns,theirs_ns\n");
        for row in &self.rows {
            let target = match row.target {
                Target::AtMost(most) => most,
                Target::Faster(least) => 1.0 / least,
                Target::AtLeast(_) | Target::None => f64::NAN,
            };
            if let Ok(pairs) = &row.found {
                let _ = writeln!(
                    text,
                    "\"{}\",\"{}\",{target:.4},{:.4},{:.1},{:.1}",
                    row.work,
                    row.against,
                    pairs.ratio(),
                    pairs.ours() * 1e9,
                    pairs.theirs() * 1e9
                );
            }
        }
        text
    }
}
