//! Whether probabilities mean what they say: of what is called 0.3, three in ten should be positive.

use super::{Interval, Scored, wilson};

/// Rows whose probabilities are alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bin {
    pub from: f64,
    /// Excluded, but for the last.
    pub to: f64,
    pub rows: u64,
    pub positives: u64,
    /// None in an empty bin.
    pub mean_probability: Option<f64>,
    pub observed: Option<f64>,
    /// Of `observed`.
    pub interval: Option<Interval>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    pub bins: Vec<Bin>,
    /// How far a bin's mean probability and observed rate are apart, on the average row; None without rows.
    pub expected_error: Option<f64>,
    /// The mean square of what probabilities and labels are apart.
    pub brier: Option<f64>,
}

/// In so many bins of equal width, at least one.
pub fn calibration(rows: &[Scored], bins: usize) -> Calibration {
    let bins = bins.max(1);
    let mut found = vec![(0_u64, 0_u64, 0.0); bins];
    let mut squares = 0.0;
    for row in rows {
        let label = f64::from(u8::from(row.positive));
        squares += (row.probability - label).powi(2);
        // A cast keeps what is above the last bin, and what is no number, within them.
        let place = ((row.probability * bins as f64) as usize).min(bins - 1);
        if let Some((count, positives, sum)) = found.get_mut(place) {
            *count += 1;
            *positives += u64::from(row.positive);
            *sum += row.probability;
        }
    }
    let all = rows.len() as f64;
    let bin = |(place, (rows, positives, sum)): (usize, (u64, u64, f64))| {
        let mean = |of: f64| (rows > 0).then(|| of / rows as f64);
        Bin {
            from: place as f64 / bins as f64,
            to: (place + 1) as f64 / bins as f64,
            rows,
            positives,
            mean_probability: mean(sum),
            observed: mean(positives as f64),
            interval: wilson(positives, rows),
        }
    };
    let bins: Vec<Bin> = found.into_iter().enumerate().map(bin).collect();
    let apart = bins
        .iter()
        .filter_map(|bin| Some(bin.rows as f64 / all * (bin.mean_probability? - bin.observed?).abs()));
    let expected_error = (!rows.is_empty()).then(|| apart.sum());
    let brier = (!rows.is_empty()).then(|| squares / all);
    Calibration { bins, expected_error, brier }
}
