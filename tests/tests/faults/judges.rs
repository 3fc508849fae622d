//! Judges that fail, hang, give NaN or hear nothing: the policy's `on_error`, said aloud, and back to work.

use std::time::{Duration, Instant};

use serde_json::Value;
use shieldgate_tests::Gate;

use crate::stage::{DEAF, ENDLESS, GREY, WRONG, grey, on_record, policy, ready, rows, stage, upload};

/// A judge, the brightness at which it goes wrong, and what that is called.
const FAULTS: [(&str, u8, &str); 3] = [
    ("failing", WRONG, "judge_failed"),
    ("not-a-number", WRONG, "judge_not_a_probability"),
    ("slow", ENDLESS, "judge_timed_out"),
];

/// Nothing anywhere in a verdict may look like a judged allow where the judge failed.
fn says_on_error(verdict: &Value, action: &str, code: &str) {
    assert_eq!(verdict["action"], action, "{verdict:#}");
    let answer = &verdict["policies"][0];
    assert_eq!(answer["outcome"], "on_error", "{verdict:#}");
    assert_eq!(answer["action"], action, "{verdict:#}");
    assert_eq!(answer["probability"], Value::Null, "{verdict:#}");
    assert_eq!(answer["error"]["code"], code, "{verdict:#}");
    assert!(answer["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{verdict:#}");
    assert_eq!(answer["judges"][0]["probability"], Value::Null, "{verdict:#}");
    assert_eq!(answer["judges"][0]["error"]["code"], code, "{verdict:#}");
    assert_eq!(verdict["cached"], false, "{verdict:#}");
}

#[tokio::test]
async fn a_judge_that_goes_wrong_is_on_error_and_says_so() {
    // Per judge one policy; each round another `on_error`.
    let ids = ["alpha", "beta", "gamma"];
    let mut setup = stage(&["failing", "not-a-number", "slow"]).flag("--judge-timeout-ms", 500);
    for (id, (judge, _, _)) in ids.iter().zip(FAULTS) {
        setup = setup.policy(id, &policy(id, &[judge], "fail"));
    }
    let gate = setup.start().await;
    let caller = gate.caller(&gate.key("moderate,read,admin"));

    for (id, (judge, level, code)) in ids.iter().zip(FAULTS) {
        let mut owner = gate.owner().await;
        let before = rows(&mut owner).await;
        let answer = caller.upload(upload(level, id)).await;
        let problem = answer.refused(503, code);
        assert_eq!(problem["error"]["type"], "server_error");
        // The attempt, and nothing else.
        for ((table, before), (_, after)) in before.iter().zip(rows(&mut owner).await) {
            assert_eq!(after - before, i64::from(table == "audit"), "{table} after {judge}");
        }
        let audit = caller.get("/v1/audit?limit=1").await;
        let entry = &audit.expect(200)["data"][0];
        assert_eq!(entry["act"], "verdict.failed", "{entry:#}");
        assert_eq!(entry["detail"]["code"], code, "{entry:#}");
        assert_eq!(entry["detail"]["judge"], judge, "{entry:#}");
        assert_eq!(entry["detail"]["policy"], *id, "{entry:#}");
        assert_eq!(
            entry["detail"]["request_id"],
            answer.header("x-request-id").expect("it has one"),
            "{entry:#}"
        );
        assert_eq!(entry["target"], Value::Null);

        // The same judge, asked what it can answer.
        let answer = caller.upload(upload(GREY, id)).await;
        assert_eq!(answer.expect(200)["policies"][0]["outcome"], "judged");
    }

    for action in ["review", "block", "allow"] {
        for (id, (judge, level, code)) in ids.iter().zip(FAULTS) {
            let file = gate.folder().join("changed.yaml");
            std::fs::write(&file, policy(id, &[judge], action)).expect("writes");
            gate.command(&["policies", "apply", "--activate", file.to_str().expect("plain")]).good();
            let picture = upload(level, id);
            let first = caller.upload(picture.clone()).await;
            says_on_error(first.expect(200), action, code);
            // A failure is no judgement: the same bytes are asked again and nothing is `cached`.
            let again = caller.upload(picture).await;
            says_on_error(again.expect(200), action, code);
            on_record(&mut gate.owner().await, &[first.json, again.json]).await;
        }
    }
    let mut owner = gate.owner().await;
    let wrong: i64 = sqlx::query_scalar(
        "select count(*) from verdict_policies where probability is null and outcome <> 'on_error'",
    )
    .fetch_one(&mut owner)
    .await
    .expect("Postgres answers");
    assert_eq!(wrong, 0);
}

#[tokio::test]
async fn the_worst_counts_when_one_of_several_judges_fails() {
    let gate = stage(&["steady", "failing"])
        .policy("alpha", &policy("alpha", &["failing", "steady"], "allow"))
        .policy("beta", &policy("beta", &["steady"], "fail"))
        .start()
        .await;
    let caller = gate.caller(&gate.key("moderate"));
    // `steady` gives half the brightness: 0.47, which is review.
    let answer = caller.upload(upload(WRONG, "alpha,beta")).await;
    let verdict = answer.expect(200);
    assert_eq!(verdict["action"], "review", "{verdict:#}");
    let [alpha, beta] = [&verdict["policies"][0], &verdict["policies"][1]];
    assert_eq!((&alpha["outcome"], &alpha["action"]), (&"on_error".into(), &"review".into()), "{verdict:#}");
    assert_eq!(alpha["probability"], Value::Null, "{verdict:#}");
    assert_eq!((&beta["outcome"], &beta["action"]), (&"judged".into(), &"review".into()), "{verdict:#}");
}

#[tokio::test]
async fn a_hung_judge_holds_up_no_other_and_comes_back() {
    let gate = stage(&["steady", "slow"])
        .policy("alpha", &policy("alpha", &["slow"], "review"))
        .policy("beta", &policy("beta", &["steady"], "fail"))
        .flag("--judge-timeout-ms", 1500)
        .start()
        .await;
    let caller = gate.caller(&gate.key("moderate"));
    let hung = tokio::spawn({
        let caller = caller.clone();
        async move { caller.upload(upload(ENDLESS, "alpha,beta")).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    // Others are judged while it hangs.
    let mut judged = 0;
    while !hung.is_finished() {
        caller.upload(upload(GREY, "beta")).await.expect(200);
        judged += 1;
    }
    assert!(judged >= 2, "only {judged} uploads were judged while a judge hung");
    let answer = hung.await.expect("answered");
    let verdict = answer.expect(200);
    assert_eq!(verdict["policies"][0]["outcome"], "on_error", "{verdict:#}");
    assert_eq!(verdict["policies"][0]["error"]["code"], "judge_timed_out", "{verdict:#}");
    assert_eq!(verdict["policies"][1]["outcome"], "judged", "{verdict:#}");
    assert_eq!(verdict["action"], "review", "{verdict:#}");
    // And the hung judge itself works on.
    let answer = caller.upload(upload(GREY, "alpha")).await;
    assert_eq!(answer.expect(200)["policies"][0]["outcome"], "judged");
    ready(&gate, 200, Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_judge_that_does_not_stop_is_reported_and_used_again_when_it_ends() {
    let gate = stage(&["deaf", "steady"])
        .policy("alpha", &policy("alpha", &["deaf"], "block"))
        .policy("beta", &policy("beta", &["steady"], "fail"))
        .flag("--judge-timeout-ms", 200)
        .flag("--judge-stop-grace-ms", 100)
        .start()
        .await;
    let caller = gate.caller(&gate.key("moderate"));
    let since = Instant::now();
    let queued = tokio::spawn({
        let caller = caller.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(150)).await;
            caller.upload(upload(GREY, "alpha")).await
        }
    });
    let answer = caller.upload(upload(DEAF, "alpha")).await;
    says_on_error(answer.expect(200), "block", "judge_timed_out");
    // What was in the queue behind it is not left to wait either.
    let answer = queued.await.expect("answered");
    says_on_error(answer.expect(200), "block", "judge_timed_out");
    assert!(since.elapsed() < Duration::from_millis(2500), "waited for a stuck judge: {:?}", since.elapsed());
    let problem = gate.nobody().get("/readyz").await;
    assert!(
        problem.refused(503, "not_ready")["detail"]
            .as_str()
            .is_some_and(|text| text.contains("`deaf`") || text.contains("deaf"))
    );
    // While it is stuck it is not waited for, and the others are used.
    let since = Instant::now();
    let answer = caller.upload(upload(GREY, "alpha")).await;
    let verdict = answer.expect(200);
    if verdict["policies"][0]["outcome"] == "on_error" {
        assert!(
            since.elapsed() < Duration::from_secs(2),
            "a stuck judge was waited for: {:?}",
            since.elapsed()
        );
        assert_eq!(verdict["action"], "block", "{verdict:#}");
    }
    caller.upload(upload(GREY, "beta")).await.expect(200);
    ready(&gate, 200, Duration::from_secs(60)).await;
    let answer = caller.upload(upload(GREY, "alpha")).await;
    assert_eq!(answer.expect(200)["policies"][0]["outcome"], "judged");
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_judge() {
    let gate = stage(&["slow"]).policy("alpha", &policy("alpha", &["slow"], "fail")).start().await;
    let caller = gate.caller(&gate.key("moderate"));
    let before = rows(&mut gate.owner().await).await;
    for _ in 0..3 {
        // The judge has a minute; the client does not.
        let request = caller.request(reqwest::Method::POST, "/v1/images?policies=alpha");
        let request = request.header("content-type", "image/png").body(grey(ENDLESS));
        let left = request.timeout(Duration::from_millis(700)).send().await;
        assert!(left.expect_err("nobody answers").is_timeout());
    }
    let since = Instant::now();
    let answer = caller.upload(upload(GREY, "alpha")).await;
    assert_eq!(answer.expect(200)["policies"][0]["outcome"], "judged");
    assert!(since.elapsed() < Duration::from_secs(5), "the judge went on for nobody: {:?}", since.elapsed());
    let after = rows(&mut gate.owner().await).await;
    assert_eq!(after[0].1 - before[0].1, 1, "only the answered upload is on record");
}

/// A client that leaves while its run hears nothing must not leave a judge behind that looks well.
#[tokio::test]
async fn a_judge_left_in_a_run_that_does_not_stop_is_reported_too() {
    let gate = stage(&["deaf"])
        .policy("alpha", &policy("alpha", &["deaf"], "fail"))
        .flag("--judge-stop-grace-ms", 100)
        .start()
        .await;
    let caller = gate.caller(&gate.key("moderate"));
    let request = caller.request(reqwest::Method::POST, "/v1/images?policies=alpha");
    let request = request.header("content-type", "image/png").body(grey(WRONG));
    let left = request.timeout(Duration::from_millis(400)).send().await;
    assert!(left.expect_err("nobody answers").is_timeout());
    ready(&gate, 503, Duration::from_millis(1500)).await;
    ready(&gate, 200, Duration::from_secs(60)).await;
    caller.upload(upload(GREY, "alpha")).await.expect(200);
}

/// `refuse` is the default for a reason: nobody would notice a policy without its judge.
#[tokio::test]
async fn a_judge_that_went_missing_stops_the_start() {
    let folder = tempfile::TempDir::with_prefix("shieldgate-test-").expect("a folder");
    let data_dir = folder.path().join("data");
    let with = stage(&["steady", "failing"]).policy("alpha", &policy("alpha", &["failing"], "allow"));
    let mut gate = with.data_dir(&data_dir).start().await;
    assert_eq!(gate.stop().await, Some(0));
    std::fs::remove_file(data_dir.join("models/failing.json")).expect("its record");
    let failed = stage(&[]).data_dir(&data_dir).try_start().await;
    let failed = failed.map(|_: Gate| ()).expect_err("its judge is missing");
    assert_eq!(failed.code, Some(1), "{}", failed.log);
    assert!(failed.log.contains("`alpha`") && failed.log.contains("`failing`"), "{}", failed.log);
    assert!(!data_dir.join("postgres/postmaster.pid").exists(), "Postgres goes with it");
}
