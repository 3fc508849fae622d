//! A shadow version beside the active one: what both said of the same submissions.

use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use super::super::Result;
use super::super::policies::Named;
use super::super::read::{Place, uuid_floor};
use crate::verdict::Action;

/// How often the active version said one thing and the shadow version another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    pub active: Action,
    pub shadow: Action,
    pub count: u64,
}

/// The newest so many are compared: enough to decide by, and a bounded price.
const NEWEST: i64 = 100_000;

/// `since`: when the shadow version became one. Served by the index on (project, policy, verdict).
#[tracing::instrument(name = "db.verdict.compare", skip_all, fields(policy = shadow.policy))]
pub async fn compare(conn: &mut PgConnection, shadow: Named<'_>, since: OffsetDateTime) -> Result<Vec<Pair>> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "select a.action, s.action, count(*)
         from (select verdict_id, policy, action from verdict_policies
               where project = $1 and policy = $2 and version = $3 and outcome = 'shadow' and verdict_id >= $4
               order by verdict_id desc limit $5) s
         join verdict_policies a
              on a.verdict_id = s.verdict_id and a.policy = s.policy and a.outcome <> 'shadow'
         group by 1, 2 order by 1, 2",
    )
    .bind(shadow.project)
    .bind(shadow.policy)
    .bind(shadow.version)
    .bind(uuid_floor(since.saturating_sub(Duration::MINUTE)))
    .bind(NEWEST)
    .fetch_all(conn)
    .await?;
    let place = Place::new("verdict_policies", shadow.version);
    rows.into_iter()
        .map(|(active, shadow, count)| {
            Ok(Pair {
                active: place.word("action", &active)?,
                shadow: place.word("action", &shadow)?,
                count: place.count("count", count)?,
            })
        })
        .collect()
}
