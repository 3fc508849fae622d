//! `verdicts` and `verdict_policies`: every answer, as it was answered.
//!
//! Both are range-partitioned by the verdict's UUIDv7, by month. `moderate` writes them, in one
//! transaction with the audit entry: no verdict without its entry. Readers are the verdict routes,
//! the review and the statistics. Append-only: a verdict is never changed, by nobody.

mod compare;
mod page;
mod row;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

pub use compare::{Pair, compare};
pub use page::{Filter, page};

use self::row::{PolicyRow, VerdictRow};
use super::read::{Word as _, signed, unhex, uuid_millis};
use super::{Result, Sha256, StoreError};
use crate::verdict::{ImageExtent, PolicyAnswer, Status, Verdict};

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

/// Verdicts with their policies. Each id must be a UUIDv7 of about `created_at`, or
/// searches by time would not find it.
#[tracing::instrument(name = "db.verdict.insert", skip_all, fields(count = verdicts.len()))]
pub async fn insert(conn: &mut PgConnection, verdicts: &[(&Verdict, &Provenance)]) -> Result<()> {
    for (verdict, _) in verdicts {
        check(verdict)?;
    }
    let of = |column: fn(&Verdict) -> Result<Option<i64>>| {
        verdicts.iter().map(|(verdict, _)| column(verdict)).collect::<Result<Vec<Option<i64>>>>()
    };
    let (bytes, trailing, characters) = (
        of(|verdict| signed("content.bytes", verdict.content.bytes).map(Some))?,
        of(|verdict| {
            let trailing = verdict.content.image().and_then(|image| image.trailing_bytes);
            trailing.map(|bytes| signed("content.trailing_bytes", bytes)).transpose()
        })?,
        of(|verdict| {
            let text = verdict.content.text();
            text.map(|text| signed("content.characters", text.characters)).transpose()
        })?,
    );
    let sha256 = verdicts.iter().map(|(verdict, _)| unhex("content.sha256", &verdict.content.sha256));
    let pdq = verdicts
        .iter()
        .map(|(verdict, _)| verdict.content.image().and_then(|image| image.pdq.as_deref()))
        .map(|pdq| pdq.map(|pdq| unhex("content.pdq", pdq)).transpose());
    let of_images = |column: fn(&ImageExtent) -> Option<i64>| {
        each(verdicts, |(verdict, _)| verdict.content.image().and_then(column))
    };
    let texts = |what: &'static str, column: fn(&Verdict) -> serde_json::Result<String>| {
        let text = |(verdict, _): &(&Verdict, _)| {
            column(verdict).map_err(|error| StoreError::unstorable(what, error.to_string()))
        };
        verdicts.iter().map(text).collect::<Result<Vec<String>>>()
    };
    sqlx::query(
        "insert into verdicts (id, project, created_at, status, action, cached, submission_id, rescan_id,
                                   source, reference, subject_hash, key_id, policy_generation,
                                   sha256, pdq, media_type, width, height, bytes, frames_total, frames_scored,
                                   trailing_bytes, metadata, policies_not_run, runtime, device, raised,
                                   frames_distinct, pdq_quality, characters)
             select id, project, created_at, status, action, cached, submission_id, rescan_id,
                    source, reference, subject_hash, key_id, policy_generation,
                    sha256, pdq, media_type, width, height, bytes, frames_total, frames_scored,
                    trailing_bytes, metadata::json, policies_not_run::json, runtime, device, raised::json,
                    frames_distinct, pdq_quality, characters
             from unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::bool[],
                         $7::uuid[], $8::uuid[], $9::text[], $10::text[], $11::bytea[], $12::uuid[],
                         $13::bigint[], $14::bytea[], $15::bytea[], $16::text[], $17::bigint[], $18::bigint[],
                         $19::bigint[], $20::bigint[], $21::bigint[], $22::bigint[], $23::text[], $24::text[],
                         $25::text[], $26::text[], $27::text[], $28::bigint[], $29::bigint[],
                         $30::bigint[])
                  u (id, project, created_at, status, action, cached, submission_id, rescan_id,
                     source, reference, subject_hash, key_id, policy_generation,
                     sha256, pdq, media_type, width, height, bytes, frames_total, frames_scored,
                     trailing_bytes, metadata, policies_not_run, runtime, device, raised,
                     frames_distinct, pdq_quality, characters)",
    )
    .bind(each(verdicts, |(v, _)| v.id))
    .bind(each(verdicts, |(v, _)| v.project.as_str()))
    .bind(each(verdicts, |(v, _)| v.created_at))
    .bind(each(verdicts, |(v, _)| v.status.word()))
    .bind(each(verdicts, |(v, _)| v.action.word()))
    .bind(each(verdicts, |(v, _)| v.cached))
    .bind(each(verdicts, |(v, _)| v.submission_id))
    .bind(each(verdicts, |(_, p)| p.rescan_id))
    .bind(each(verdicts, |(v, _)| v.source.as_str()))
    .bind(each(verdicts, |(v, _)| v.reference.as_deref()))
    .bind(each(verdicts, |(_, p)| p.subject_hash.as_ref().map(|hash| hash.as_slice())))
    .bind(each(verdicts, |(_, p)| p.key_id))
    .bind(each(verdicts, |(_, p)| p.policy_generation))
    .bind(sha256.collect::<Result<Vec<_>>>()?)
    .bind(pdq.collect::<Result<Vec<_>>>()?)
    .bind(each(verdicts, |(v, _)| v.content.media_type.as_str()))
    .bind(of_images(|image| Some(i64::from(image.width))))
    .bind(of_images(|image| Some(i64::from(image.height))))
    .bind(bytes)
    .bind(of_images(|image| Some(i64::from(image.frames_total))))
    .bind(of_images(|image| Some(i64::from(image.frames_scored))))
    .bind(trailing)
    .bind(texts("metadata", |v| serde_json::to_string(&v.metadata))?)
    .bind(texts("policies_not_run", |v| serde_json::to_string(&v.policies_not_run))?)
    .bind(each(verdicts, |(v, _)| v.runtime.as_str()))
    .bind(each(verdicts, |(v, _)| v.device.as_str()))
    .bind(texts("raised", |v| serde_json::to_string(&v.raised))?)
    .bind(of_images(|image| image.frames_distinct.map(i64::from)))
    .bind(of_images(|image| image.pdq_quality.map(i64::from)))
    .bind(characters)
    .execute(&mut *conn)
    .await?;
    let answers = verdicts.iter().flat_map(|(verdict, _)| {
        let of =
            |(position, answer)| Answered { id: verdict.id, project: &verdict.project, position, answer };
        (0..).zip(&verdict.policies).map(of)
    });
    insert_answers(conn, &answers.collect::<Vec<_>>()).await
}

/// One policy's answer in a verdict.
#[derive(Debug, Clone, Copy)]
pub struct Answered<'a> {
    /// The verdict's.
    pub id: Uuid,
    pub project: &'a str,
    pub position: i16,
    pub answer: &'a PolicyAnswer,
}

/// Those of the verdict itself go with it; what a shadow version answered comes later.
#[tracing::instrument(name = "db.verdict.insert_answers", skip_all, fields(count = answers.len()))]
pub async fn insert_answers(conn: &mut PgConnection, answers: &[Answered<'_>]) -> Result<()> {
    sqlx::query(
        "insert into verdict_policies (verdict_id, project, position, policy, version, outcome, action,
                                       probability, review, block, decided_by, error_code, error_message,
                                       override_id, judges, judges_not_run)
         select verdict_id, project, position, policy, version, outcome, action, probability, review, block,
                decided_by, error_code, error_message, override_id, judges::json, judges_not_run::json
         from unnest($1::uuid[], $2::text[], $3::smallint[], $4::text[], $5::text[], $6::text[],
                     $7::text[], $8::real[], $9::real[], $10::real[], $11::text[], $12::text[],
                     $13::text[], $14::uuid[], $15::text[], $16::text[])
              u (verdict_id, project, position, policy, version, outcome, action, probability, review, block,
                 decided_by, error_code, error_message, override_id, judges, judges_not_run)",
    )
    .bind(each(answers, |a| a.id))
    .bind(each(answers, |a| a.project))
    .bind(each(answers, |a| a.position))
    .bind(each(answers, |a| a.answer.policy.as_str()))
    .bind(each(answers, |a| a.answer.version.as_str()))
    .bind(each(answers, |a| a.answer.outcome.word()))
    .bind(each(answers, |a| a.answer.action.word()))
    .bind(each(answers, |a| a.answer.probability))
    .bind(each(answers, |a| a.answer.thresholds.map(|thresholds| thresholds.review)))
    .bind(each(answers, |a| a.answer.thresholds.map(|thresholds| thresholds.block)))
    .bind(each(answers, |a| deciding(a.answer)))
    .bind(each(answers, |a| a.answer.error.as_ref().map(|error| error.code.as_str())))
    .bind(each(answers, |a| a.answer.error.as_ref().map(|error| error.message.as_str())))
    .bind(each(answers, |a| a.answer.override_id))
    .bind(answers.iter().map(|a| text("judges", &a.answer.judges)).collect::<Result<Vec<_>>>()?)
    .bind(
        answers
            .iter()
            .map(|a| text("judges_not_run", &a.answer.judges_not_run))
            .collect::<Result<Vec<_>>>()?,
    )
    .execute(conn)
    .await?;
    Ok(())
}

fn each<'a, R, T>(rows: &'a [R], column: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(column).collect()
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

/// Those of them that are there, of whatever project, in no order: what a transaction just wrote.
#[tracing::instrument(name = "db.verdict.written", skip_all, fields(count = ids.len()))]
pub async fn written(conn: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Verdict>> {
    let rows: Vec<VerdictRow> =
        sqlx::query_as("select * from verdicts where id = any($1) and id between $2 and $3")
            .bind(ids)
            .bind(ids.iter().min())
            .bind(ids.iter().max())
            .fetch_all(&mut *conn)
            .await?;
    with_policies(conn, rows).await
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
