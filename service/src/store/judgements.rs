//! `judges`, `judgements` and who may recall them: what was judged once is not judged again.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::read::{Place, Word as _, hex, signed, utc};
use super::{Grouped, Result, Sha256, Store, StoreError};
use crate::verdict::{FrameAt, FrameScore, WindowAt, Worst};

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
    worst_start: Option<i64>,
    worst_end: Option<i64>,
    worst_form: Option<String>,
    frames: Option<String>,
    runtime: String,
    device: String,
    at: OffsetDateTime,
}

impl Row {
    fn worst(&self, place: &Place) -> Result<Option<Worst>> {
        if let (Some(frame), Some(at_ms)) = (self.worst_frame, self.worst_at_ms) {
            let background = self.worst_background.as_deref();
            return Ok(Some(Worst::Frame(FrameAt {
                frame: place.count("worst_frame", frame)?,
                at_ms: place.count("worst_at_ms", at_ms)?,
                background: background.map(|word| place.word("worst_background", word)).transpose()?,
            })));
        }
        let (Some(start), Some(end), Some(form)) = (self.worst_start, self.worst_end, &self.worst_form)
        else {
            return Ok(None);
        };
        Ok(Some(Worst::Window(WindowAt {
            start: place.count("worst_start", start)?,
            end: place.count("worst_end", end)?,
            form: place.word("worst_form", form)?,
        })))
    }
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
        let worst = row.worst(&place)?;
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
            worst,
            runtime: row.runtime,
            device: row.device,
            at: utc(row.at),
        })
    }
}

/// What is asked of one submission.
#[derive(Debug, Clone)]
pub struct Recall {
    pub project: String,
    pub sha256: Sha256,
    /// Judge digest and question hash.
    pub asked: Vec<(Sha256, Sha256)>,
}

impl Grouped for Recall {
    type Done = Vec<Judgement>;
    type Error = StoreError;

    async fn together(store: &Store, group: &[Self]) -> Result<Vec<Vec<Judgement>>> {
        store.read(async |conn| recall(conn, group).await).await
    }

    fn store_error(error: &StoreError) -> Option<&StoreError> {
        Some(error)
    }
}

#[derive(sqlx::FromRow)]
struct Recalled {
    position: i32,
    #[sqlx(flatten)]
    row: Row,
}

/// For each, in their order: those asked for that are on record and that this project had judged itself,
/// in any order. Served by the primary key: one probe a pair, in one of the hash partitions.
#[tracing::instrument(name = "db.judgement.recall", skip_all, fields(count = recalls.len()))]
pub async fn recall(conn: &mut PgConnection, recalls: &[Recall]) -> Result<Vec<Vec<Judgement>>> {
    let mut positions: Vec<i32> = Vec::new();
    let (mut projects, mut contents): (Vec<&str>, Vec<&[u8]>) = Default::default();
    let (mut digests, mut questions): (Vec<&[u8]>, Vec<&[u8]>) = Default::default();
    for (position, recall) in (0..).zip(recalls) {
        for (digest, question) in &recall.asked {
            positions.push(position);
            projects.push(&recall.project);
            contents.push(&recall.sha256);
            digests.push(digest);
            questions.push(question);
        }
    }
    let rows: Vec<Recalled> = sqlx::query_as(
        "select r.position, j.digest as judge_digest, m.*
         from (select distinct *
               from unnest($1::int[], $2::text[], $3::bytea[], $4::bytea[], $5::bytea[])
                    u (position, project, sha256, digest, question_hash)) r
         join judges j on j.digest = r.digest
         -- Lateral: a plan is made once and must not rest on how small the tables were then.
         cross join lateral (
             select m.question_hash, m.probability, m.worst_frame, m.worst_at_ms, m.worst_background,
                    m.worst_start, m.worst_end, m.worst_form, m.frames::text as frames, m.runtime, m.device,
                    m.at
             from judgements m
             where m.sha256 = r.sha256 and m.judge_id = j.id and m.question_hash = r.question_hash
               -- Another project's judgement is as good, but recalling it would tell that the bytes were there.
               and (m.project = r.project
                    or exists (select from judgement_shares s
                               where s.sha256 = r.sha256 and s.judge_id = j.id
                                 and s.question_hash = r.question_hash and s.project = r.project))
             offset 0
         ) m",
    )
    .bind(positions)
    .bind(projects)
    .bind(contents)
    .bind(digests)
    .bind(questions)
    .fetch_all(conn)
    .await?;
    let mut recalled = vec![Vec::new(); recalls.len()];
    for Recalled { position, row } in rows {
        if let Some(of) = usize::try_from(position).ok().and_then(|position| recalled.get_mut(position)) {
            of.push(Judgement::try_from(row)?);
        }
    }
    Ok(recalled)
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
                         $7::bigint[], $8::text[], $9::text[], $10::text[], $11::timestamptz[], $12::text[],
                         $13::bigint[], $14::bigint[], $15::text[])
                  u (project, sha256, digest, question_hash, probability, worst_frame, worst_at_ms,
                     worst_background, runtime, device, at, frames, worst_start, worst_end, worst_form)
             left join judges j on j.digest = u.digest),
         first as (
             insert into judgements (sha256, judge_id, question_hash, project, probability,
                                     worst_frame, worst_at_ms, worst_background, worst_start, worst_end,
                                     worst_form, runtime, device, at, frames)
             select sha256, id, question_hash, project, probability,
                    worst_frame, worst_at_ms, worst_background, worst_start, worst_end,
                    worst_form, runtime, device, at, frames::json
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
    .bind(column.starts)
    .bind(column.ends)
    .bind(column.forms)
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
    starts: Vec<Option<i64>>,
    ends: Vec<Option<i64>>,
    forms: Vec<Option<&'static str>>,
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
            let (frame, window) = match worst {
                Some(Worst::Frame(frame)) => (Some(frame), None),
                Some(Worst::Window(window)) => (None, Some(window)),
                None => (None, None),
            };
            let at_ms = frame.map(|frame| signed("worst.at_ms", frame.at_ms)).transpose()?;
            let start = window.map(|window| signed("worst.start", window.start)).transpose()?;
            let end = window.map(|window| signed("worst.end", window.end)).transpose()?;
            let several = (!frames.is_empty()).then(|| serde_json::to_string(frames)).transpose();
            columns.projects.push(project);
            columns.contents.push(sha256.as_slice());
            columns.digests.push(&judgement.judge_digest);
            columns.questions.push(&judgement.question_hash);
            columns.probabilities.push(*probability);
            columns.frames_at.push(frame.map(|frame| i64::from(frame.frame)));
            columns.at_ms.push(at_ms);
            columns.starts.push(start);
            columns.ends.push(end);
            columns.forms.push(window.map(|window| window.form.word()));
            columns.backgrounds.push(frame.and_then(|frame| Some(frame.background?.word())));
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
