//! Several rounds' numbers as their median and extremes, and a median against its bound.

use std::fmt;

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    /// Zeros for no numbers at all.
    pub(super) fn of(numbers: impl IntoIterator<Item = f64>) -> Self {
        let mut numbers: Vec<f64> = numbers.into_iter().collect();
        numbers.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| numbers.get(index).copied().unwrap_or(0.0);
        let (half, last) = (numbers.len() / 2, numbers.len().saturating_sub(1));
        let median = if numbers.len() % 2 == 1 {
            at(half)
        } else {
            f64::midpoint(at(half.saturating_sub(1)), at(half))
        };
        Self { median, min: at(0), max: at(last) }
    }

    fn text(&self, unit: &str) -> String {
        let number = |value: f64| match value.abs() {
            100.0.. => format!("{value:.0}"),
            10.0.. => format!("{value:.1}"),
            _ => format!("{value:.2}"),
        };
        format!("{}{unit} ({} to {})", number(self.median), number(self.min), number(self.max))
    }
}

/// A number that no bound is set to.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    pub(super) what: &'static str,
    pub(super) unit: &'static str,
    pub(super) spread: Spread,
}

impl Measured {
    pub(super) fn new(
        what: &'static str,
        unit: &'static str,
        numbers: impl IntoIterator<Item = f64>,
    ) -> Self {
        Self { what, unit, spread: Spread::of(numbers) }
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<44} {}", self.what, self.spread.text(self.unit))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

/// A promise and whether the median keeps it.
#[derive(Debug, Serialize)]
pub(super) struct Bound {
    pub(super) what: &'static str,
    pub(super) spread: Spread,
    pub(super) limit: Limit,
    pub(super) met: bool,
}

impl Bound {
    pub(super) fn new(what: &'static str, limit: Limit, numbers: impl IntoIterator<Item = f64>) -> Self {
        let spread = Spread::of(numbers);
        let met = match limit {
            Limit::AtLeast(least) => spread.median >= least,
            Limit::AtMost(most) => spread.median <= most,
        };
        Self { what, spread, limit, met }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = match self.limit {
            Limit::AtLeast(least) => format!("at least {least:.2}"),
            Limit::AtMost(most) => format!("at most {most:.2}"),
        };
        let met = if self.met { "met" } else { "missed" };
        write!(f, "{:<44} {}; {limit}: {met}", self.what, self.spread.text(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_one_or_between_the_middle_two() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(Spread::of([7.0]).median, 7.0);
        assert_eq!(Spread::of([]), Spread { median: 0.0, min: 0.0, max: 0.0 });
    }

    #[test]
    fn a_bound_holds_the_median_and_says_so() {
        let met = Bound::new("ratio", Limit::AtLeast(1.3), [1.2, 1.4, 1.5]);
        assert!(met.met);
        assert!(met.to_string().ends_with("1.40 (1.20 to 1.50); at least 1.30: met"), "{met}");
        let missed = Bound::new("ratio", Limit::AtMost(1.25), [1.2, 1.4, 1.5]);
        assert!(!missed.met && missed.to_string().ends_with("at most 1.25: missed"), "{missed}");
    }
}
