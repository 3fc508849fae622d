//! `contents`: what bytes were seen, where they are kept and until when. Never the bytes.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::read::{Place, signed, unhex};
use super::{Result, Sha256};
use crate::verdict::Content;

/// Where the bytes lie and how long they may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub at: String,
    pub until: OffsetDateTime,
}

/// Notes that these bytes were seen. What an earlier upload arranged stays, except that keeping is
/// prolonged: the longest wish wins. `kept: None` asks for nothing.
#[tracing::instrument(name = "db.content.upsert", skip_all, fields(sha256 = %content.sha256))]
pub async fn upsert(
    conn: &mut PgConnection,
    content: &Content,
    kind: &str,
    kept: Option<&Kept>,
    now: OffsetDateTime,
) -> Result<()> {
    let sha256 = unhex("content.sha256", &content.sha256)?;
    let pdq = content.pdq.as_deref().map(|pdq| unhex("content.pdq", pdq)).transpose()?;
    let first = sqlx::query(
        "insert into contents (sha256, kind, media_type, bytes, width, height, frames_total, pdq,
                               first_seen_at, kept_at, kept_until)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         on conflict (sha256) do nothing",
    )
    .bind(sha256)
    .bind(kind)
    .bind(&content.media_type)
    .bind(signed("content.bytes", content.bytes)?)
    .bind(i64::from(content.width))
    .bind(i64::from(content.height))
    .bind(i64::from(content.frames_total))
    .bind(pdq)
    .bind(now)
    .bind(kept.map(|kept| kept.at.as_str()))
    .bind(kept.map(|kept| kept.until))
    .execute(&mut *conn)
    .await?;
    if first.rows_affected() == 1 || (kept.is_none() && pdq.is_none()) {
        return Ok(());
    }
    // A second statement and not DO UPDATE: that would lock the row of a popular picture for every
    // upload of it, though hardly one of them has anything to change.
    sqlx::query(
        "update contents set
             pdq = coalesce(pdq, $2),
             kept_at = coalesce($3, kept_at),
             kept_until = greatest(kept_until, $4)
         where sha256 = $1
           and ((pdq is null and $2 is not null)
                or ($3 is not null and (kept_until is null or kept_until < $4)))",
    )
    .bind(sha256)
    .bind(pdq)
    .bind(kept.map(|kept| kept.at.as_str()))
    .bind(kept.map(|kept| kept.until))
    .execute(conn)
    .await?;
    Ok(())
}

/// Contents whose time is over and that no legal hold protects, longest overdue first. Inside a
/// transaction they stay locked until its end, and a second sweeper gets others.
#[tracing::instrument(name = "db.content.expired", skip_all)]
pub async fn expired(
    conn: &mut PgConnection,
    now: OffsetDateTime,
    limit: i64,
) -> Result<Vec<(Sha256, Kept)>> {
    let rows: Vec<(Vec<u8>, String, OffsetDateTime)> = sqlx::query_as(
        "select sha256, kept_at, kept_until from contents
         where kept_at is not null and kept_until <= $1 and not legal_hold
         order by kept_until
         limit $2
         for update skip locked",
    )
    .bind(now)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|(sha256, at, until)| {
            let sha256 = Place::new("contents", super::read::hex(&sha256)).sha256("sha256", &sha256)?;
            Ok((sha256, Kept { at, until }))
        })
        .collect()
}

/// Notes that the bytes are gone. False: they are on hold or their time was prolonged, so keep them.
#[tracing::instrument(name = "db.content.forget_bytes", skip_all)]
pub async fn forget_bytes(conn: &mut PgConnection, sha256: &Sha256, now: OffsetDateTime) -> Result<bool> {
    let done = sqlx::query(
        "update contents set kept_at = null, kept_until = null
         where sha256 = $1 and kept_at is not null and kept_until <= $2 and not legal_hold",
    )
    .bind(sha256)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Where the bytes are kept, if they are.
#[tracing::instrument(name = "db.content.kept", skip_all)]
pub async fn kept(conn: &mut PgConnection, sha256: &Sha256) -> Result<Option<Kept>> {
    let row: Option<(String, OffsetDateTime)> =
        sqlx::query_as("select kept_at, kept_until from contents where sha256 = $1 and kept_at is not null")
            .bind(sha256)
            .fetch_optional(conn)
            .await?;
    Ok(row.map(|(at, until)| Kept { at, until }))
}
