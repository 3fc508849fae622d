//! How good a judge's probabilities are against labels: rates, areas under curves, calibration, intervals.
//!
//! Pure; samples are drawn from a seed, so that the same rows give the same numbers.

mod bootstrap;
mod calibration;
mod ranking;
mod rates;

pub use bootstrap::{Difference, Interval, Intervals, Samples, difference, intervals};
pub use calibration::{Bin, Calibration, calibration};
pub use ranking::{Areas, Ranking, RocPoint, Step};
pub use rates::{Counts, wilson};

/// One probability, and whether the row is in truth what it is the probability of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    pub probability: f64,
    pub positive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum MeasureError {
    #[error("row {row}: `{found}` is not a probability: expected a finite number in 0..=1")]
    NotAProbability { row: usize, found: f64 },
    #[error("two scorings are compared on the same rows: row {row} is not the same in both")]
    OtherRows { row: usize },
}
