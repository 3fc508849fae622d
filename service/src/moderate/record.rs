//! One transaction: verdicts, their judgements, idempotency keys and audit entries, or nothing.
//!
//! A group commit: a disk makes some hundred commits durable a second, so verdicts that are ready while a
//! transaction is under way share the next one.

use serde_json::json;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

use super::decide::{self, Undecided};
use super::{ModerateError, Submission, hex};
use crate::pipeline;
use crate::store::contents::{Kept, Seen};
use crate::store::idempotency::{Insertion, Key, Recorded};
use crate::store::judgements::{Judged, Judgement};
use crate::store::verdicts::Provenance;
use crate::store::{self, Grouped, Store, StoreError, audit, contents, idempotency, judgements, verdicts};
use crate::verdict::{Facts, Outcome, Verdict};

/// Everything that one submission puts on record.
#[derive(Debug)]
pub(super) struct Recording {
    pub(super) verdict: Verdict,
    /// Ids of the policies that were to be answered.
    pub(super) requested: Vec<String>,
    pub(super) sha256: store::Sha256,
    pub(super) kept: Option<Kept>,
    /// What was found in the bytes, where they were looked at.
    pub(super) facts: Option<Facts>,
    /// Those that are new.
    pub(super) judgements: Vec<Judgement>,
    pub(super) provenance: Provenance,
    /// Route and key.
    pub(super) idempotency: Option<(&'static str, String)>,
    pub(super) fingerprint: store::Sha256,
    pub(super) actor: String,
    pub(super) request_id: String,
}

/// Transactions at once: while one waits for the disk the next one is prepared.
pub(super) const AT_ONCE: usize = 2;

impl Grouped for Recording {
    /// What stands on record now; or what another request recorded under the same idempotency key meanwhile.
    type Done = Result<Verdict, Recorded>;
    type Error = ModerateError;

    /// An error leaves nothing on record, unless it is that of the commit itself: then nobody knows.
    async fn together(store: &Store, recordings: &[Self]) -> Result<Vec<Self::Done>, ModerateError> {
        commit(store, recordings).await
    }

    fn store_error(error: &ModerateError) -> Option<&StoreError> {
        match error {
            ModerateError::Store(error) => Some(error),
            _ => None,
        }
    }
}

async fn commit(
    store: &Store,
    recordings: &[Recording],
) -> Result<Vec<Result<Verdict, Recorded>>, ModerateError> {
    let mut transaction = store.begin().await?;
    let conn = &mut *transaction;
    let taken = claim(conn, recordings).await?;
    let ours: Vec<&Recording> =
        recordings.iter().zip(&taken).filter(|(_, taken)| taken.is_none()).map(|(ours, _)| ours).collect();
    if ours.is_empty() {
        return Ok(taken.into_iter().flatten().map(Err).collect());
    }
    let mut seen = Vec::with_capacity(ours.len());
    let mut judged = Vec::new();
    for it in &ours {
        let Verdict { content, project, created_at, .. } = &it.verdict;
        let facts = it.facts.as_ref().map(|facts| (facts, pipeline::version(content.modality())));
        seen.push(Seen { content, kept: it.kept.as_ref(), facts, at: *created_at });
        let sha256 = &it.sha256;
        judged.extend(it.judgements.iter().map(|judgement| Judged { project, sha256, judgement }));
    }
    contents::upsert(conn, &seen).await?;
    judgements::insert(conn, &judged).await?;
    verdicts::insert(conn, &ours.iter().map(|it| (&it.verdict, &it.provenance)).collect::<Vec<_>>()).await?;
    // Answered is what came back, so that answer and record cannot differ.
    let ids: Vec<Uuid> = ours.iter().map(|it| it.verdict.id).collect();
    let mut written = verdicts::written(conn, &ids).await?;
    let mut back = Vec::with_capacity(ours.len());
    let mut entries = Vec::with_capacity(ours.len());
    for it in &ours {
        let at = written.iter().position(|verdict| verdict.id == it.verdict.id);
        let at = at.ok_or_else(|| inconsistent(it.verdict.id, "it was not there when read back"))?;
        let verdict = written.swap_remove(at);
        decide::check(&verdict, &it.requested)?;
        entries.push(entry(&verdict, it)?);
        back.push(verdict);
    }
    audit::append(conn, &entries).await?;
    Store::commit(transaction).await?;
    let mut back = back.into_iter();
    let outcomes = taken.into_iter().map(|taken| match taken {
        Some(theirs) => Some(Err(theirs)),
        None => back.next().map(Ok),
    });
    Ok(outcomes.flatten().collect())
}

/// Puts down the idempotency keys. First of all, for their rows are what two requests of one key race
/// for; and in one order, or two transactions could wait for each other.
async fn claim(
    conn: &mut store::PgConnection,
    recordings: &[Recording],
) -> Result<Vec<Option<Recorded>>, StoreError> {
    let mut taken = vec![None; recordings.len()];
    let mut keyed: Vec<(usize, Key<'_>)> = Vec::new();
    for (at, it) in recordings.iter().enumerate() {
        if let Some((route, key)) = &it.idempotency {
            keyed.push((at, Key { project: &it.verdict.project, route, key }));
        }
    }
    keyed.sort_by_key(|(_, key)| (key.project, key.route, key.key));
    for (at, key) in keyed {
        let Some(it) = recordings.get(at) else { continue };
        let ours = Recorded { fingerprint: it.fingerprint, verdict_id: it.verdict.id };
        if let Insertion::Taken(theirs) = idempotency::insert(conn, key, ours, it.verdict.created_at).await?
            && let Some(place) = taken.get_mut(at)
        {
            *place = Some(theirs);
        }
    }
    Ok(taken)
}

/// Who acts where nobody asked.
pub(super) const SYSTEM: &str = "system";

/// The SHA-256 of the canonical JSON of the verdict as it is answered: what the audit entry pins down. What
/// shadow versions say comes later and is no part of it.
fn verdict_hash(verdict: &Verdict) -> Result<String, serde_json::Error> {
    // By way of text, so that a probability is hashed in the digits it is answered with.
    let value = serde_json::from_str(&serde_json::to_string(verdict)?)?;
    Ok(hex(&Sha256::digest(crate::canonical::to_string(&value).as_bytes()).into()))
}

fn entry(verdict: &Verdict, it: &Recording) -> Result<audit::Entry, ModerateError> {
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
        actor: it.actor.clone(),
        act: "verdict.recorded".to_owned(),
        target: Some(verdict.id.to_string()),
        hashes: json!({"content": verdict.content.sha256, "verdict": hash, "policies": versions}),
        detail: json!({
            "action": verdict.action,
            "cached": verdict.cached,
            "source": verdict.source,
            "overrides": overrides,
            "request_id": it.request_id,
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
    store.write(async |conn| audit::append(conn, &[entry]).await).await
}

fn inconsistent(id: Uuid, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Inconsistent { table: "verdicts", column: "id", row: id.to_string(), source: why.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Group;
    use crate::store::testing::{hash, judgement, rows, verdict, with_database};
    use crate::store::verdicts::Provenance;
    use crate::timestamp;

    type Told = Result<Result<Verdict, Recorded>, ModerateError>;

    fn recording(seed: u8) -> Recording {
        let verdict = verdict("p", timestamp::now(), hash(seed));
        Recording {
            requested: verdict.policies.iter().map(|answer| answer.policy.clone()).collect(),
            verdict,
            sha256: hash(seed),
            kept: None,
            facts: None,
            judgements: Vec::new(),
            provenance: Provenance::default(),
            idempotency: None,
            fingerprint: hash(seed),
            actor: "key:1".to_owned(),
            request_id: "1".to_owned(),
        }
    }

    /// All asked at once; what each was told.
    async fn written(store: &Store, recordings: Vec<Recording>) -> Vec<Told> {
        let recorder = Group::start(store, 1);
        futures_util::future::join_all(recordings.into_iter().map(|it| recorder.ask(it))).await
    }

    #[tokio::test]
    async fn what_one_does_wrong_is_not_the_others_fault() {
        with_database(async |db| {
            let store = db.store();
            let mut all: Vec<Recording> = (0..8).map(recording).collect();
            // A judge that nobody made known: its statement fails, and the transaction with it.
            all[3].judgements = vec![judgement(99, 1, 0.5)];
            let ids: Vec<_> = all.iter().map(|it| it.verdict.id).collect();
            let told = written(&store, all).await;
            for (at, (told, id)) in told.iter().zip(&ids).enumerate() {
                match told {
                    Ok(Ok(verdict)) if at != 3 => assert_eq!(verdict.id, *id),
                    Err(ModerateError::Store(StoreError::Inconsistent { .. })) if at == 3 => {}
                    other => panic!("{at}: {other:?}"),
                }
            }
            let mut conn = db.service().await;
            for table in ["verdicts", "audit"] {
                assert_eq!(rows(&mut conn, table).await, 7, "{table}");
            }
        })
        .await;
    }

    /// The first one has it, the second is told so; nothing of the second is on record.
    #[tokio::test]
    async fn of_two_with_one_idempotency_key_in_one_transaction_one_is_recorded() {
        with_database(async |db| {
            let store = db.store();
            let mut all: Vec<Recording> = (0..3).map(recording).collect();
            all[0].idempotency = Some(("POST /v1/images", "same".to_owned()));
            all[2].idempotency = Some(("POST /v1/images", "same".to_owned()));
            let first = all[0].verdict.id;
            let told = written(&store, all).await;
            assert!(matches!(&told[0], Ok(Ok(verdict)) if verdict.id == first), "{:?}", told[0]);
            assert!(matches!(&told[1], Ok(Ok(_))), "{:?}", told[1]);
            assert!(matches!(&told[2], Ok(Err(earlier)) if earlier.verdict_id == first), "{:?}", told[2]);
        })
        .await;
    }
}
