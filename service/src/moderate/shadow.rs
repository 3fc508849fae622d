//! Shadow versions: judged in the bulk lane after the answer has gone out, recorded beside it, without effect.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use uuid::Uuid;

use super::judging::Plan;
use super::{ModerateError, Moderator, Original, Submission, decide, record};
use crate::policy::Modality;
use crate::policy::active::ActivePolicy;
use crate::scheduler::{Lane, Views};
use crate::store::judgements::Judged;
use crate::store::overrides::Override;
use crate::store::verdicts::{self, Answered};
use crate::store::{self, StoreError, audit, judgements};
use crate::timestamp;
use crate::verdict::{Outcome, PolicyAnswer, Verdict};

/// Submissions that wait for shadow versions at once. Past it they are left out: a comparison does with
/// fewer, and pictures must not pile up for it.
pub(super) const PENDING_MAX: usize = 32;

/// How long a shadow version may wait for its turn.
const PATIENCE: Duration = Duration::from_secs(300);

/// One recorded submission and the shadow versions that are to judge it.
struct Shadowing {
    verdict: Uuid,
    project: String,
    /// Policies that stand in the verdict: shadows come after them.
    answered: usize,
    shadows: Vec<ActivePolicy>,
    overrides: Vec<Override>,
    original: Original,
    modality: Modality,
    sha256: store::Sha256,
    /// Where the submission was decoded; else it is decoded now, if need be.
    views: Option<Arc<Views>>,
}

impl Moderator {
    /// Starts it and returns: nothing that comes of it changes the answer.
    pub(super) fn shadow(
        self: &Arc<Self>,
        submission: &Submission,
        recorded: &Verdict,
        shadows: Vec<ActivePolicy>,
        overrides: Vec<Override>,
        views: Option<Arc<Views>>,
    ) {
        if shadows.is_empty() {
            return;
        }
        let Ok(pending) = Arc::clone(&self.shadowed).try_acquire_owned() else {
            tracing::debug!(verdict = %recorded.id, "too much waits for shadow versions; this one is left out");
            return;
        };
        let Some(sha256) = shieldgate_models::Digest::parse(&recorded.content.sha256) else { return };
        let work = Shadowing {
            verdict: recorded.id,
            project: recorded.project.clone(),
            answered: recorded.policies.len(),
            shadows,
            overrides,
            original: submission.original.clone(),
            modality: submission.modality,
            sha256: *sha256.as_bytes(),
            views,
        };
        let this = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = this.judge_shadows(&work).await {
                tracing::warn!(verdict = %work.verdict, %error, "shadow versions were not judged");
            }
            drop(pending);
        });
    }

    #[tracing::instrument(name = "shadow", skip_all, fields(verdict = %work.verdict))]
    async fn judge_shadows(&self, work: &Shadowing) -> Result<(), ModerateError> {
        let plan = Plan::of_shadows(&work.shadows, &work.overrides);
        if plan.asked.is_empty() {
            return Ok(());
        }
        let turn = (Lane::Bulk, Instant::now() + PATIENCE);
        let recalled = self.recall(&work.project, &work.sha256, &plan, None).await?;
        let findings = if recalled.missing.is_empty() {
            recalled.findings
        } else {
            let views = match &work.views {
                Some(views) => Arc::clone(views),
                None => self.look(&work.original, work.modality, &work.sha256, turn).await?.1,
            };
            self.judge(turn, recalled, views).await?
        };
        let mut answers = Vec::new();
        for shadow in &plan.asked {
            match decide::decide(shadow, self.answered(shadow, &findings)) {
                Ok(answer) if answer.error.is_none() => {
                    answers.push(PolicyAnswer { outcome: Outcome::Shadow, ..answer });
                }
                // What failed says nothing about the policy.
                Ok(_) | Err(_) => {
                    tracing::info!(
                        policy = shadow.policy.id,
                        "a judge failed a shadow version; not recorded"
                    );
                }
            }
        }
        let now = timestamp::now();
        let fresh = self.fresh(&findings, now);
        let written = async |conn: &mut store::PgConnection| -> Result<(), StoreError> {
            let (project, sha256) = (work.project.as_str(), &work.sha256);
            let judged: Vec<_> =
                fresh.iter().map(|judgement| Judged { project, sha256, judgement }).collect();
            judgements::insert(conn, &judged).await?;
            let after = i16::try_from(work.answered).unwrap_or(i16::MAX);
            let of = |(position, answer)| Answered { id: work.verdict, project, position, answer };
            let answered: Vec<_> = (after..).zip(&answers).map(of).collect();
            verdicts::insert_answers(conn, &answered).await?;
            audit::append(conn, &[entry(work, &answers, now)]).await
        };
        Ok(self.store.write(written).await?)
    }
}

fn entry(work: &Shadowing, answers: &[PolicyAnswer], now: time::OffsetDateTime) -> audit::Entry {
    let versions: serde_json::Map<_, _> =
        answers.iter().map(|answer| (answer.policy.clone(), json!(answer.version))).collect();
    let actions: serde_json::Map<_, _> =
        answers.iter().map(|answer| (answer.policy.clone(), json!(answer.action))).collect();
    audit::Entry {
        id: Uuid::now_v7(),
        at: now,
        project: work.project.clone(),
        actor: record::SYSTEM.to_owned(),
        act: "verdict.shadowed".to_owned(),
        target: Some(work.verdict.to_string()),
        hashes: json!({"content": super::hex(&work.sha256), "policies": versions}),
        detail: json!({"actions": actions}),
    }
}
