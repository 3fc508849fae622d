//! A database of its own for every test, on the server that `make test` has started.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::Pin;
use std::str::FromStr as _;

use futures_util::FutureExt as _;
use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use time::OffsetDateTime;
use uuid::{NoContext, Timestamp, Uuid};

use super::judgements::{Judged, Judgement};
use super::{Sha256, Store, StoreConfig, StoreError, audit, migrate, read};
use crate::verdict::{
    Action, Background, Content, ErrorNote, Extent, FrameAt, ImageExtent, JudgeAnswer, Outcome, PolicyAnswer,
    PolicyNotRun, Status, Thresholds, Verdict, Worst,
};

pub(crate) struct TestDb {
    /// As the owner.
    pub(crate) options: PgConnectOptions,
}

impl TestDb {
    pub(crate) async fn owner(&self) -> PgConnection {
        PgConnection::connect_with(&self.options).await.expect("the owner connects")
    }

    /// With exactly the rights of the service's role.
    pub(crate) async fn service(&self) -> PgConnection {
        let mut conn = self.owner().await;
        conn.execute("set role shieldgate_service").await.expect("the migrations made the role");
        conn
    }

    /// Likewise.
    pub(crate) fn store(&self) -> Store {
        let options = self.options.clone().options([("role", "shieldgate_service")]);
        Store::connect(options, &StoreConfig { max_connections: 4, ..StoreConfig::default() })
    }
}

/// Runs the test on a fresh, migrated database and drops it afterwards, also when the test fails.
pub(crate) fn with_database(test: impl AsyncFnOnce(&TestDb)) -> Pin<Box<impl Future<Output = ()>>> {
    Box::pin(with_empty_database(async |db| {
        migrate::migrate(&db.options, at("2026-11-24T12:00:00Z")).await.expect("migrates");
        test(db).await;
    }))
}

/// Without the migrations.
pub(crate) async fn with_empty_database(test: impl AsyncFnOnce(&TestDb)) {
    let url = std::env::var("SHIELDGATE_TEST_DATABASE_URL")
        .expect("SHIELDGATE_TEST_DATABASE_URL is not set; `make test` starts a Postgres and sets it");
    let server = PgConnectOptions::from_str(&url).expect("SHIELDGATE_TEST_DATABASE_URL is a Postgres URL");
    let name = format!("shieldgate_test_{}", Uuid::now_v7().simple());
    let mut admin = PgConnection::connect_with(&server).await.expect("the test Postgres is up");
    admin.execute(AssertSqlSafe(format!("create database {name}"))).await.expect("creates a database");
    let db = TestDb { options: server.database(&name) };
    let outcome = AssertUnwindSafe(test(&db)).catch_unwind().await;
    admin.execute(AssertSqlSafe(format!("drop database {name} with (force)"))).await.expect("drops it");
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

pub(crate) fn at(text: &str) -> OffsetDateTime {
    crate::timestamp::parse(text).expect("a time")
}

/// A UUIDv7 of that millisecond.
pub(crate) fn id_at(at: OffsetDateTime) -> Uuid {
    let seconds = u64::try_from(at.unix_timestamp()).expect("after 1970");
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, at.nanosecond()))
}

pub(crate) fn hash(seed: u8) -> Sha256 {
    [seed; 32]
}

/// The SQLSTATE with which the database refused.
pub(crate) fn sqlstate<T>(result: Result<T, sqlx::Error>) -> String {
    match result {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error
            .as_database_error()
            .and_then(|error| error.code().map(|code| code.into_owned()))
            .unwrap_or_else(|| error.to_string()),
    }
}

pub(crate) fn unavailable<T>(result: Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Unavailable { .. }))
}

pub(crate) fn verdict(project: &str, created_at: OffsetDateTime, sha256: Sha256) -> Verdict {
    Verdict {
        id: id_at(created_at),
        status: Status::Done,
        action: Action::Review,
        cached: false,
        submission_id: id_at(created_at),
        project: project.to_owned(),
        reference: None,
        metadata: json!({}),
        source: "upload".to_owned(),
        content: Content {
            sha256: read::hex(&sha256),
            media_type: "image/png".to_owned(),
            bytes: 12_345,
            extent: Extent::Image(ImageExtent {
                pdq: None,
                pdq_quality: None,
                width: 640,
                height: 480,
                frames_total: 1,
                frames_scored: 1,
                frames_distinct: None,
                trailing_bytes: None,
            }),
        },
        policies: vec![answer("sexual", 0.6)],
        policies_not_run: vec![PolicyNotRun { policy: "violence".into(), reason: "not installed".into() }],
        raised: vec![ErrorNote { code: "frames_unscored".into(), message: "1 of 3 frames".into() }],
        runtime: "onnxruntime 1.32.0".to_owned(),
        device: "cpu".to_owned(),
        created_at,
    }
}

pub(crate) fn answer(policy: &str, probability: f32) -> PolicyAnswer {
    let thresholds = Thresholds { review: 0.5, block: 0.8 };
    PolicyAnswer {
        policy: policy.to_owned(),
        version: "v1".to_owned(),
        outcome: Outcome::Judged,
        action: Action::Review,
        probability: Some(probability),
        thresholds: Some(thresholds),
        error: None,
        judges: vec![JudgeAnswer {
            name: "opennsfw".to_owned(),
            digest: format!("sha256:{}", read::hex(&hash(7))),
            demo: false,
            probability: Some(probability),
            action: Some(Action::Review),
            thresholds,
            worst: Some(Worst::Frame(FrameAt { frame: 0, at_ms: 0, background: Some(Background::White) })),
            error: None,
            computed_on: None,
        }],
        judges_not_run: Vec::new(),
        override_id: None,
    }
}

pub(crate) fn judgement(judge: u8, question: u8, probability: f32) -> Judgement {
    Judgement {
        judge_digest: hash(judge),
        question_hash: hash(question),
        probability,
        worst: Some(Worst::Frame(FrameAt { frame: 3, at_ms: 120, background: None })),
        frames: Vec::new(),
        runtime: "onnxruntime 1.32.0".to_owned(),
        device: "cpu".to_owned(),
        at: at("2026-11-24T12:00:00.123456Z"),
    }
}

/// How many rows a table has.
pub(crate) async fn rows(conn: &mut PgConnection, table: &'static str) -> i64 {
    let count = AssertSqlSafe(format!("select count(*) from {table}"));
    sqlx::query_scalar(count).fetch_one(conn).await.expect("counts")
}

/// A project's upload of the bytes of `content` was judged so.
pub(crate) async fn judge(
    conn: &mut PgConnection,
    project: &str,
    content: u8,
    judgements: &[Judgement],
) -> super::Result<()> {
    let sha256 = &hash(content);
    let judged: Vec<_> = judgements.iter().map(|judgement| Judged { project, sha256, judgement }).collect();
    super::judgements::insert(conn, &judged).await
}

pub(crate) fn entry(project: &str, act: &str, target: &str) -> audit::Entry {
    let now = at("2026-11-24T12:00:00.123456Z");
    audit::Entry {
        id: id_at(now),
        at: now,
        project: project.to_owned(),
        actor: "key:test".to_owned(),
        act: act.to_owned(),
        target: Some(target.to_owned()),
        hashes: json!({"content": "sha256:00"}),
        detail: json!({"action": "block"}),
    }
}
