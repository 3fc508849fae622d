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

/// A judgement, of which bytes and for whose upload.
#[derive(Debug, Clone, Copy)]
pub struct Judged<'a> {
    pub project: &'a str,
    pub sha256: &'a Sha256,
    pub judgement: &'a Judgement,
}

/// Puts on record what projects' uploads were judged. The first judgement of a question stays; a
/// second one, from a race or from another project, only lets that project recall it from now on.
/// An unknown judge digest is a mistake of ours and an error.
#[tracing::instrument(name = "db.judgement.insert", skip_all, fields(count = judged.len()))]
pub async fn insert(conn: &mut PgConnection, judged: &[Judged<'_>]) -> Result<()> {
    if judged.is_empty() {
        return Ok(());
    }
    let column = Columns::of(judged)?;
    let unknown: Option<Vec<u8>> = sqlx::query_scalar(
        "with asked as (
             select j.id, u.*
             from unnest($1::text[], $2::bytea[], $3::bytea[], $4::bytea[], $5::real[], $6::bigint[],
                         $7::bigint[], $8::text[], $9::text[], $10::text[], $11::timestamptz[], $12::text[])
                  u (project, sha256, digest, question_hash, probability, worst_frame, worst_at_ms,
                     worst_background, runtime, device, at, frames)
             left join judges j on j.digest = u.digest),
         first as (
             insert into judgements (sha256, judge_id, question_hash, project, probability,
                                     worst_frame, worst_at_ms, worst_background, runtime, device, at, frames)
             select sha256, id, question_hash, project, probability,
                    worst_frame, worst_at_ms, worst_background, runtime, device, at, frames::json
             from asked where id is not null
             -- The same order in every transaction, or two uploads of the same bytes could deadlock.
             order by sha256, id, question_hash
             on conflict (sha256, judge_id, question_hash) do nothing
             returning sha256, judge_id, question_hash, project),
         shared as (
             insert into judgement_shares (sha256, judge_id, question_hash, project)
             select sha256, id, question_hash, project
             from asked
             where id is not null
               and not exists (select from first f
                               where f.sha256 = asked.sha256 and f.judge_id = asked.id
                                 and f.question_hash = asked.question_hash and f.project = asked.project)
               and not exists (select from judgements m
                               where m.sha256 = asked.sha256 and m.judge_id = asked.id
                                 and m.question_hash = asked.question_hash and m.project = asked.project)
             order by sha256, id, question_hash
             on conflict do nothing)
         select digest from asked where id is null limit 1",
    )
    .bind(column.projects)
    .bind(column.contents)
    .bind(column.digests)
    .bind(column.questions)
    .bind(column.probabilities)
    .bind(column.frames_at)
    .bind(column.at_ms)
    .bind(column.backgrounds)
    .bind(column.runtimes)
    .bind(column.devices)
    .bind(column.times)
    .bind(column.frames)
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

/// The rows as the columns that one statement takes.
#[derive(Default)]
struct Columns<'a> {
    projects: Vec<&'a str>,
    contents: Vec<&'a [u8]>,
    digests: Vec<&'a [u8]>,
    questions: Vec<&'a [u8]>,
    probabilities: Vec<f32>,
    frames_at: Vec<Option<i64>>,
    at_ms: Vec<Option<i64>>,
    backgrounds: Vec<Option<&'static str>>,
    runtimes: Vec<&'a str>,
    devices: Vec<&'a str>,
    times: Vec<OffsetDateTime>,
    frames: Vec<Option<String>>,
}

impl<'a> Columns<'a> {
    fn of(judged: &[Judged<'a>]) -> Result<Self> {
        let mut columns = Self::default();
        for Judged { project, sha256, judgement } in judged {
            let Judgement { probability, worst, frames, .. } = judgement;
            if !(0.0..=1.0).contains(probability) {
                let why = format!("`{probability}` is not a probability");
                return Err(StoreError::unstorable("probability", why));
            }
            let at_ms = worst.as_ref().map(|worst| signed("worst.at_ms", worst.at_ms)).transpose()?;
            let several = (!frames.is_empty()).then(|| serde_json::to_string(frames)).transpose();
            columns.projects.push(project);
            columns.contents.push(sha256.as_slice());
            columns.digests.push(&judgement.judge_digest);
            columns.questions.push(&judgement.question_hash);
            columns.probabilities.push(*probability);
            columns.frames_at.push(worst.as_ref().map(|worst| i64::from(worst.frame)));
            columns.at_ms.push(at_ms);
            columns.backgrounds.push(worst.as_ref().and_then(|worst| Some(worst.background?.word())));
            columns.runtimes.push(&judgement.runtime);
            columns.devices.push(&judgement.device);
            columns.times.push(judgement.at);
            columns
                .frames
                .push(several.map_err(|error| StoreError::unstorable("frames", error.to_string()))?);
        }
        Ok(columns)
    }
}
