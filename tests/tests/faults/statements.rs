//! A statement that fails inside the verdict's transaction: 503 and nothing on record, not an answer.

use std::time::{Duration, Instant};

use shieldgate_tests::{Caller, Gate, Upload};
use sqlx::{Connection as _, PgConnection};

use crate::stage::{GREY, on_record, policy, rows, stage, upload};

async fn run(superuser: &mut PgConnection, statement: &'static str) {
    sqlx::raw_sql(statement).execute(superuser).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// While it fails: 503 without a trace. Afterwards: 200, on the same idempotency key.
async fn fails_whole(gate: &Gate, caller: &Caller, what: &str, begin: &'static str, end: &'static str) {
    let mut superuser = gate.connection("postgres").await;
    let before = rows(&mut superuser).await;
    let sent = Upload { idempotency_key: Some(format!("key of {what}")), ..upload(GREY, "alpha") };
    run(&mut superuser, begin).await;
    for _ in 0..2 {
        let answer = caller.upload(sent.clone()).await;
        answer.refused(503, "database_unavailable");
        assert!(
            answer.json.get("action").is_none() && answer.json.get("id").is_none(),
            "{what}: {}",
            answer.text()
        );
    }
    run(&mut superuser, end).await;
    assert_eq!(before, rows(&mut superuser).await, "a failure at {what} left a trace");
    let answer = caller.upload(sent).await;
    let verdict = answer.expect(200);
    assert_eq!(verdict["cached"], false, "nothing of the failed attempt is recalled: {what}");
    on_record(&mut superuser, std::slice::from_ref(verdict)).await;
    superuser.close().await.expect("closes");
}

#[tokio::test]
async fn whichever_statement_fails_there_is_no_answer_and_no_record() {
    let gate = stage(&["steady"]).policy("alpha", &policy("alpha", &["steady"], "fail")).start().await;
    let caller = gate.caller(&gate.key("moderate"));
    let mut superuser = gate.connection("postgres").await;
    run(
        &mut superuser,
        "create function fail() returns trigger language plpgsql as $$ begin raise exception 'told to fail'; end $$",
    )
    .await;
    let statements = [
        (
            "contents",
            "create trigger f before insert on contents for each statement execute function fail()",
            "drop trigger f on contents",
        ),
        (
            "judgements",
            "create trigger f before insert on judgements for each statement execute function fail()",
            "drop trigger f on judgements",
        ),
        (
            "idempotency",
            "create trigger f before insert on idempotency for each statement execute function fail()",
            "drop trigger f on idempotency",
        ),
        (
            "verdicts",
            "create trigger f before insert on verdicts for each statement execute function fail()",
            "drop trigger f on verdicts",
        ),
        (
            "verdict_policies",
            "create trigger f before insert on verdict_policies for each statement execute function fail()",
            "drop trigger f on verdict_policies",
        ),
        (
            "audit",
            "create trigger f before insert on audit for each statement execute function fail()",
            "drop trigger f on audit",
        ),
        (
            "commit",
            "create constraint trigger f after insert on verdicts deferrable initially deferred for each row execute function fail()",
            "drop trigger f on verdicts",
        ),
        (
            "commit, by the audit",
            "create constraint trigger f after insert on audit deferrable initially deferred for each row execute function fail()",
            "drop trigger f on audit",
        ),
    ];
    for (what, begin, end) in statements {
        fails_whole(&gate, &caller, what, begin, end).await;
    }
}

#[tokio::test]
async fn a_table_that_is_locked_is_503_in_bounded_time() {
    let gate = stage(&["steady"]).policy("alpha", &policy("alpha", &["steady"], "fail")).start().await;
    let caller = gate.caller(&gate.key("moderate"));
    let mut superuser = gate.connection("postgres").await;
    let before = rows(&mut superuser).await;
    let mut lock = superuser.begin().await.expect("begins");
    run(&mut lock, "lock table audit in access exclusive mode").await;
    let since = Instant::now();
    caller.upload(upload(GREY, "alpha")).await.refused(503, "database_unavailable");
    assert!(since.elapsed() < Duration::from_secs(12), "{:?}", since.elapsed());
    lock.rollback().await.expect("rolls back");
    assert_eq!(before, rows(&mut superuser).await);
    caller.upload(upload(GREY, "alpha")).await.expect(200);
}
