//! Recall or judge: what is on record is taken, the rest is asked, one job a judge.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use shieldgate_models::{Failure, Probability, Question};
use time::OffsetDateTime;
use tracing::Instrument as _;

use super::decide::{self, Answered, Undecided};
use super::{ModerateError, Moderator};
use crate::policy::active::ActivePolicy;
use crate::scheduler::{Lane, Refused, Scored, Views};
use crate::store;
use crate::store::judgements::{Judgement, Recall};
use crate::store::overrides::Override;
use crate::verdict::{ComputedOn, Facts, PolicyAnswer, PolicyNotRun};

/// Who decides which policy: an override, judges, or nobody.
pub(super) struct Plan<'a> {
    overridden: Vec<(&'a ActivePolicy, &'a Override)>,
    pub(super) asked: Vec<&'a ActivePolicy>,
    pub(super) not_run: Vec<PolicyNotRun>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(selected: &[&'a ActivePolicy], overrides: &'a [Override]) -> Self {
        let mut plan = Self { overridden: Vec::new(), asked: Vec::new(), not_run: Vec::new() };
        for active in selected {
            match (decide::override_for(&active.policy.id, overrides), active.not_run()) {
                (Some(by), _) => plan.overridden.push((active, by)),
                (None, Some(reason)) => plan.not_run.push(reason),
                (None, None) => plan.asked.push(active),
            }
        }
        plan
    }

    /// What shadow versions ask; an override leaves nothing to compare.
    pub(super) fn of_shadows(shadows: &'a [ActivePolicy], overrides: &'a [Override]) -> Self {
        let asked = shadows.iter().filter(|shadow| {
            !shadow.asked.is_empty() && decide::override_for(&shadow.policy.id, overrides).is_none()
        });
        Self { overridden: Vec::new(), asked: asked.collect(), not_run: Vec::new() }
    }

    /// Nobody decides anything.
    pub(super) fn is_empty(&self) -> bool {
        self.overridden.is_empty() && self.asked.is_empty()
    }

    /// Why policies are not run.
    pub(super) fn reasons(&self) -> String {
        let why = |policy: &PolicyNotRun| format!("`{}`: {}", policy.policy, policy.reason);
        let reasons: Vec<String> = self.not_run.iter().map(why).collect();
        if reasons.is_empty() { "no policy is active".to_owned() } else { reasons.join("; ") }
    }
}

/// What step 4 found for one (judge, question).
#[derive(Debug, Clone)]
pub(super) struct Found {
    result: Result<Scored, Failure>,
    recalled: bool,
    computed_on: Option<ComputedOn>,
}

pub(super) type Findings = HashMap<(String, store::Sha256), Found>;

/// What was on record, and what was not.
#[derive(Default)]
pub(super) struct Recalled<'p> {
    pub(super) findings: Findings,
    /// By judge, what must be asked.
    pub(super) missing: HashMap<&'p str, Vec<Question>>,
    /// What is in the bytes; only where nothing must be asked, so that nobody need look at them.
    pub(super) facts: Option<Facts>,
}

impl Moderator {
    /// Those that this project had made itself. `facts`, if on record, count where nothing is left to ask: else
    /// they could tell of another project's upload.
    pub(super) async fn recall<'p>(
        &self,
        project: &str,
        sha256: &store::Sha256,
        plan: &'p Plan<'_>,
        facts: Option<Facts>,
    ) -> Result<Recalled<'p>, ModerateError> {
        let mut recalled = Recalled::default();
        let wanted: Vec<(&str, store::Sha256, &Question)> = plan
            .asked
            .iter()
            .flat_map(|active| &active.asked)
            .filter_map(|asked| {
                let card = self.scheduler.judge(&asked.judge.name)?.card();
                Some((asked.judge.name.as_str(), *card.digest.as_bytes(), &asked.question))
            })
            .collect();
        if wanted.is_empty() {
            return Ok(recalled);
        }
        let mut pairs: Vec<_> =
            wanted.iter().map(|(_, digest, question)| (*digest, *question.hash.as_bytes())).collect();
        pairs.sort_unstable();
        pairs.dedup();
        let recall = Recall { project: project.to_owned(), sha256: *sha256, asked: pairs };
        let on_record = self.recalls.ask(recall).instrument(tracing::info_span!("recall")).await?;
        for (name, digest, question) in wanted {
            let hash = *question.hash.as_bytes();
            let found = on_record.iter().find(|j| j.judge_digest == digest && j.question_hash == hash);
            match found.and_then(|judgement| Some((scored(judgement)?, self.elsewhere(judgement)))) {
                Some((scored, computed_on)) => {
                    let found = Found { result: Ok(scored), recalled: true, computed_on };
                    recalled.findings.insert((name.to_owned(), hash), found);
                }
                None => {
                    let questions = recalled.missing.entry(name).or_default();
                    if !questions.iter().any(|other| other.hash == question.hash) {
                        questions.push(question.clone());
                    }
                }
            }
        }
        // Limits may have become narrower since.
        recalled.facts = facts.filter(|facts| self.admits(&facts.content) && recalled.missing.is_empty());
        Ok(recalled)
    }

    /// Asks what was not on record.
    pub(super) async fn judge(
        &self,
        (lane, deadline): (Lane, Instant),
        recalled: Recalled<'_>,
        views: Arc<Views>,
    ) -> Result<Findings, ModerateError> {
        let Recalled { mut findings, missing, .. } = recalled;
        let asking = missing.into_iter().map(|(name, questions)| {
            let views = Arc::clone(&views);
            async move {
                let asking = self.scheduler.ask(name, lane, views, questions.clone(), deadline);
                let answers = asking.await?;
                Ok::<_, Refused>((name, questions, answers))
            }
        });
        let answered =
            futures_util::future::try_join_all(asking).await.map_err(|refused| self.busy(lane, refused))?;
        for (name, questions, answers) in answered {
            for (question, result) in questions.into_iter().zip(answers) {
                let key = (name.to_owned(), *question.hash.as_bytes());
                findings.insert(key, Found { result, recalled: false, computed_on: None });
            }
        }
        Ok(findings)
    }

    pub(super) fn decide(
        &self,
        plan: &Plan<'_>,
        findings: &Findings,
    ) -> Result<Vec<PolicyAnswer>, Undecided> {
        let mut answers: Vec<PolicyAnswer> =
            plan.overridden.iter().map(|(active, by)| decide::overridden(active, by)).collect();
        for active in &plan.asked {
            answers.push(decide::decide(active, self.answered(active, findings))?);
        }
        answers.sort_by(|a, b| a.policy.cmp(&b.policy));
        Ok(answers)
    }

    /// What was found for one policy, in the order of its judges.
    pub(super) fn answered<'a>(&'a self, active: &ActivePolicy, findings: &Findings) -> Vec<Answered<'a>> {
        let mut answered = Vec::with_capacity(active.asked.len());
        for asked in &active.asked {
            let Some(judge) = self.scheduler.judge(&asked.judge.name) else { continue };
            let key = (asked.judge.name.clone(), *asked.question.hash.as_bytes());
            let found = findings.get(&key).cloned().unwrap_or_else(|| Found {
                result: Err(Failure::Runtime("the judge was not asked".to_owned())),
                recalled: false,
                computed_on: None,
            });
            answered.push(Answered {
                card: judge.card(),
                result: found.result,
                recalled: found.recalled,
                computed_on: found.computed_on,
            });
        }
        answered
    }

    /// The judgements that this submission added; only successes are kept.
    pub(super) fn fresh(&self, findings: &Findings, now: OffsetDateTime) -> Vec<Judgement> {
        let fresh = findings.iter().filter(|(_, found)| !found.recalled);
        fresh
            .filter_map(|((name, question_hash), found)| {
                let scored = found.result.as_ref().ok()?;
                Some(Judgement {
                    judge_digest: *self.scheduler.judge(name)?.card().digest.as_bytes(),
                    question_hash: *question_hash,
                    probability: scored.probability.get(),
                    worst: Some(scored.worst.clone()),
                    frames: scored.frames.clone(),
                    runtime: self.config.runtime.clone(),
                    device: self.config.device.clone(),
                    at: now,
                })
            })
            .collect()
    }

    fn elsewhere(&self, judgement: &Judgement) -> Option<ComputedOn> {
        let here = judgement.runtime == self.config.runtime && judgement.device == self.config.device;
        (!here).then(|| ComputedOn { runtime: judgement.runtime.clone(), device: judgement.device.clone() })
    }
}

fn scored(judgement: &Judgement) -> Option<Scored> {
    Some(Scored {
        probability: Probability::try_from(judgement.probability).ok()?,
        worst: judgement.worst.clone()?,
        frames: judgement.frames.clone(),
    })
}
