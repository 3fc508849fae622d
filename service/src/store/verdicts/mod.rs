//! `verdicts` and `verdict_policies`: every answer, as it was answered.
//!
//! Both are range-partitioned by the verdict's UUIDv7, by month. `moderate` writes them, in one
//! transaction with the audit entry: no verdict without its entry. Readers are the verdict routes,
//! the review and the statistics. Append-only: a verdict is never changed, by nobody.

mod page;
mod row;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

pub use page::{Filter, page};

use self::row::{PolicyRow, VerdictRow};
use super::read::{Word as _, signed, unhex, uuid_millis};
use super::{Result, Sha256, StoreError};
use crate::verdict::{PolicyAnswer, Status, Verdict};

/// What is on record beside the verdict and not part of the answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provenance {
    pub key_id: Option<Uuid>,
    /// A keyed hash of the client's account id.
    pub subject_hash: Option<Sha256>,
    pub policy_generation: i64,
    pub rescan_id: Option<Uuid>,
}

/// A day: `since` and `until` are translated into id bounds with this much slack.
const ID_SLACK_MS: i128 = 86_400_000;

/// Verdict and policies in one round trip. The id must be a UUIDv7 of about `created_at`, or searches by
/// time would not find it.
#[tracing::instrument(name = "db.verdict.insert", skip_all, fields(id = %verdict.id))]
pub async fn insert(conn: &mut PgConnection, verdict: &Verdict, provenance: &Provenance) -> Result<()> {
    check(verdict)?;
    let content = &verdict.content;
    let answers = &verdict.policies;
    sqlx::query(
        "with verdict as (
             insert into verdicts (id, project, created_at, status, action, cached, submission_id, rescan_id,
                                   source, reference, subject_hash, key_id, policy_generation,
                                   sha256, pdq, media_type, width, height, bytes, frames_total, frames_scored,
                                   trailing_bytes, metadata, policies_not_run, runtime, device, raised)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
                     $21, $22, $23::text::json, $24::text::json, $25, $26, $40::text::json))
         insert into verdict_policies (verdict_id, project, position, policy, version, outcome, action,
                                       probability, review, block, decided_by, error_code, error_message,
                                       override_id, judges, judges_not_run)
         select $1, $2, position - 1, policy, version, outcome, action, probability, review, block,
                decided_by, error_code, error_message, override_id, judges::json, judges_not_run::json
         from unnest($27::text[], $28::text[], $29::text[], $30::text[], $31::real[], $32::real[], $33::real[],
                     $34::text[], $35::text[], $36::text[], $37::uuid[], $38::text[], $39::text[])
              with ordinality
              u (policy, version, outcome, action, probability, review, block, decided_by, error_code,
                 error_message, override_id, judges, judges_not_run, position)",
    )
    .bind(verdict.id)
    .bind(&verdict.project)
    .bind(verdict.created_at)
    .bind(verdict.status.word())
    .bind(verdict.action.word())
    .bind(verdict.cached)
    .bind(verdict.submission_id)
    .bind(provenance.rescan_id)
    .bind(&verdict.source)
    .bind(&verdict.reference)
    .bind(provenance.subject_hash)
    .bind(provenance.key_id)
    .bind(provenance.policy_generation)
    .bind(unhex("content.sha256", &content.sha256)?)
    .bind(content.pdq.as_deref().map(|pdq| unhex("content.pdq", pdq)).transpose()?)
    .bind(&content.media_type)
    .bind(i64::from(content.width))
    .bind(i64::from(content.height))
    .bind(signed("content.bytes", content.bytes)?)
    .bind(i64::from(content.frames_total))
    .bind(i64::from(content.frames_scored))
    .bind(content.trailing_bytes.map(|bytes| signed("content.trailing_bytes", bytes)).transpose()?)
    .bind(text("metadata", &verdict.metadata)?)
    .bind(text("policies_not_run", &verdict.policies_not_run)?)
    .bind(&verdict.runtime)
    .bind(&verdict.device)
    .bind(each(answers, |a| a.policy.as_str()))
    .bind(each(answers, |a| a.version.as_str()))
    .bind(each(answers, |a| a.outcome.word()))
    .bind(each(answers, |a| a.action.word()))
    .bind(each(answers, |a| a.probability))
    .bind(each(answers, |a| a.thresholds.map(|thresholds| thresholds.review)))
    .bind(each(answers, |a| a.thresholds.map(|thresholds| thresholds.block)))
    .bind(each(answers, deciding))
    .bind(each(answers, |a| a.error.as_ref().map(|error| error.code.as_str())))
    .bind(each(answers, |a| a.error.as_ref().map(|error| error.message.as_str())))
    .bind(each(answers, |a| a.override_id))
    .bind(answers.iter().map(|a| text("judges", &a.judges)).collect::<Result<Vec<_>>>()?)
    .bind(answers.iter().map(|a| text("judges_not_run", &a.judges_not_run)).collect::<Result<Vec<_>>>()?)
    .bind(text("raised", &verdict.raised)?)
    .execute(conn)
    .await?;
    Ok(())
}

fn each<'a, T>(answers: &'a [PolicyAnswer], column: impl Fn(&'a PolicyAnswer) -> T) -> Vec<T> {
    answers.iter().map(column).collect()
}

fn text<T: serde::Serialize>(what: &'static str, value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| StoreError::unstorable(what, error.to_string()))
}

/// The judge whose probability and thresholds are the policy's.
fn deciding(answer: &PolicyAnswer) -> Option<&str> {
    let decides = |judge: &&crate::verdict::JudgeAnswer| {
        judge.probability == answer.probability && Some(judge.thresholds) == answer.thresholds
    };
    answer.probability.and_then(|_| answer.judges.iter().find(decides)).map(|judge| judge.name.as_str())
}

/// What the tables would take and not give back, or take and not find.
fn check(verdict: &Verdict) -> Result<()> {
    if verdict.status == Status::Pending {
        return Err(StoreError::unstorable("status", "a pending submission has no verdict yet"));
    }
    if !verdict.metadata.is_object() {
        return Err(StoreError::unstorable("metadata", "it is not a JSON object"));
    }
    let created_ms = verdict.created_at.unix_timestamp_nanos().div_euclid(1_000_000);
    if verdict.id.get_version_num() != 7 || (uuid_millis(verdict.id) - created_ms).abs() > ID_SLACK_MS {
        return Err(StoreError::unstorable("id", format!("`{}` is no UUIDv7 of `created_at`", verdict.id)));
    }
    let mut versions: Vec<_> = verdict.policies.iter().map(|a| (&a.policy, &a.version)).collect();
    versions.sort_unstable();
    if let Some([(policy, _), _]) = versions.array_windows().find(|[one, next]| one == next) {
        return Err(StoreError::unstorable("policies", format!("`{policy}` answered twice")));
    }
    // JSON writes NaN as null, so a judge's NaN would come back as "no probability" and not as a fault.
    for judge in verdict.policies.iter().flat_map(|answer| &answer.judges) {
        let probable = judge.probability.is_none_or(|p| (0.0..=1.0).contains(&p));
        if !probable || !judge.thresholds.review.is_finite() || !judge.thresholds.block.is_finite() {
            return Err(StoreError::unstorable("judges", format!("`{}` answered no number", judge.name)));
        }
    }
    Ok(())
}

/// None: no such verdict in this project.
#[tracing::instrument(name = "db.verdict.by_id", skip_all, fields(%id))]
pub async fn by_id(conn: &mut PgConnection, project: &str, id: Uuid) -> Result<Option<Verdict>> {
    let row: Option<VerdictRow> = sqlx::query_as("select * from verdicts where id = $1 and project = $2")
        .bind(id)
        .bind(project)
        .fetch_optional(&mut *conn)
        .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(with_policies(conn, vec![row]).await?.pop())
}

/// The policies of all of them in one statement.
async fn with_policies(conn: &mut PgConnection, rows: Vec<VerdictRow>) -> Result<Vec<Verdict>> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let (Some(first), Some(last)) = (ids.iter().min(), ids.iter().max()) else {
        return Ok(Vec::new());
    };
    let policies: Vec<PolicyRow> = sqlx::query_as(
        "select * from verdict_policies
         -- The bounds spare the partitions that hold none of them.
         where verdict_id = any($1) and verdict_id between $2 and $3
         order by verdict_id, position",
    )
    .bind(&ids)
    .bind(first)
    .bind(last)
    .fetch_all(conn)
    .await?;
    let mut answers: HashMap<Uuid, Vec<PolicyAnswer>> = HashMap::new();
    for policy in policies {
        answers.entry(policy.verdict_id).or_default().push(policy.try_into()?);
    }
    rows.into_iter()
        .map(|row| {
            let answers = answers.remove(&row.id).unwrap_or_default();
            row.verdict(answers)
        })
        .collect()
}
