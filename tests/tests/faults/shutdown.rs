//! SIGTERM: what was accepted is answered and on record, and nothing is left running.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use shieldgate_tests::{Upload, binary};
use tokio::task::JoinSet;

use crate::stage::{ENDLESS, GREY, Load, SLOW, Seen, on_record, policy, stage, upload, verdicts};

#[tokio::test]
async fn twenty_uploads_under_way_are_all_answered() {
    let mut gate = stage(&["slow"]).policy("alpha", &policy("alpha", &["slow"], "fail")).start().await;
    let caller = gate.caller(&gate.key("moderate"));
    let mut uploads = JoinSet::new();
    for _ in 0..20 {
        let caller = caller.clone();
        uploads.spawn(async move { caller.try_upload(upload(SLOW, "alpha")).await });
    }
    // One is answered, so the others, sent at the same moment, are in the queue of the same judge.
    let first = uploads.join_next().await.expect("twenty").expect("no panic").expect("answered");
    let mut answered = vec![first.expect(200).clone()];
    let since = Instant::now();
    let code = tokio::spawn(async move {
        let code = gate.terminate().await;
        (gate, code)
    });
    while let Some(answer) = uploads.join_next().await {
        let answer = answer.expect("no panic").expect("an accepted upload is answered");
        answered.push(answer.expect(200).clone());
    }
    let (mut gate, code) = code.await.expect("no panic");
    assert_eq!(code, Some(0), "{}", gate.log());
    assert!(since.elapsed() < Duration::from_secs(25), "{:?}", since.elapsed());
    assert_eq!(answered.len(), 20);
    gate.restart().await;
    on_record(&mut gate.owner().await, &answered).await;
}

#[tokio::test]
async fn clients_that_go_on_sending_do_not_hold_it_up() {
    let mut gate = stage(&["steady"]).policy("alpha", &policy("alpha", &["steady"], "fail")).start().await;
    let key = gate.key("moderate");
    let load = Load::begin(&gate.caller(&key), 8, || upload(GREY, "alpha"));
    // Idle connections, too.
    let idle = shieldgate_tests::raw::Raw::connect(gate.address()).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let since = Instant::now();
    let code = gate.terminate().await;
    let took = since.elapsed();
    assert_eq!(code, Some(0), "{}", gate.log());
    let seen = load.end().await;
    drop(idle);
    // Refused connections come back as broken; what was answered is whole.
    let answered = verdicts(&seen, &[503]);
    assert!(answered.len() > 5, "{}", answered.len());
    assert!(seen.iter().any(|seen| matches!(seen, Seen::Broken)));
    assert!(took < Duration::from_secs(12), "it took {took:?}");
    gate.restart().await;
    on_record(&mut gate.owner().await, &answered).await;
}

#[tokio::test]
async fn a_hung_judge_costs_the_grace_period_and_no_more() {
    let mut gate = stage(&["slow"])
        .policy("alpha", &policy("alpha", &["slow"], "fail"))
        .flag("--shutdown-grace-ms", 1500)
        .start()
        .await;
    let caller = gate.caller(&gate.key("moderate"));
    let hung = tokio::spawn(async move { caller.try_upload(upload(ENDLESS, "alpha")).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let since = Instant::now();
    assert_eq!(gate.terminate().await, Some(0), "{}", gate.log());
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
    // No verdict, so no answer that looks like one.
    if let Ok(answer) = hung.await.expect("no panic") {
        assert_eq!(answer.status, 503, "{}", answer.text());
    }
    gate.restart().await;
    let verdicts: i64 = sqlx::query_scalar("select count(*) from verdicts")
        .fetch_one(&mut gate.owner().await)
        .await
        .expect("answers");
    assert_eq!(verdicts, 0);
}

/// The runtime's threads are at work while the process ends.
#[tokio::test]
async fn a_judge_that_does_not_stop_is_left_behind() {
    let mut gate = stage(&["deaf"])
        .policy("alpha", &policy("alpha", &["deaf"], "fail"))
        .flag("--shutdown-grace-ms", 1000)
        .start()
        .await;
    let caller = gate.caller(&gate.key("moderate"));
    let hung = tokio::spawn(async move { caller.try_upload(upload(255, "alpha")).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let since = Instant::now();
    assert_eq!(gate.terminate().await, Some(0), "{}", gate.log());
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
    assert!(!hung.await.expect("no panic").is_ok_and(|answer| answer.status == 200));
}

/// Whatever it was at: starting its Postgres, making roles, migrating, applying policies.
#[tokio::test]
async fn told_to_stop_while_it_starts_it_leaves_no_postgres_behind() {
    for wait in [0, 50, 150, 300] {
        let folder = tempfile::TempDir::with_prefix("shieldgate-test-").expect("a folder");
        let data = folder.path().join("data");
        let mut service = Command::new(binary())
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&data)
            .env_remove("DATABASE_URL")
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let file = data.join("postgres/postmaster.pid");
        let since = Instant::now();
        while !file.exists() {
            assert!(since.elapsed() < Duration::from_secs(60), "it starts no Postgres");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let pid = libc::pid_t::try_from(service.id()).expect("a process id");
        // SAFETY: kill takes two numbers; this is our child, not yet waited for.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let since = Instant::now();
        while service.try_wait().expect("our child").is_none() {
            assert!(since.elapsed() < Duration::from_secs(20), "it did not stop when told after {wait} ms");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // It goes by itself when it was told to; a killed one would leave its file behind.
        while file.exists() {
            assert!(since.elapsed() < Duration::from_secs(20), "Postgres was left behind after {wait} ms");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn told_twice_it_ends_at_once() {
    let mut gate = stage(&["slow"])
        .policy("alpha", &policy("alpha", &["slow"], "fail"))
        .flag("--shutdown-grace-ms", 30_000)
        .start()
        .await;
    let caller = gate.caller(&gate.key("moderate"));
    let hung = tokio::spawn(async move {
        caller.try_upload(Upload { idempotency_key: Some("k".to_owned()), ..upload(ENDLESS, "alpha") }).await
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    gate.signal(gate.pid(), libc::SIGTERM);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!hung.is_finished(), "the first SIGTERM waits for what was accepted");
    let since = Instant::now();
    let code = gate.terminate().await;
    assert!(code.is_some(), "it ends by itself, not by a crash: {}", gate.log());
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    // Cut off, or told that there is no verdict.
    let answer = hung.await.expect("no panic");
    assert!(answer.as_ref().map_or(true, |answer| answer.status == 503), "{answer:?}");
}
