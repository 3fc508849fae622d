//! How far a measure would move with other rows: samples drawn again and again from those there are.
//!
//! Stratified: each sample has as many positives and negatives as there are, drawn with replacement. The
//! interval is that of the samples' percentiles.

use super::{Areas, MeasureError, Ranking, Scored};
use crate::seeded::Seeded;

/// What is between its ends in 95 of 100 samples.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Samples {
    pub count: usize,
    pub seed: u64,
}

impl Default for Samples {
    fn default() -> Self {
        Self { count: 2000, seed: 1 }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Intervals {
    pub precision_recall: Interval,
    pub roc: Interval,
    /// Of F1 at each of the thresholds.
    pub f1: Vec<Interval>,
}

/// By how much one scoring is better than another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    pub by: f64,
    pub interval: Interval,
    /// Of the samples, the share in which it is above 0.
    pub better: f64,
}

/// None where there are only positives or only negatives, or no samples are wanted.
pub fn intervals(ranking: &Ranking, thresholds: &[f64], samples: Samples) -> Option<Intervals> {
    let mut draws = Draws::new(ranking.positive(), samples.seed);
    let (mut precision_recall, mut roc) = (Vec::new(), Vec::new());
    let mut f1: Vec<Vec<f64>> = vec![Vec::new(); thresholds.len()];
    for _ in 0..samples.count {
        let times = draws.next();
        let areas = ranking.areas_of(times)?;
        precision_recall.push(areas.precision_recall);
        roc.push(areas.roc);
        for (threshold, f1) in thresholds.iter().zip(&mut f1) {
            f1.push(ranking.at_of(*threshold, times).f1().unwrap_or_default());
        }
    }
    Some(Intervals {
        precision_recall: interval(precision_recall)?,
        roc: interval(roc)?,
        f1: f1.into_iter().map(interval).collect::<Option<_>>()?,
    })
}

/// How much better `one` is than `other` in both areas, on the same rows in the same order. None where there
/// are only positives or only negatives.
pub fn difference(
    one: &[Scored],
    other: &[Scored],
    samples: Samples,
) -> Result<Option<[Difference; 2]>, MeasureError> {
    let apart =
        |row: &usize| one.get(*row).map(|row| row.positive) != other.get(*row).map(|row| row.positive);
    if let Some(row) = (0..one.len().max(other.len())).find(apart) {
        return Err(MeasureError::OtherRows { row });
    }
    let (one, other) = (Ranking::new(one)?, Ranking::new(other)?);
    let mut draws = Draws::new(one.positive(), samples.seed);
    let mut found: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    let both = |times: &[u32]| Some((one.areas_of(times)?, other.areas_of(times)?));
    for _ in 0..samples.count {
        let Some((a, b)) = both(draws.next()) else { return Ok(None) };
        found.iter_mut().zip(apart_by(a, b)).for_each(|(found, by)| found.push(by));
    }
    let Some((a, b)) = both(&vec![1; one.rows()]) else { return Ok(None) };
    let [precision_recall, roc] = apart_by(a, b);
    let [of_precision_recall, of_roc] = found;
    let difference = |by: f64, found: Vec<f64>| {
        let better = found.iter().filter(|by| **by > 0.0).count() as f64 / found.len() as f64;
        Some(Difference { by, better, interval: interval(found)? })
    };
    let both = [difference(precision_recall, of_precision_recall), difference(roc, of_roc)];
    Ok(match both {
        [Some(precision_recall), Some(roc)] => Some([precision_recall, roc]),
        _ => None,
    })
}

fn apart_by(one: Areas, other: Areas) -> [f64; 2] {
    [one.precision_recall - other.precision_recall, one.roc - other.roc]
}

/// Samples of rows, each as how often every row is in it.
struct Draws {
    strata: [Vec<usize>; 2],
    times: Vec<u32>,
    seeded: Seeded,
}

impl Draws {
    fn new(positive: &[bool], seed: u64) -> Self {
        let of =
            |wanted: bool| (0..).zip(positive).filter(|(_, is)| **is == wanted).map(|(row, _)| row).collect();
        Self { strata: [of(true), of(false)], times: vec![0; positive.len()], seeded: Seeded::new(seed) }
    }

    fn next(&mut self) -> &[u32] {
        self.times.fill(0);
        for rows in &self.strata {
            for _ in 0..rows.len() {
                let drawn = rows.get(self.seeded.below(rows.len()));
                if let Some(times) = drawn.and_then(|row| self.times.get_mut(*row)) {
                    *times += 1;
                }
            }
        }
        &self.times
    }
}

/// The 2.5th and 97.5th percentile, between two samples in proportion.
fn interval(mut found: Vec<f64>) -> Option<Interval> {
    found.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| {
        let place = share * found.len().checked_sub(1)? as f64;
        let (below, part) = (place.floor() as usize, place.fract());
        let low = found.get(below)?;
        let high = found.get(below + 1).unwrap_or(low);
        Some(low + (high - low) * part)
    };
    Some(Interval { low: at(0.025)?, high: at(0.975)? })
}
