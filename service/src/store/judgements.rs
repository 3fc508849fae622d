//! `judges`, `judgements` and who may recall them: what was judged once is not judged again.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::read::{Place, Word as _, hex, signed, utc};
use super::{Result, Sha256, StoreError};
use crate::verdict::{FrameScore, Worst};

/// One success. Failures are not kept: the next upload tries again.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    pub judge_digest: Sha256,
    pub question_hash: Sha256,
    pub probability: f32,
    pub worst: Option<Worst>,
    /// Of an animation, each frame that was looked at, the worst first: policies count frames differently.
    pub frames: Vec<FrameScore>,
    pub runtime: String,
    pub device: String,
    pub at: OffsetDateTime,
}

/// The judge's number in this database; made known at start, before it judges. A digest that is known
/// keeps its first description.
#[tracing::instrument(name = "db.judge.ensure", skip_all, fields(name))]
pub async fn ensure_judge(
    conn: &mut PgConnection,
    digest: &Sha256,
    kind: &str,
    name: &str,
    demo: bool,
) -> Result<i32> {
    sqlx::query(
        "insert into judges (digest, kind, name, demo) values ($1, $2, $3, $4) on conflict (digest) do nothing",
    )
    .bind(digest)
    .bind(kind)
    .bind(name)
    .bind(demo)
    .execute(&mut *conn)
    .await?;
    Ok(sqlx::query_scalar("select id from judges where digest = $1").bind(digest).fetch_one(conn).await?)
}

#[derive(sqlx::FromRow)]
struct Row {
    judge_digest: Vec<u8>,
    question_hash: Vec<u8>,
    probability: f32,
    worst_frame: Option<i64>,
    worst_at_ms: Option<i64>,
    worst_background: Option<String>,
    frames: Option<String>,
    runtime: String,
    device: String,
    at: OffsetDateTime,
}

impl TryFrom<Row> for Judgement {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self> {
        let place = Place::new(
            "judgements",
            format!("judge {} question {}", hex(&row.judge_digest), hex(&row.question_hash)),
        );
        if !(0.0..=1.0).contains(&row.probability) {
            return Err(place.wrong("probability", format!("`{}` is not a probability", row.probability)));
        }
        Ok(Self {
            judge_digest: place.sha256("digest", &row.judge_digest)?,
            question_hash: place.sha256("question_hash", &row.question_hash)?,
            probability: row.probability,
            frames: match row.frames {
                None => Vec::new(),
                Some(text) => {
                    serde_json::from_str(&text).map_err(|error| place.wrong("frames", error.to_string()))?
                }
            },
            worst: place.worst(row.worst_frame, row.worst_at_ms, row.worst_background.as_deref())?,
            runtime: row.runtime,
            device: row.device,
            at: utc(row.at),
        })
    }
}

/// Those of the asked (judge digest, question hash) that are on record and that this project had judged
/// itself, in any order. Served by the primary key: one probe a pair, in one of the hash partitions.
#[tracing::instrument(name = "db.judgement.recall", skip_all)]
pub async fn recall(
    conn: &mut PgConnection,
    project: &str,
    sha256: &Sha256,
    asked: &[(Sha256, Sha256)],
) -> Result<Vec<Judgement>> {
    let (digests, questions): (Vec<&[u8]>, Vec<&[u8]>) =
        asked.iter().map(|(digest, question)| (digest.as_slice(), question.as_slice())).unzip();
    let rows: Vec<Row> = sqlx::query_as(
        "select j.digest as judge_digest, m.question_hash, m.probability,
                m.worst_frame, m.worst_at_ms, m.worst_background, m.frames::text, m.runtime, m.device, m.at
         from (select distinct digest, question_hash
               from unnest($3::bytea[], $4::bytea[]) u (digest, question_hash)) asked
         join judges j on j.digest = asked.digest
         join judgements m on m.sha256 = $2 and m.judge_id = j.id and m.question_hash = asked.question_hash
         -- Another project's judgement is as good, but recalling it would tell that the bytes were there.
         where m.project = $1
            or exists (select from judgement_shares s
                       where s.sha256 = $2 and s.judge_id = m.judge_id
                         and s.question_hash = m.question_hash and s.project = $1)",
    )
    .bind(project)
    .bind(sha256)
    .bind(digests)
    .bind(questions)
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Judgement::try_from).collect()
}

/// Puts on record what this project's upload was judged. The first judgement of a question stays; a
/// second one, from a race or from another project, only lets that project recall it from now on.
/// An unknown judge digest is a mistake of ours and an error.
#[tracing::instrument(name = "db.judgement.insert", skip_all)]
pub async fn insert(
    conn: &mut PgConnection,
    project: &str,
    sha256: &Sha256,
    judgements: &[Judgement],
) -> Result<()> {
    for judgement in judgements {
        if !(0.0..=1.0).contains(&judgement.probability) {
            let why = format!("`{}` is not a probability", judgement.probability);
            return Err(StoreError::unstorable("probability", why));
        }
    }
    let worst = |judgement: &Judgement| judgement.worst.clone();
    let at_ms = judgements
        .iter()
        .map(|j| worst(j).map(|worst| signed("worst.at_ms", worst.at_ms)).transpose())
        .collect::<Result<Vec<Option<i64>>>>()?;
    let frames = judgements.iter().map(|judgement| {
        let several = (!judgement.frames.is_empty()).then(|| serde_json::to_string(&judgement.frames));
        several.transpose().map_err(|error| StoreError::unstorable("frames", error.to_string()))
    });
    let frames = frames.collect::<Result<Vec<Option<String>>>>()?;
    let unknown: Option<Vec<u8>> = sqlx::query_scalar(
        "with asked as (
             select j.id, u.*
             from unnest($3::bytea[], $4::bytea[], $5::real[], $6::bigint[], $7::bigint[], $8::text[],
                         $9::text[], $10::text[], $11::timestamptz[], $12::text[])
                  u (digest, question_hash, probability, worst_frame, worst_at_ms, worst_background,
                     runtime, device, at, frames)
             left join judges j on j.digest = u.digest),
         first as (
             insert into judgements (sha256, judge_id, question_hash, project, probability,
                                     worst_frame, worst_at_ms, worst_background, runtime, device, at, frames)
             select $2, id, question_hash, $1, probability,
                    worst_frame, worst_at_ms, worst_background, runtime, device, at, frames::json
             from asked where id is not null
             -- The same order in every transaction, or two uploads of the same bytes could deadlock.
             order by id, question_hash
             on conflict (sha256, judge_id, question_hash) do nothing
             returning judge_id, question_hash),
         shared as (
             insert into judgement_shares (sha256, judge_id, question_hash, project)
             select $2, id, question_hash, $1
             from asked
             where id is not null
               and not exists (select from first f
                               where f.judge_id = asked.id and f.question_hash = asked.question_hash)
               and not exists (select from judgements m
                               where m.sha256 = $2 and m.judge_id = asked.id
                                 and m.question_hash = asked.question_hash and m.project = $1)
             order by id, question_hash
             on conflict do nothing)
         select digest from asked where id is null limit 1",
    )
    .bind(project)
    .bind(sha256)
    .bind(judgements.iter().map(|j| j.judge_digest.as_slice()).collect::<Vec<_>>())
    .bind(judgements.iter().map(|j| j.question_hash.as_slice()).collect::<Vec<_>>())
    .bind(judgements.iter().map(|j| j.probability).collect::<Vec<_>>())
    .bind(judgements.iter().map(|j| worst(j).map(|worst| i64::from(worst.frame))).collect::<Vec<_>>())
    .bind(at_ms)
    .bind(
        judgements
            .iter()
            .map(|j| worst(j).and_then(|worst| worst.background).map(|background| background.word()))
            .collect::<Vec<_>>(),
    )
    .bind(judgements.iter().map(|j| j.runtime.as_str()).collect::<Vec<_>>())
    .bind(judgements.iter().map(|j| j.device.as_str()).collect::<Vec<_>>())
    .bind(judgements.iter().map(|j| j.at).collect::<Vec<_>>())
    .bind(frames)
    .fetch_optional(conn)
    .await?;
    match unknown {
        None => Ok(()),
        Some(digest) => Err(StoreError::inconsistent(
            "judges",
            "digest",
            hex(&digest),
            "no such judge; `ensure_judge` comes first",
        )),
    }
}
