//! What a run keeps of its rows: probabilities beside labels, and how many rows got no answer.

use serde::Serialize;
use shieldgate_models::measures::{Counts, MeasureError, Samples, Scored};

use super::report::{Gate, Measured, Rates, Report, Unanswered};
use super::{Labels, RowAnswer};
use crate::policy::active::ActivePolicy;
use crate::verdict::{Action, PolicyAnswer, Thresholds};

/// What of a run is kept: probabilities and labels.
#[derive(Debug, Default)]
pub struct Collected {
    series: Vec<Series>,
    any_harm: [Vec<Scored>; 2],
    /// What the gate would have done: at least a review, and a block.
    gate: [Counts; 2],
    rows: u64,
    unlabelled: u64,
    refused: Unanswered,
    failed: Unanswered,
}

/// One policy by one judge.
#[derive(Debug)]
struct Series {
    policy: String,
    version: String,
    judge: String,
    thresholds: Thresholds,
    scored: Vec<Scored>,
}

/// A probability that a policy's judge gave, and the label it is held against.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Score<'a> {
    pub policy: &'a str,
    pub judge: &'a str,
    pub probability: f32,
    /// None where nobody labelled the row for this policy.
    pub label: Option<bool>,
}

impl Collected {
    pub fn new(policies: &[ActivePolicy]) -> Self {
        let mut collected = Self::default();
        for active in policies {
            for asked in &active.asked {
                collected.series.push(Series {
                    policy: active.policy.id.clone(),
                    version: active.version.clone(),
                    judge: asked.judge.name.clone(),
                    thresholds: asked.judge.thresholds,
                    scored: Vec::new(),
                });
            }
        }
        collected
    }

    /// One row; `score` is told each probability.
    pub fn add<'a>(
        &mut self,
        policies: &'a [ActivePolicy],
        place: &str,
        labels: &Labels,
        answer: &'a RowAnswer,
        score: &mut dyn FnMut(Score<'a>),
    ) {
        self.rows += 1;
        let answers = match answer {
            RowAnswer::Refused(reason) => return self.refused.add(place, reason),
            RowAnswer::Judged(answers) => answers,
        };
        if labels.harm().is_none() {
            self.unlabelled += 1;
        }
        let mut series = self.series.iter_mut();
        let mut whole: Vec<&PolicyAnswer> = Vec::new();
        let mut failure = None;
        for (active, answer) in policies.iter().zip(answers) {
            let label = labels.of_policy(&active.policy);
            let own: Vec<&mut Series> = series.by_ref().take(active.asked.len()).collect();
            let answer = match answer {
                Ok(answer) => answer,
                Err(reason) => {
                    failure.get_or_insert(reason);
                    continue;
                }
            };
            whole.push(answer);
            for (series, judge) in own.into_iter().zip(&answer.judges) {
                let Some(probability) = judge.probability else { continue };
                score(Score { policy: &answer.policy, judge: &judge.name, probability, label });
                if let Some(positive) = label {
                    series.scored.push(Scored { probability: f64::from(probability), positive });
                }
            }
        }
        match (failure, labels.harm()) {
            (Some(reason), _) => self.failed.add(place, reason),
            (None, Some(harmful)) => self.add_harm(&whole, harmful),
            (None, None) => {}
        }
    }

    /// All policies together.
    fn add_harm(&mut self, answers: &[&PolicyAnswer], positive: bool) {
        let of = |answer: &&PolicyAnswer| {
            let judges = answer.judges.iter().filter_map(|judge| judge.probability);
            judges.map(f64::from).fold(0.0, f64::max)
        };
        let worst = answers.iter().map(of).fold(0.0, f64::max);
        let none = answers.iter().map(of).map(|p| 1.0 - p).product::<f64>();
        for (scored, probability) in self.any_harm.iter_mut().zip([worst, 1.0 - none]) {
            scored.push(Scored { probability, positive });
        }
        let action = answers.iter().map(|answer| answer.action).max().unwrap_or(Action::Allow);
        for (counts, at) in self.gate.iter_mut().zip([Action::Review, Action::Block]) {
            *match (action >= at, positive) {
                (true, true) => &mut counts.true_positives,
                (true, false) => &mut counts.false_positives,
                (false, true) => &mut counts.false_negatives,
                (false, false) => &mut counts.true_negatives,
            } += 1;
        }
    }

    /// Takes a quarter of a second for a series of 5000 rows and 2000 samples.
    pub fn report(&self, samples: usize) -> Result<Report, MeasureError> {
        let samples = Samples { count: samples, ..Samples::default() };
        let mut series = Vec::new();
        for one in &self.series {
            let thresholds = [("review", one.thresholds.review), ("block", one.thresholds.block)];
            let mut measured = Measured::of(&one.scored, &thresholds, samples)?;
            measured.policy = Some(one.policy.clone());
            measured.version = Some(one.version.clone());
            measured.judge = Some(one.judge.clone());
            series.push(measured);
        }
        let mut any_harm = Vec::new();
        for (scored, name) in self.any_harm.iter().zip(["worst", "noisy-or"]) {
            let mut measured = Measured::of(scored, &[], samples)?;
            measured.score = Some(name);
            any_harm.push(measured);
        }
        let [review, block] = self.gate.map(|counts| Rates::of(counts, None));
        Ok(Report {
            data: String::new(),
            runtime: String::new(),
            device: String::new(),
            rows: self.rows,
            unlabelled: self.unlabelled,
            refused: self.refused.clone(),
            failed: self.failed.clone(),
            labels_of_no_policy: Vec::new(),
            policies_not_run: Vec::new(),
            judges: Vec::new(),
            samples: samples.count,
            series,
            any_harm,
            gate: Gate { review, block },
        })
    }
}
