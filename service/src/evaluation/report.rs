//! What a report says: measures of each series, as tables, JSON and a picture show them.

use serde::Serialize;
use shieldgate_models::measures::{
    self, Counts, Interval, MeasureError, Ranking, RocPoint, Samples, Scored, wilson,
};

use crate::verdict::PolicyNotRun;

/// Bins of the calibration.
const BINS: usize = 10;

/// Rows that got no answer are all counted; so many are told.
const TOLD_MAX: usize = 10;

/// Rows without an answer, and why the first of them have none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Unanswered {
    pub rows: u64,
    pub first: Vec<String>,
}

impl Unanswered {
    pub(super) fn add(&mut self, place: &str, reason: &str) {
        self.rows += 1;
        if self.first.len() < TOLD_MAX {
            self.first.push(format!("{place}: {reason}"));
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub data: String,
    pub runtime: String,
    pub device: String,
    pub rows: u64,
    /// Judged, and held against nothing.
    pub unlabelled: u64,
    /// Rows that the gate would refuse.
    pub refused: Unanswered,
    /// Rows for which a judge of some policy failed.
    pub failed: Unanswered,
    /// They count for *any harm* alone.
    pub labels_of_no_policy: Vec<String>,
    pub policies_not_run: Vec<PolicyNotRun>,
    pub judges: Vec<Answerer>,
    /// Drawn for each interval that is no rate's.
    pub samples: usize,
    /// A policy by a judge each.
    pub series: Vec<Measured>,
    /// Whether a row is harmful at all, by the worst of the policies' probabilities, and by
    /// `1 − Π (1 − p)` of them.
    pub any_harm: Vec<Measured>,
    /// What all policies' actions together do about harm.
    pub gate: Gate,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answerer {
    pub name: String,
    pub digest: String,
    pub demo: bool,
}

/// Flagged at a review or a block, and at a block alone.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Gate {
    pub review: Rates,
    pub block: Rates,
}

/// A number, and where it would be with other rows in 95 of 100 cases.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    pub value: f64,
    #[serde(flatten)]
    pub interval: Option<Interval>,
}

/// How good one series of probabilities is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judge: Option<String>,
    /// How the policies' probabilities became one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<&'static str>,
    /// Those with a label.
    pub rows: u64,
    pub positives: u64,
    /// Null where there are only positives or only negatives.
    pub au_prc: Option<Estimate>,
    pub auroc: Option<Estimate>,
    pub thresholds: Vec<AtThreshold>,
    pub calibration: Calibration,
    /// For the picture.
    #[serde(skip)]
    pub curves: Curves,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AtThreshold {
    /// `review`, `block`: the policy's own. `best F1`: the best on these very rows, so better than it would be
    /// on others.
    pub name: &'static str,
    pub threshold: f64,
    #[serde(flatten)]
    pub rates: Rates,
}

/// Null is a rate of nothing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rates {
    pub true_positives: u64,
    pub false_positives: u64,
    pub false_negatives: u64,
    pub true_negatives: u64,
    pub precision: Option<Estimate>,
    pub recall: Option<Estimate>,
    pub f1: Option<Estimate>,
    pub flagged: Option<Estimate>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Calibration {
    pub expected_error: Option<f64>,
    pub brier: Option<f64>,
    pub bins: Vec<Bin>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bin {
    pub from: f64,
    pub to: f64,
    pub rows: u64,
    pub positives: u64,
    pub mean_probability: Option<f64>,
    pub observed: Option<Estimate>,
}

/// Points of both curves, as many as a picture can show.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curves {
    /// Recall, precision.
    pub precision_recall: Vec<(f64, f64)>,
    /// False positives, true positives.
    pub roc: Vec<(f64, f64)>,
}

impl Rates {
    pub(super) fn of(counts: Counts, f1: Option<Interval>) -> Self {
        let Counts { true_positives, false_positives, false_negatives, true_negatives } = counts;
        let rate =
            |value: Option<f64>, of, all| value.map(|value| Estimate { value, interval: wilson(of, all) });
        Self {
            true_positives,
            false_positives,
            false_negatives,
            true_negatives,
            precision: rate(counts.precision(), true_positives, counts.flagged()),
            recall: rate(counts.recall(), true_positives, counts.positives()),
            f1: counts.f1().map(|value| Estimate { value, interval: f1 }),
            flagged: rate(counts.flagged_rate(), counts.flagged(), counts.rows()),
        }
    }
}

impl Measured {
    pub(super) fn of(
        rows: &[Scored],
        thresholds: &[(&'static str, f32)],
        samples: Samples,
    ) -> Result<Self, MeasureError> {
        let ranking = Ranking::new(rows)?;
        let own = thresholds.iter().map(|(name, threshold)| (*name, f64::from(*threshold)));
        let best = ranking.best_f1().map(|best| ("best F1", best.threshold));
        let thresholds: Vec<(&'static str, f64)> = own.chain(best).collect();
        let values: Vec<f64> = thresholds.iter().map(|(_, threshold)| *threshold).collect();
        let around = measures::intervals(&ranking, &values, samples);
        let areas = ranking.areas();
        let estimate = |value: Option<f64>, interval| value.map(|value| Estimate { value, interval });
        let thresholds = thresholds.into_iter().enumerate().map(|(at, (name, threshold))| {
            let f1 = around.as_ref().and_then(|around| around.f1.get(at).copied());
            AtThreshold { name, threshold, rates: Rates::of(ranking.at(threshold), f1) }
        });
        Ok(Self {
            policy: None,
            version: None,
            judge: None,
            score: None,
            rows: ranking.rows() as u64,
            positives: ranking.positives() as u64,
            au_prc: estimate(
                areas.map(|areas| areas.precision_recall),
                around.as_ref().map(|around| around.precision_recall),
            ),
            auroc: estimate(areas.map(|areas| areas.roc), around.as_ref().map(|around| around.roc)),
            thresholds: thresholds.collect(),
            calibration: Calibration::of(rows),
            curves: Curves::of(&ranking),
        })
    }

    /// As tables and pictures call it; `all` are those it must be told apart from.
    pub fn name(&self, all: &[Self]) -> String {
        match (&self.policy, &self.judge, self.score) {
            (Some(policy), Some(judge), _) => {
                let alone = all.iter().filter(|other| other.policy == self.policy).count() == 1;
                if alone { policy.clone() } else { format!("{policy} ({judge})") }
            }
            (_, _, Some(score)) => format!("any harm, {score}"),
            _ => String::new(),
        }
    }
}

impl Calibration {
    fn of(rows: &[Scored]) -> Self {
        let found = measures::calibration(rows, BINS);
        let bin = |bin: measures::Bin| Bin {
            from: bin.from,
            to: bin.to,
            rows: bin.rows,
            positives: bin.positives,
            mean_probability: bin.mean_probability,
            observed: bin.observed.map(|value| Estimate { value, interval: bin.interval }),
        };
        Self {
            expected_error: found.expected_error,
            brier: found.brier,
            bins: found.bins.into_iter().map(bin).collect(),
        }
    }
}

impl Curves {
    fn of(ranking: &Ranking) -> Self {
        if ranking.areas().is_none() {
            return Self::default();
        }
        let step = |step: &measures::Step| Some((step.counts.recall()?, step.counts.precision()?));
        let roc = |point: &RocPoint| (point.false_positives, point.true_positives);
        Self {
            precision_recall: thinned(ranking.steps().iter().filter_map(step).collect()),
            roc: thinned(ranking.roc().iter().map(roc).collect()),
        }
    }
}

/// Without points that lie where the one before lies, as far as a picture tells; the ends stay.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    const NEAR: f64 = 1.0 / 400.0;
    let last = points.last().copied();
    let mut kept: Vec<(f64, f64)> = Vec::new();
    for point in points {
        let near = |kept: &(f64, f64)| (kept.0 - point.0).abs() < NEAR && (kept.1 - point.1).abs() < NEAR;
        if !kept.last().is_some_and(near) {
            kept.push(point);
        }
    }
    if kept.last().copied() != last {
        kept.extend(last);
    }
    kept
}
