//! Rows from the highest probability to the lowest, and what can be read from that order.

use super::{Counts, MeasureError, Scored};

/// Rows of one probability are told apart by nothing: a threshold takes all of them or none.
#[derive(Debug, Clone)]
pub struct Ranking {
    /// In the caller's order.
    positive: Vec<bool>,
    /// Numbers of rows, from the highest probability down.
    order: Vec<usize>,
    /// Each probability that occurs, and where in `order` its rows end.
    ties: Vec<(f64, usize)>,
    positives: usize,
}

/// Under the curve of precision over recall, and of true over false positives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Areas {
    /// Average precision, without interpolation.
    pub precision_recall: f64,
    /// How often a positive stands above a negative, ties half.
    pub roc: f64,
}

/// The counts at one of the probabilities that occur.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    pub threshold: f64,
    pub counts: Counts,
}

/// A point of the curve of true over false positives, as rates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RocPoint {
    pub false_positives: f64,
    pub true_positives: f64,
}

impl Ranking {
    pub fn new(rows: &[Scored]) -> Result<Self, MeasureError> {
        let odd = rows.iter().position(|row| !(0.0..=1.0).contains(&row.probability));
        if let Some((row, scored)) = odd.and_then(|row| Some((row, rows.get(row)?))) {
            return Err(MeasureError::NotAProbability { row, found: scored.probability });
        }
        let mut sorted: Vec<(f64, usize)> = rows.iter().map(|row| row.probability).zip(0..).collect();
        sorted.sort_unstable_by(|(a, first), (b, second)| b.total_cmp(a).then_with(|| first.cmp(second)));
        let mut ties: Vec<(f64, usize)> = Vec::new();
        for (end, (probability, _)) in (1..).zip(&sorted) {
            match ties.last_mut() {
                Some(tie) if tie.0 == *probability => tie.1 = end,
                _ => ties.push((*probability, end)),
            }
        }
        let positive: Vec<bool> = rows.iter().map(|row| row.positive).collect();
        let positives = positive.iter().filter(|positive| **positive).count();
        let order = sorted.into_iter().map(|(_, row)| row).collect();
        Ok(Self { positive, order, ties, positives })
    }

    pub fn rows(&self) -> usize {
        self.order.len()
    }

    pub fn positives(&self) -> usize {
        self.positives
    }

    pub(super) fn positive(&self) -> &[bool] {
        &self.positive
    }

    /// None where there are only positives or only negatives.
    pub fn areas(&self) -> Option<Areas> {
        self.areas_of(&vec![1; self.rows()])
    }

    /// With each row so often.
    pub(super) fn areas_of(&self, times: &[u32]) -> Option<Areas> {
        let (mut true_positives, mut false_positives) = (0_u64, 0_u64);
        let (mut precise, mut above) = (0.0, 0.0);
        for (_, rows) in self.groups() {
            let (mut positives, mut negatives) = (0_u64, 0_u64);
            for row in rows {
                let [count, positive] = self.row(*row, times);
                positives += count * positive;
                negatives += count * (1 - positive);
            }
            above += negatives as f64 * (true_positives as f64 + positives as f64 / 2.0);
            true_positives += positives;
            false_positives += negatives;
            if positives > 0 {
                let precision = true_positives as f64 / (true_positives + false_positives) as f64;
                precise += positives as f64 * precision;
            }
        }
        let (positives, negatives) = (true_positives as f64, false_positives as f64);
        (positives > 0.0 && negatives > 0.0)
            .then(|| Areas { precision_recall: precise / positives, roc: above / (positives * negatives) })
    }

    /// How often a row counts, and 1 for a positive.
    fn row(&self, row: usize, times: &[u32]) -> [u64; 2] {
        let count = times.get(row).copied().unwrap_or_default();
        let positive = self.positive.get(row).copied().unwrap_or_default();
        [u64::from(count), u64::from(positive)]
    }

    /// Rows of one probability each.
    fn groups(&self) -> impl Iterator<Item = (f64, &[usize])> {
        let starts = [0].into_iter().chain(self.ties.iter().map(|(_, end)| *end));
        let each = starts.zip(&self.ties);
        each.map(|(start, (probability, end))| {
            (*probability, self.order.get(start..*end).unwrap_or_default())
        })
    }

    /// Flagged is what is at or above the threshold.
    pub fn at(&self, threshold: f64) -> Counts {
        self.at_of(threshold, &vec![1; self.rows()])
    }

    /// [`Self::at`] with each row so often.
    pub(super) fn at_of(&self, threshold: f64, times: &[u32]) -> Counts {
        let flagged = self.flagged(threshold);
        let mut counts = Counts::default();
        for (place, row) in self.order.iter().enumerate() {
            let [count, positive] = self.row(*row, times);
            let to = match (place < flagged, positive == 1) {
                (true, true) => &mut counts.true_positives,
                (true, false) => &mut counts.false_positives,
                (false, true) => &mut counts.false_negatives,
                (false, false) => &mut counts.true_negatives,
            };
            *to += count;
        }
        counts
    }

    /// How many rows are at or above it.
    fn flagged(&self, threshold: f64) -> usize {
        let above = self.ties.partition_point(|(probability, _)| *probability >= threshold);
        above.checked_sub(1).and_then(|last| self.ties.get(last)).map_or(0, |(_, end)| *end)
    }

    /// At each probability that occurs, from the highest down.
    pub fn steps(&self) -> Vec<Step> {
        let all = (self.rows() as u64, self.positives as u64);
        let (mut true_positives, mut false_positives) = (0, 0);
        let step = |(threshold, rows): (f64, &[usize])| {
            let positive = |row: &&usize| self.positive.get(**row).copied().unwrap_or_default();
            let positives = rows.iter().filter(positive).count() as u64;
            true_positives += positives;
            false_positives += rows.len() as u64 - positives;
            let counts = Counts {
                true_positives,
                false_positives,
                false_negatives: all.1 - true_positives,
                true_negatives: all.0 - all.1 - false_positives,
            };
            Step { threshold, counts }
        };
        self.groups().map(step).collect()
    }

    /// The threshold with the best F1, of several the highest; None where there is no positive.
    pub fn best_f1(&self) -> Option<Step> {
        let mut best: Option<(f64, Step)> = None;
        for step in self.steps() {
            let f1 = step.counts.f1().unwrap_or_default();
            if f1 > best.map_or(0.0, |(best, _)| best) {
                best = Some((f1, step));
            }
        }
        best.map(|(_, step)| step)
    }

    /// From nothing flagged to everything; empty where there are only positives or only negatives.
    pub fn roc(&self) -> Vec<RocPoint> {
        let negatives = (self.rows() - self.positives) as f64;
        if self.positives == 0 || negatives == 0.0 {
            return Vec::new();
        }
        let point = |counts: Counts| RocPoint {
            false_positives: counts.false_positives as f64 / negatives,
            true_positives: counts.true_positives as f64 / self.positives as f64,
        };
        let steps = self.steps().into_iter().map(|step| step.counts);
        [Counts::default()].into_iter().chain(steps).map(point).collect()
    }
}
