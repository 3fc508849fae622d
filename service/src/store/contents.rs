//! `contents`: what bytes were seen, where they are kept and until when. Never the bytes.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::read::{Place, signed, unhex};
use super::{Result, Sha256, StoreError};
use crate::verdict::{Content, Facts, ImageExtent};

/// Where the bytes lie and how long they may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub at: String,
    pub until: OffsetDateTime,
}

/// Bytes that were seen, and what is to become of them.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    pub content: &'a Content,
    /// None asks for nothing.
    pub kept: Option<&'a Kept>,
    /// What was found in it, and by which version of the media pipeline; none where nobody looked.
    pub facts: Option<(&'a Facts, &'a str)>,
    pub at: OffsetDateTime,
}

/// Notes what was seen. What an earlier upload arranged stays, except that keeping is prolonged: the
/// longest wish wins.
#[tracing::instrument(name = "db.content.upsert", skip_all, fields(count = seen.len()))]
pub async fn upsert(conn: &mut PgConnection, seen: &[Seen<'_>]) -> Result<()> {
    let mut rows: Vec<Row<'_>> = seen.iter().map(Row::of).collect::<Result<_>>()?;
    // The same order in every transaction, or two that see the same pictures could deadlock; and of the
    // same bytes one row, for a statement can't write a row twice.
    rows.sort_by_key(|row| row.sha256);
    rows.dedup_by(|again, first| again.sha256 == first.sha256 && first.absorb(again));
    let of_images = |column: fn(&ImageExtent) -> i64| {
        rows.iter().map(|row| row.content.image().map(column)).collect::<Vec<Option<i64>>>()
    };
    let first = sqlx::query(
        "insert into contents (sha256, kind, media_type, bytes, width, height, frames_total, pdq,
                               first_seen_at, kept_at, kept_until, facts, pipeline, characters)
         select sha256, kind, media_type, bytes, width, height, frames_total, pdq,
                first_seen_at, kept_at, kept_until, facts::json, pipeline, characters
         from unnest($1::bytea[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[],
                              $7::bigint[], $8::bytea[], $9::timestamptz[], $10::text[], $11::timestamptz[],
                     $12::text[], $13::text[], $14::bigint[])
              u (sha256, kind, media_type, bytes, width, height, frames_total, pdq,
                 first_seen_at, kept_at, kept_until, facts, pipeline, characters)
         on conflict (sha256) do nothing",
    )
    .bind(rows.iter().map(|row| row.sha256.as_slice()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| if row.characters.is_some() { "text" } else { "image" }).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.content.media_type.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.bytes).collect::<Vec<_>>())
    .bind(of_images(|image| i64::from(image.width)))
    .bind(of_images(|image| i64::from(image.height)))
    .bind(of_images(|image| i64::from(image.frames_total)))
    .bind(rows.iter().map(|row| row.pdq.as_ref().map(|pdq| pdq.as_slice())).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.at).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.kept.map(|kept| kept.at.as_str())).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.kept.map(|kept| kept.until)).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.facts.as_deref()).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.pipeline).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.characters).collect::<Vec<_>>())
    .execute(&mut *conn)
    .await?;
    if first.rows_affected() == rows.len() as u64 {
        return Ok(());
    }
    // Second statements and not DO UPDATE: that would lock the row of a popular picture for every upload
    // of it, though hardly one of them has anything to change.
    for row in rows.iter().filter(|row| row.kept.is_some() || row.facts.is_some()) {
        sqlx::query(
            "update contents set
                 pdq = coalesce(pdq, $2),
                 facts = coalesce($5::text::json, facts),
                 pipeline = coalesce($6, pipeline),
                 kept_at = coalesce($3, kept_at),
                 kept_until = greatest(kept_until, $4)
             where sha256 = $1
               and ((pdq is null and $2 is not null)
                    or ($6 is not null and pipeline is distinct from $6)
                    or ($3 is not null and (kept_until is null or kept_until < $4)))",
        )
        .bind(row.sha256)
        .bind(row.pdq)
        .bind(row.kept.map(|kept| kept.at.as_str()))
        .bind(row.kept.map(|kept| kept.until))
        .bind(row.facts.as_deref())
        .bind(row.pipeline)
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

struct Row<'a> {
    sha256: Sha256,
    pdq: Option<Sha256>,
    bytes: i64,
    /// Of a text.
    characters: Option<i64>,
    content: &'a Content,
    kept: Option<&'a Kept>,
    facts: Option<String>,
    pipeline: Option<&'a str>,
    at: OffsetDateTime,
}

impl<'a> Row<'a> {
    fn of(seen: &Seen<'a>) -> Result<Self> {
        let Seen { content, kept, facts, at } = *seen;
        let pdq = content.image().and_then(|image| image.pdq.as_deref());
        let characters = content.text().map(|text| signed("content.characters", text.characters));
        let text = facts.map(|(facts, _)| serde_json::to_string(facts)).transpose();
        Ok(Self {
            facts: text.map_err(|error| StoreError::unstorable("facts", error.to_string()))?,
            pipeline: facts.map(|(_, pipeline)| pipeline),
            sha256: unhex("content.sha256", &content.sha256)?,
            pdq: pdq.map(|pdq| unhex("content.pdq", pdq)).transpose()?,
            characters: characters.transpose()?,
            bytes: signed("content.bytes", content.bytes)?,
            content,
            kept,
            at,
        })
    }

    /// Takes over what another sight of the same bytes wishes.
    fn absorb(&mut self, again: &mut Self) -> bool {
        self.pdq = self.pdq.or(again.pdq);
        if self.facts.is_none() {
            (self.facts, self.pipeline) = (again.facts.take(), again.pipeline);
        }
        if again.kept.map(|kept| kept.until) > self.kept.map(|kept| kept.until) {
            self.kept = again.kept;
        }
        true
    }
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
