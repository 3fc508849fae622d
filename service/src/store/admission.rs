//! What a submission must know before anything else, in one round trip.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::idempotency::{EXPIRY, Recorded};
use super::overrides::{self, Override};
use super::read::Place;
use super::{Grouped, Result, Sha256, Store, StoreError};
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

/// What is asked of one submission.
#[derive(Debug, Clone)]
pub struct Look {
    pub project: String,
    pub route: &'static str,
    pub idempotency_key: Option<String>,
    pub sha256: Sha256,
    /// The version of the media pipeline whose findings count.
    pub pipeline: &'static str,
    pub now: OffsetDateTime,
}

impl Grouped for Look {
    type Done = Admission;
    type Error = StoreError;

    async fn together(store: &Store, group: &[Self]) -> Result<Vec<Admission>> {
        store.read(async |conn| look(conn, group).await).await
    }

    fn store_error(error: &StoreError) -> Option<&StoreError> {
        Some(error)
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    position: i64,
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

/// One admission each, in their order.
#[tracing::instrument(name = "db.admission.look", skip_all, fields(count = looks.len()))]
pub async fn look(conn: &mut PgConnection, looks: &[Look]) -> Result<Vec<Admission>> {
    let rows: Vec<Row> = sqlx::query_as(
        "select l.position,
                coalesce((select generation from policy_generations where project = l.project), 0)
                    as generation,
                (select facts::text from contents where sha256 = l.sha256 and pipeline = l.pipeline) as facts,
                i.fingerprint, i.verdict_id, o.*
         from unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::text[], $6::timestamptz[],
                     $7::timestamptz[])
              with ordinality l (project, route, key, sha256, pipeline, now, expired, position)
         -- Lateral, each of it: a plan is made once and must not rest on how small the tables were then.
         left join lateral (
             select fingerprint, verdict_id from idempotency
             where project = l.project and route = l.route and key = l.key and created_at > l.expired
             offset 0
         ) i on true
         left join lateral (
             -- Two branches and not an OR, so that each has its partial index.
             select id, sha256, policy, action, reason, created_by, created_at, expires_at
             from overrides
             where project = l.project and sha256 = l.sha256
               and deleted_at is null and (expires_at is null or expires_at > l.now)
             union all
             select id, sha256, policy, action, reason, created_by, created_at, expires_at
             from overrides
             where project = l.project and sha256 is null
               and deleted_at is null and (expires_at is null or expires_at > l.now)
         ) o on true
         order by l.position, o.created_at desc, o.id desc",
    )
    .bind(looks.iter().map(|look| look.project.as_str()).collect::<Vec<_>>())
    .bind(looks.iter().map(|look| look.route).collect::<Vec<_>>())
    .bind(looks.iter().map(|look| look.idempotency_key.as_deref()).collect::<Vec<_>>())
    .bind(looks.iter().map(|look| look.sha256.as_slice()).collect::<Vec<_>>())
    .bind(looks.iter().map(|look| look.pipeline).collect::<Vec<_>>())
    .bind(looks.iter().map(|look| look.now).collect::<Vec<_>>())
    .bind(looks.iter().map(|look| look.now - EXPIRY).collect::<Vec<_>>())
    .fetch_all(conn)
    .await?;
    let empty = || Admission { replay: None, overrides: Vec::new(), policy_generation: 0, facts: None };
    let mut admissions: Vec<Admission> = looks.iter().map(|_| empty()).collect();
    for row in rows {
        let at = usize::try_from(row.position).ok().and_then(|position| position.checked_sub(1));
        if let Some((look, admission)) = at.and_then(|at| Some((looks.get(at)?, admissions.get_mut(at)?))) {
            row.add_to(admission, look)?;
        }
    }
    Ok(admissions)
}

impl Row {
    fn add_to(self, admission: &mut Admission, look: &Look) -> Result<()> {
        admission.policy_generation = self.generation;
        if let (Some(text), None) = (&self.facts, &admission.facts) {
            let facts = serde_json::from_str(text);
            let place = || Place::new("contents", super::read::hex(&look.sha256));
            admission.facts = Some(facts.map_err(|error| place().wrong("facts", error))?);
        }
        if let (Some(fingerprint), Some(verdict_id), None) =
            (self.fingerprint, self.verdict_id, &admission.replay)
        {
            let fingerprint = Place::new("idempotency", verdict_id).sha256("fingerprint", &fingerprint)?;
            admission.replay = Some(Recorded { fingerprint, verdict_id });
        }
        let Some(id) = self.id else { return Ok(()) };
        let missing = |column| move || StoreError::inconsistent("overrides", column, id, "it is null");
        let found = overrides::Row {
            id,
            project: look.project.clone(),
            sha256: self.sha256,
            policy: self.policy,
            action: self.action.ok_or_else(missing("action"))?,
            reason: self.reason.ok_or_else(missing("reason"))?,
            created_by: self.created_by.ok_or_else(missing("created_by"))?,
            created_at: self.created_at.ok_or_else(missing("created_at"))?,
            expires_at: self.expires_at,
            deleted_by: None,
            deleted_at: None,
        };
        admission.overrides.push(Override::try_from(found)?);
        Ok(())
    }
}
