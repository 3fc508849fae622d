//! `idempotency`: which verdict answered a key, for 24 hours.

use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::read::Place;
use super::{Result, Sha256, StoreError};

pub const EXPIRY: Duration = Duration::hours(24);

/// What a key stands for: another fingerprint under the same key is a conflict, the same one a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    pub fingerprint: Sha256,
    pub verdict_id: Uuid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insertion {
    Inserted,
    /// Somebody was faster: roll back and answer from theirs, or refuse.
    Taken(Recorded),
}

/// Names one key: per project and route.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    pub project: &'a str,
    pub route: &'a str,
    pub key: &'a str,
}

fn read((fingerprint, verdict_id): (Vec<u8>, Uuid)) -> Result<Recorded> {
    let fingerprint = Place::new("idempotency", verdict_id).sha256("fingerprint", &fingerprint)?;
    Ok(Recorded { fingerprint, verdict_id })
}

#[tracing::instrument(name = "db.idempotency.find", skip_all)]
pub async fn find(conn: &mut PgConnection, key: Key<'_>, now: OffsetDateTime) -> Result<Option<Recorded>> {
    let row: Option<(Vec<u8>, Uuid)> = sqlx::query_as(
        "select fingerprint, verdict_id from idempotency
         where project = $1 and route = $2 and key = $3 and created_at > $4",
    )
    .bind(key.project)
    .bind(key.route)
    .bind(key.key)
    .bind(now - EXPIRY)
    .fetch_optional(conn)
    .await?;
    row.map(read).transpose()
}

/// In the verdict's transaction. Of two at once the second waits for the first to commit and then sees
/// its row; an expired row is replaced.
#[tracing::instrument(name = "db.idempotency.insert", skip_all)]
pub async fn insert(
    conn: &mut PgConnection,
    key: Key<'_>,
    recorded: Recorded,
    now: OffsetDateTime,
) -> Result<Insertion> {
    // One more turn if the row that was in the way is swept between the two statements.
    for _ in 0..2 {
        let done = sqlx::query(
            "insert into idempotency as old (project, route, key, fingerprint, verdict_id, created_at)
             values ($1, $2, $3, $4, $5, $6)
             on conflict (project, route, key) do update set
                 fingerprint = excluded.fingerprint,
                 verdict_id = excluded.verdict_id,
                 created_at = excluded.created_at
             where old.created_at <= $7",
        )
        .bind(key.project)
        .bind(key.route)
        .bind(key.key)
        .bind(recorded.fingerprint)
        .bind(recorded.verdict_id)
        .bind(now)
        .bind(now - EXPIRY)
        .execute(&mut *conn)
        .await?;
        if done.rows_affected() == 1 {
            return Ok(Insertion::Inserted);
        }
        if let Some(theirs) = find(conn, key, now).await? {
            return Ok(Insertion::Taken(theirs));
        }
    }
    Err(StoreError::Unavailable { source: sqlx::Error::RowNotFound })
}

/// Removes at most `limit` expired rows; says how many.
#[tracing::instrument(name = "db.idempotency.sweep", skip_all)]
pub async fn sweep(conn: &mut PgConnection, now: OffsetDateTime, limit: i64) -> Result<u64> {
    let done = sqlx::query(
        "delete from idempotency where (project, route, key) in (
             select project, route, key from idempotency
             where created_at <= $1 order by created_at limit $2 for update skip locked)",
    )
    .bind(now - EXPIRY)
    .bind(limit)
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
