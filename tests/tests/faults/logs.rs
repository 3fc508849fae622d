//! Nothing of what a client sends, and no key, is kept in a log: the service's or its Postgres's.

use reqwest::Method;
use reqwest::multipart::{Form, Part};
use shieldgate_tests::send;

use crate::stage::{ENDLESS, GREY, WRONG, grey, policy, stage};

/// What a client sends, each with a mark of its own.
const MARKS: [&str; 6] = ["MARKsubject", "MARKmetadata", "MARKkey", "MARKfile", "MARKref", "MARKidempotency"];

#[tokio::test]
async fn neither_log_holds_what_clients_send() {
    let gate = stage(&["failing", "steady", "slow"])
        .policy("alpha", &policy("alpha", &["failing", "steady", "slow"], "fail"))
        .flag("--judge-timeout-ms", 1000)
        .flag("--log", "debug")
        .start()
        .await;
    let key = gate.key("moderate,read,admin");
    let caller = gate.caller(&key);
    let form = |level: u8| {
        Form::new()
            .part("file", Part::bytes(grey(level)).file_name("MARKfile.png"))
            .text("metadata", r#"{"who":"MARKmetadata"}"#)
            .text("subject", "MARKsubject")
            .text("ref", "MARKref")
    };
    let post = |path: &str| caller.request(Method::POST, path).header("idempotency-key", "MARKidempotency");

    // Well, by a failing judge, by a hung one, by a failing statement, and malformed in several ways.
    send(post("/v1/images").multipart(form(GREY))).await.expect(200);
    send(post("/v1/images").multipart(form(GREY))).await.refused(409, "idempotency_conflict");
    for (level, code) in [(WRONG, "judge_failed"), (ENDLESS, "judge_failed")] {
        send(caller.request(Method::POST, "/v1/images").multipart(form(level))).await.refused(503, code);
    }
    let mut superuser = gate.connection("postgres").await;
    for (begin, end) in [
        // The row itself would stand in a message about it.
        (
            "alter table verdicts add constraint c check (reference is null) not valid",
            "alter table verdicts drop constraint c",
        ),
        (
            "create function f() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$;
             create trigger f before insert on audit for each statement execute function f()",
            "drop trigger f on audit",
        ),
    ] {
        sqlx::raw_sql(begin).execute(&mut superuser).await.expect("runs");
        send(caller.request(Method::POST, "/v1/images").multipart(form(GREY))).await.expect(503);
        sqlx::raw_sql(end).execute(&mut superuser).await.expect("runs");
    }
    let zero = form(GREY).text("metadata", "{\"who\":\"MARKmetadata\\u0000\"");
    send(caller.request(Method::POST, "/v1/images").multipart(zero)).await.expect(400);
    let zero = Form::new()
        .part("file", Part::bytes(grey(GREY)).file_name("MARKfile.png"))
        .text("metadata", "{\"who\":\"MARKmetadata\\u0000\"}");
    let answer = send(caller.request(Method::POST, "/v1/images").multipart(zero)).await;
    assert!(matches!(answer.status, 200 | 400 | 422), "{}", answer.text());
    let broken = Part::bytes(b"MARKfile is no picture".to_vec()).file_name("MARKfile.png");
    send(caller.request(Method::POST, "/v1/images").multipart(Form::new().part("file", broken)))
        .await
        .expect(415);
    let path = "/v1/images?subject=MARKsubject&ref=MARKref&policies=MARKref";
    send(caller.request(Method::POST, path).header("content-type", "image/png").body(grey(GREY)))
        .await
        .expect(422);
    send(caller.request(Method::POST, "/v1/images?MARKsubject=1").body(grey(GREY))).await.expect(400);
    send(caller.request(Method::GET, "/v1/verdicts?ref=MARKref")).await.expect(200);
    send(caller.request(Method::GET, "/v1/verdicts/MARKref")).await.expect(400);
    gate.caller("sg_MARKkey").get("/v1/verdicts").await.expect(401);
    gate.nobody().get("/MARKref").await.expect(404);

    let postgres = std::fs::read(gate.data_dir().join("postgres.log")).expect("Postgres logs");
    let logs = gate.log() + &String::from_utf8_lossy(&postgres);
    assert!(logs.contains("answered") && logs.contains("violates check constraint"), "these are the logs");
    for mark in MARKS.into_iter().chain([key.as_str()]) {
        let line = logs.lines().find(|line| line.contains(mark));
        assert!(line.is_none(), "{mark} is in a log: {}", line.unwrap_or_default());
    }
}
