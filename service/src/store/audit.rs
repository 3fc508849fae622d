//! `audit`: who did what to what. Append-only, each entry with the leaf hash that the seals rest on.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256 as Hasher};
use sqlx::{PgConnection, Postgres, QueryBuilder};
use time::OffsetDateTime;
use uuid::Uuid;

use super::cursor::{Cursor, List, Page, bounded, page as cut};
use super::read::{JsonText, Place, utc};
use super::{Result, Sha256, StoreError};
use crate::canonical;

#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub id: Uuid,
    /// In microseconds: Postgres keeps no more, and the leaf hash covers it.
    pub at: OffsetDateTime,
    pub project: String,
    /// `key:<id>`, `cli:<user>`, `system`.
    pub actor: String,
    /// `verdict.recorded`, `policy.activated`.
    pub act: String,
    /// The id of what was acted upon.
    pub target: Option<String>,
    /// A JSON object of hashes that pin down what was decided: content, policy versions, judges.
    pub hashes: Value,
    /// A JSON object. Never metadata, never content.
    pub detail: Value,
}

/// An entry as it is on record.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    pub seq: i64,
    pub entry: Entry,
    pub leaf_hash: Sha256,
}

/// The leaf of RFC 6962: SHA-256 over a zero byte and the entry's canonical JSON.
///
/// Canonical is [`crate::canonical::to_string`] of the object with exactly the keys `act`, `actor`, `at` (RFC 3339, UTC,
/// six decimals), `detail`, `hashes`, `id` (hyphenated, lowercase), `project`, `target` (null where there
/// is none). The sequence number is no part of it: Postgres gives it when the row is written.
pub fn leaf_hash(entry: &Entry) -> Result<Sha256> {
    let at = crate::timestamp::format(entry.at)
        .map_err(|error| StoreError::unstorable("at", error.to_string()))?;
    let document = json!({
        "act": entry.act,
        "actor": entry.actor,
        "at": at,
        "detail": entry.detail,
        "hashes": entry.hashes,
        "id": entry.id.hyphenated().to_string(),
        "project": entry.project,
        "target": entry.target,
    });
    let mut hasher = Hasher::new();
    hasher.update([0]);
    hasher.update(canonical::to_string(&document).as_bytes());
    Ok(hasher.finalize().into())
}

/// In the transaction of what they tell about, so that neither is on record without the other.
#[tracing::instrument(name = "db.audit.append", skip_all, fields(count = entries.len()))]
pub async fn append(conn: &mut PgConnection, entries: &[Entry]) -> Result<()> {
    if entries.iter().any(|entry| !entry.hashes.is_object() || !entry.detail.is_object()) {
        return Err(StoreError::unstorable("audit entry", "`hashes` and `detail` are JSON objects"));
    }
    let leaves = entries.iter().map(leaf_hash).collect::<Result<Vec<Sha256>>>()?;
    sqlx::query(
        "insert into audit (id, at, project, actor, act, target, hashes, detail, leaf_hash)
         select id, at, project, actor, act, target, hashes::json, detail::json, leaf_hash
         from unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[],
                     $7::text[], $8::text[], $9::bytea[])
              with ordinality
              u (id, at, project, actor, act, target, hashes, detail, leaf_hash, position)
         order by position",
    )
    .bind(entries.iter().map(|entry| entry.id).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.at).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.project.as_str()).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.actor.as_str()).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.act.as_str()).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| entry.target.as_deref()).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| canonical::to_string(&entry.hashes)).collect::<Vec<_>>())
    .bind(entries.iter().map(|entry| canonical::to_string(&entry.detail)).collect::<Vec<_>>())
    .bind(leaves.iter().map(|leaf| leaf.as_slice()).collect::<Vec<_>>())
    .execute(conn)
    .await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct Row {
    seq: i64,
    id: Uuid,
    at: OffsetDateTime,
    project: String,
    actor: String,
    act: String,
    target: Option<String>,
    hashes: JsonText,
    detail: JsonText,
    leaf_hash: Vec<u8>,
}

impl TryFrom<Row> for Recorded {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        let place = Place::new("audit", row.seq);
        Ok(Self {
            seq: row.seq,
            leaf_hash: place.sha256("leaf_hash", &row.leaf_hash)?,
            entry: Entry {
                id: row.id,
                at: utc(row.at),
                project: row.project,
                actor: row.actor,
                act: row.act,
                target: row.target,
                hashes: place.json("hashes", &row.hashes.0)?,
                detail: place.json("detail", &row.detail.0)?,
            },
        })
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    pub actor: Option<String>,
    pub act: Option<String>,
    pub target: Option<String>,
    pub since: Option<OffsetDateTime>,
    pub until: Option<OffsetDateTime>,
}

/// Newest first, by sequence number. The number is drawn before the commit, so an entry may still appear
/// below one that was read already:
///
/// ```text
/// A draws 7 · B draws 8 · B commits · a reader sees 8, not 7 · A commits · 7 is there
/// ```
///
/// Good for people. What must see every entry (sealing) has to wait for the writers, not read this list.
#[tracing::instrument(name = "db.audit.page", skip_all)]
pub async fn page(
    conn: &mut PgConnection,
    project: &str,
    filter: &Filter,
    cursor: Option<Cursor>,
    limit: u32,
) -> Result<Page<Recorded>> {
    let limit = bounded(limit);
    let mut sql = QueryBuilder::<Postgres>::new("select * from audit where project = ");
    sql.push_bind(project);
    if let Some(cursor) = cursor {
        sql.push(" and seq < ").push_bind(cursor.seq(List::Audit)?);
    }
    for (column, value) in [("actor", &filter.actor), ("act", &filter.act), ("target", &filter.target)] {
        if let Some(value) = value {
            sql.push(" and ").push(column).push(" = ").push_bind(value);
        }
    }
    if let Some(since) = filter.since {
        sql.push(" and at >= ").push_bind(since);
    }
    if let Some(until) = filter.until {
        sql.push(" and at < ").push_bind(until);
    }
    sql.push(" order by seq desc limit ").push_bind(i64::try_from(limit + 1).unwrap_or(i64::MAX));
    let rows: Vec<Row> = sql.build_query_as().fetch_all(conn).await?;
    let data = rows.into_iter().map(Recorded::try_from).collect::<Result<Vec<_>>>()?;
    Ok(cut(data, limit, |last| Cursor::after_seq(List::Audit, last.seq)))
}
