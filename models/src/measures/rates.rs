//! What a threshold does: counts, rates, and how sure a rate is.

use super::Interval;

/// Rows by what they are and what is said of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub true_positives: u64,
    pub false_positives: u64,
    pub false_negatives: u64,
    pub true_negatives: u64,
}

/// A rate of nothing is none.
impl Counts {
    pub fn rows(&self) -> u64 {
        self.flagged() + self.false_negatives + self.true_negatives
    }

    pub fn positives(&self) -> u64 {
        self.true_positives + self.false_negatives
    }

    pub fn flagged(&self) -> u64 {
        self.true_positives + self.false_positives
    }

    /// Of those flagged, how many are positive.
    pub fn precision(&self) -> Option<f64> {
        rate(self.true_positives, self.flagged())
    }

    /// Of the positives, how many are flagged.
    pub fn recall(&self) -> Option<f64> {
        rate(self.true_positives, self.positives())
    }

    /// The harmonic mean of both; 0 where nothing flagged is positive.
    pub fn f1(&self) -> Option<f64> {
        rate(2 * self.true_positives, self.positives() + self.flagged())
    }

    pub fn flagged_rate(&self) -> Option<f64> {
        rate(self.flagged(), self.rows())
    }
}

fn rate(of: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| of as f64 / all as f64)
}

/// The two-sided 5 % point of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// Wilson's 95 % interval of a rate; for few rows, and near 0 and 1, better than the textbook's.
pub fn wilson(of: u64, all: u64) -> Option<Interval> {
    let p = rate(of, all)?;
    let n = all as f64;
    let middle = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let low = if of == 0 { 0.0 } else { middle - half };
    let high = if of == all { 1.0 } else { middle + half };
    Some(Interval { low, high })
}
