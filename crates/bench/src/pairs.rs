//! Paired measurements: two sides take turns, and each pair of turns gives one ratio.
//!
//! The turns are so short that whatever slows the machine slows both sides of a pair. The median of the
//! ratios is therefore more reliable than the quotient of two times that were measured separately.

use core::fmt;
use std::time::Instant;

use crate::Result;

/// The figures of two sides that took turns: ours and theirs.
#[derive(Clone, Debug, Default)]
pub struct Pairs {
    figures: Vec<(f64, f64)>,
}

impl Pairs {
    /// Measures `count` pairs of batches of `batch` operations each. The figures are seconds per operation.
    pub fn timed(
        count: usize,
        batch: u32,
        mut ours: impl FnMut() -> Result,
        mut theirs: impl FnMut() -> Result,
    ) -> Result<Self> {
        let mut pairs = Self::default();
        pairs.measure(
            count,
            || time(batch, &mut ours),
            || time(batch, &mut theirs),
        )?;
        Ok(pairs)
    }

    /// Measures `count` pairs, after one measurement of each side that does not count. The two sides
    /// alternate in going first.
    pub fn measure(
        &mut self,
        count: usize,
        mut ours: impl FnMut() -> Result<f64>,
        mut theirs: impl FnMut() -> Result<f64>,
    ) -> Result {
        ours()?;
        theirs()?;
        for pair in 0..count {
            if pair % 2 == 0 {
                let first = ours()?;
                self.push(first, theirs()?);
            } else {
                let first = theirs()?;
                self.push(ours()?, first);
            }
        }
        Ok(())
    }

    /// Adds a pair that was measured elsewhere.
    pub fn push(&mut self, ours: f64, theirs: f64) {
        self.figures.push((ours, theirs));
    }

    /// Returns the median of our figures.
    #[must_use]
    pub fn ours(&self) -> f64 {
        median(self.figures.iter().map(|pair| pair.0))
    }

    /// Returns the median of their figures.
    #[must_use]
    pub fn theirs(&self) -> f64 {
        median(self.figures.iter().map(|pair| pair.1))
    }

    /// Returns the median of the ratios, ours to theirs.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.ratio_at(0.5)
    }

    /// Returns the ratio below which this part of all ratios is, from 0 to 1.
    #[must_use]
    pub fn ratio_at(&self, part: f64) -> f64 {
        quantile(part, self.figures.iter().map(|pair| pair.0 / pair.1))
    }
}

/// What a ratio should be.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
    /// Ours is to be at least this many times as fast: the inverse of the ratio of the times.
    Faster(f64),
    /// There is no target.
    None,
}

impl Target {
    /// Returns whether the ratio meets the target, or `None` if there is no target.
    #[must_use]
    pub fn is_met(self, ratio: f64) -> Option<bool> {
        match self {
            Self::AtMost(most) => Some(ratio <= most),
            Self::AtLeast(least) => Some(ratio >= least),
            Self::Faster(least) => Some(1.0 / ratio >= least),
            Self::None => None,
        }
    }
}

/// A time in seconds, printed in the unit that suits it. The precision (1 by default) is the number of
/// decimals of microseconds and milliseconds; nanoseconds have one less.
#[derive(Clone, Copy, Debug)]
pub struct Time(pub f64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = f.precision().unwrap_or(1);
        match self.0 * 1e6 {
            micros if micros < 1.0 => {
                let decimals = decimals.saturating_sub(1);
                write!(f, "{:.decimals$} ns", micros * 1e3)
            }
            micros if micros < 1e3 => write!(f, "{micros:.decimals$} µs"),
            micros => write!(f, "{:.decimals$} ms", micros / 1e3),
        }
    }
}

/// Returns the seconds per operation of a batch.
fn time(batch: u32, operation: &mut impl FnMut() -> Result) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..batch {
        operation()?;
    }
    Ok(start.elapsed().as_secs_f64() / f64::from(batch))
}

/// Returns the median, or NaN if there are no values.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    quantile(0.5, values)
}

/// Returns the value below which this part of the values is, from 0 to 1, or NaN if there are none.
fn quantile(part: f64, values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "there are some thousand values at most"
    )]
    let rank = (values.len() as f64 * part) as usize;
    values.get(rank).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::{Pairs, Target, Time};

    #[test]
    fn medians_are_those_of_each_side_and_of_the_ratios() {
        let mut pairs = Pairs::default();
        for (ours, theirs) in [(1.0, 2.0), (3.0, 3.0), (8.0, 4.0)] {
            pairs.push(ours, theirs);
        }
        let found = [pairs.ours(), pairs.theirs(), pairs.ratio()];
        assert_eq!(found.map(|value| value.to_string()), ["3", "3", "1"]);
        assert!(Pairs::default().ratio().is_nan());
    }

    #[test]
    fn the_sides_alternate_in_going_first() {
        let order = core::cell::RefCell::new(String::new());
        let side = |name| {
            let order = &order;
            move || {
                order.borrow_mut().push(name);
                Ok(1.0)
            }
        };
        Pairs::default()
            .measure(3, side('o'), side('t'))
            .expect("neither side fails");
        // The first two do not count.
        assert_eq!(order.into_inner(), "otottoot");
    }

    #[test]
    fn targets() {
        assert_eq!(Target::AtMost(1.1).is_met(1.1), Some(true));
        assert_eq!(Target::AtLeast(0.9).is_met(0.8), Some(false));
        assert_eq!(Target::Faster(20.0).is_met(0.04), Some(true));
        assert_eq!(Target::None.is_met(9.0), None);
    }

    #[test]
    fn times_have_a_unit_that_suits_them() {
        let printed = [79e-9, 11.68e-6, 78.7e-3].map(|time| format!("{:.1}", Time(time)));
        assert_eq!(printed, ["79 ns", "11.7 µs", "78.7 ms"]);
        assert_eq!(format!("{:.2}", Time(79.04e-9)), "79.0 ns");
    }
}
