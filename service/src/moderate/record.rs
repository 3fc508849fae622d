//! One transaction: the verdict, its judgements, its idempotency key and its audit entry, or nothing.

use serde_json::json;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

use super::decide::{self, Undecided};
use super::{ModerateError, Submission, hex};
use crate::store::contents::Kept;
use crate::store::idempotency::{Insertion, Key, Recorded};
use crate::store::judgements::Judgement;
use crate::store::verdicts::Provenance;
use crate::store::{self, Store, StoreError, audit, contents, idempotency, judgements, verdicts};
use crate::verdict::{Outcome, Verdict};

pub(super) struct Recording<'a> {
    pub(super) verdict: &'a Verdict,
    /// Ids of the policies that were to be answered.
    pub(super) requested: &'a [&'a str],
    pub(super) sha256: store::Sha256,
    pub(super) fingerprint: store::Sha256,
    pub(super) kept: Option<Kept>,
    /// Those that are new.
    pub(super) judgements: Vec<Judgement>,
    pub(super) policy_generation: i64,
    /// Keyed hash of the client's account id.
    pub(super) subject: Option<store::Sha256>,
}

impl Recording<'_> {
    /// What stands on record now; or, as the inner error, what another request recorded under the same
    /// idempotency key in the meantime.
    pub(super) async fn commit(
        self,
        store: &Store,
        submission: &Submission,
    ) -> Result<Result<Verdict, Recorded>, ModerateError> {
        let Self { verdict, sha256, fingerprint, .. } = self;
        let now = verdict.created_at;
        let mut transaction = store.begin().await?;
        let conn = &mut *transaction;
        if let Some(key) = &submission.idempotency_key {
            // First, for its row is what two requests of one key race for.
            let key = Key { project: &submission.project, route: submission.route, key };
            let ours = Recorded { fingerprint, verdict_id: verdict.id };
            if let Insertion::Taken(theirs) = idempotency::insert(conn, key, ours, now).await? {
                return Ok(Err(theirs));
            }
        }
        contents::upsert(conn, &verdict.content, "image", self.kept.as_ref(), now).await?;
        judgements::insert(conn, &submission.project, &sha256, &self.judgements).await?;
        let provenance = Provenance {
            key_id: submission.key_id,
            subject_hash: self.subject,
            policy_generation: self.policy_generation,
            rescan_id: None,
        };
        verdicts::insert(conn, verdict, &provenance).await?;
        // Answered is what came back, so that answer and record cannot differ.
        let recorded = verdicts::by_id(conn, &verdict.project, verdict.id).await?;
        let recorded = recorded.ok_or_else(|| inconsistent(verdict.id, "it was not there when read back"))?;
        decide::check(&recorded, self.requested)?;
        audit::append(conn, &entry(&recorded, submission)?).await?;
        Store::commit(transaction).await?;
        Ok(Ok(recorded))
    }
}

/// The SHA-256 of the canonical JSON of the verdict as it is answered: what the audit entry pins down.
fn verdict_hash(verdict: &Verdict) -> Result<String, serde_json::Error> {
    // By way of text, so that a probability is hashed in the digits it is answered with.
    let value = serde_json::from_str(&serde_json::to_string(verdict)?)?;
    Ok(hex(&Sha256::digest(crate::canonical::to_string(&value).as_bytes()).into()))
}

fn entry(verdict: &Verdict, submission: &Submission) -> Result<audit::Entry, ModerateError> {
    let hash = verdict_hash(verdict).map_err(|error| inconsistent(verdict.id, error))?;
    let versions: serde_json::Map<_, _> =
        verdict.policies.iter().map(|p| (p.policy.clone(), json!(p.version))).collect();
    let overrides: Vec<_> = verdict
        .policies
        .iter()
        .filter(|policy| policy.outcome == Outcome::Override)
        .filter_map(|policy| policy.override_id)
        .collect();
    Ok(audit::Entry {
        id: Uuid::now_v7(),
        at: verdict.created_at,
        project: verdict.project.clone(),
        actor: submission.actor.clone(),
        act: "verdict.recorded".to_owned(),
        target: Some(verdict.id.to_string()),
        hashes: json!({"content": verdict.content.sha256, "verdict": hash, "policies": versions}),
        detail: json!({
            "action": verdict.action,
            "cached": verdict.cached,
            "source": verdict.source,
            "overrides": overrides,
            "request_id": submission.request_id,
        }),
    })
}

/// A judge failed and the policy says `on_error: fail`: there is no verdict, but there was an attempt.
pub(super) async fn attempt(
    store: &Store,
    submission: &Submission,
    sha256: &store::Sha256,
    undecided: &Undecided,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let entry = audit::Entry {
        id: Uuid::now_v7(),
        at: now,
        project: submission.project.clone(),
        actor: submission.actor.clone(),
        act: "verdict.failed".to_owned(),
        target: None,
        hashes: json!({"content": hex(sha256)}),
        detail: json!({
            "policy": undecided.policy,
            "judge": undecided.judge,
            "code": undecided.failure.code(),
            "source": submission.source,
            "request_id": submission.request_id,
        }),
    };
    let mut transaction = store.begin().await?;
    audit::append(&mut transaction, &entry).await?;
    Store::commit(transaction).await
}

fn inconsistent(id: Uuid, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Inconsistent { table: "verdicts", column: "id", row: id.to_string(), source: why.into() }
}
