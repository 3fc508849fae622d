//! What a request must know before anything else, in one round trip.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::idempotency::{EXPIRY, Recorded};
use super::overrides::{self, Override};
use super::read::Place;
use super::{Result, Sha256, StoreError};
use crate::verdict::Facts;

#[derive(Debug, Clone, PartialEq)]
pub struct Admission {
    /// What the same Idempotency-Key was answered with in the last 24 hours.
    pub replay: Option<Recorded>,
    /// In force for this project, now, and for these bytes or for a policy as a whole; newest first.
    pub overrides: Vec<Override>,
    /// Other than that of the policies at hand: they are stale.
    pub policy_generation: i64,
    /// What this version of the media pipeline found in the bytes, whoever uploaded them: the caller must
    /// not let another project notice.
    pub facts: Option<Facts>,
}

#[derive(sqlx::FromRow)]
struct Row {
    generation: i64,
    facts: Option<String>,
    fingerprint: Option<Vec<u8>>,
    verdict_id: Option<Uuid>,
    id: Option<Uuid>,
    sha256: Option<Vec<u8>>,
    policy: Option<String>,
    action: Option<String>,
    reason: Option<String>,
    created_by: Option<String>,
    created_at: Option<OffsetDateTime>,
    expires_at: Option<OffsetDateTime>,
}

#[tracing::instrument(name = "db.admission.look", skip_all)]
pub async fn look(
    conn: &mut PgConnection,
    project: &str,
    route: &str,
    idempotency_key: Option<&str>,
    (sha256, pipeline): (&Sha256, &str),
    now: OffsetDateTime,
) -> Result<Admission> {
    let rows: Vec<Row> = sqlx::query_as(
        "select coalesce((select generation from policy_generations where project = $1), 0) as generation,
                (select facts::text from contents where sha256 = $4 and pipeline = $7) as facts,
                i.fingerprint, i.verdict_id, o.*
         from (select) always
         left join idempotency i
             on i.project = $1 and i.route = $2 and i.key = $3 and i.created_at > $5
         left join (
             -- Two branches and not an OR, so that each has its partial index.
             select id, sha256, policy, action, reason, created_by, created_at, expires_at
             from overrides
             where project = $1 and sha256 = $4
               and deleted_at is null and (expires_at is null or expires_at > $6)
             union all
             select id, sha256, policy, action, reason, created_by, created_at, expires_at
             from overrides
             where project = $1 and sha256 is null
               and deleted_at is null and (expires_at is null or expires_at > $6)
         ) o on true
         order by o.created_at desc, o.id desc",
    )
    .bind(project)
    .bind(route)
    .bind(idempotency_key)
    .bind(sha256)
    .bind(now - EXPIRY)
    .bind(now)
    .bind(pipeline)
    .fetch_all(conn)
    .await?;

    let mut admission = Admission { replay: None, overrides: Vec::new(), policy_generation: 0, facts: None };
    for row in rows {
        admission.policy_generation = row.generation;
        if let (Some(text), None) = (&row.facts, &admission.facts) {
            let facts = serde_json::from_str(text);
            let place = || Place::new("contents", super::read::hex(sha256));
            admission.facts = Some(facts.map_err(|error| place().wrong("facts", error))?);
        }
        if let (Some(fingerprint), Some(verdict_id), None) =
            (row.fingerprint, row.verdict_id, &admission.replay)
        {
            let fingerprint = Place::new("idempotency", verdict_id).sha256("fingerprint", &fingerprint)?;
            admission.replay = Some(Recorded { fingerprint, verdict_id });
        }
        if let Some(id) = row.id {
            let missing = |column| move || StoreError::inconsistent("overrides", column, id, "it is null");
            let found = overrides::Row {
                id,
                project: project.to_owned(),
                sha256: row.sha256,
                policy: row.policy,
                action: row.action.ok_or_else(missing("action"))?,
                reason: row.reason.ok_or_else(missing("reason"))?,
                created_by: row.created_by.ok_or_else(missing("created_by"))?,
                created_at: row.created_at.ok_or_else(missing("created_at"))?,
                expires_at: row.expires_at,
                deleted_by: None,
                deleted_at: None,
            };
            admission.overrides.push(Override::try_from(found)?);
        }
    }
    Ok(admission)
}
