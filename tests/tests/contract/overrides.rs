//! Overrides: a person's word above the judges, by content or as a policy's kill switch.

use std::time::Duration;

use serde_json::{Value, json};
use shieldgate_tests::{Answer, Caller, Gate, Upload, samples};

/// One judge, which allows everything here.
async fn gate() -> Gate {
    let shipped = "id: sexual\ntitle: S\nmodality: image\ntext: S\njudges:\n  - name: open-nsfw\n    thresholds: {review: 0.5, block: 0.8}\n";
    Gate::with().policy("sexual", shipped).start().await
}

async fn made(caller: &Caller, body: Value) -> String {
    let answer = caller.post("/v1/overrides", &body).await;
    answer.expect(201)["id"].as_str().expect("an id").to_owned()
}

/// Asked for one policy, so that what decides it decides the verdict.
async fn upload(caller: &Caller, bytes: &[u8]) -> Answer {
    let query = Some("policies=sexual".to_owned());
    caller.upload(Upload { query, ..Upload::from(bytes) }).await
}

fn decided(answer: &Answer) -> (&str, &str, Option<&str>) {
    let policy = &answer.expect(200)["policies"][0];
    let text = |value: &'static str| policy[value].as_str().unwrap_or_default();
    (answer.json["action"].as_str().unwrap_or_default(), text("outcome"), policy["override_id"].as_str())
}

#[tokio::test]
async fn an_override_decides_until_it_is_deleted_or_expires() {
    let gate = gate().await;
    let caller = gate.caller(&gate.key("moderate,read,admin"));
    let picture = samples::coffee();
    let first = upload(&caller, &picture).await;
    assert_eq!(decided(&first), ("allow", "judged", None));
    let sha256 = first.json["content"]["sha256"].clone();

    // Block these bytes, for all policies.
    let block = made(&caller, json!({"sha256": sha256, "action": "block", "reason": "known"})).await;
    let answer = upload(&caller, &picture).await;
    assert_eq!(decided(&answer), ("block", "override", Some(block.as_str())));
    let policy = &answer.json["policies"][0];
    assert_eq!(
        (&policy["probability"], &policy["thresholds"], &policy["judges"]),
        (&Value::Null, &Value::Null, &json!([]))
    );
    // Nobody looked, and the verdict says so.
    assert_eq!(
        (&answer.json["cached"], &answer.json["content"]["frames_scored"]),
        (&json!(false), &json!(0))
    );
    // Other bytes are judged.
    assert_eq!(decided(&upload(&caller, &samples::unique(1)).await).1, "judged");

    // The one for this policy goes before the one for all; among equals the newest.
    let allow =
        made(&caller, json!({"sha256": sha256, "policy": "sexual", "action": "allow", "reason": "fine"}))
            .await;
    assert_eq!(decided(&upload(&caller, &picture).await), ("allow", "override", Some(allow.as_str())));
    let review =
        made(&caller, json!({"sha256": sha256, "policy": "sexual", "action": "review", "reason": "unsure"}))
            .await;
    assert_eq!(decided(&upload(&caller, &picture).await), ("review", "override", Some(review.as_str())));

    // An override for all policies decides those too that can't be judged here; one for a policy leaves the
    // others as they are.
    let answer = caller.upload(&picture).await;
    let outcomes: Vec<&Value> =
        answer.expect(200)["policies"].as_array().into_iter().flatten().map(|p| &p["outcome"]).collect();
    assert_eq!((outcomes, &answer.json["action"]), (vec![&json!("override"); 3], &json!("block")));
    caller.delete(&format!("/v1/overrides/{block}")).await.expect(200);
    let answer = caller.upload(&picture).await;
    let not_run: Vec<&Value> = answer.expect(200)["policies_not_run"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|p| &p["policy"])
        .collect();
    assert_eq!(not_run, ["dangerous", "violence"]);

    for id in [&review, &allow] {
        let ended = caller.delete(&format!("/v1/overrides/{id}")).await;
        assert!(ended.expect(200)["deleted_at"].is_string() && ended.json["deleted_by"].is_string());
        caller.delete(&format!("/v1/overrides/{id}")).await.refused(404, "not_found");
    }
    assert_eq!(decided(&upload(&caller, &picture).await), ("allow", "recalled", None));

    // Expired, it counts no more.
    let at = in_seconds(&gate, 3).await;
    let brief =
        made(&caller, json!({"sha256": sha256, "action": "block", "reason": "for now", "expires_at": at}))
            .await;
    assert_eq!(decided(&upload(&caller, &picture).await), ("block", "override", Some(brief.as_str())));
    let in_force = caller.get("/v1/overrides?in_force=true").await;
    assert_eq!(in_force.expect(200)["data"].as_array().map(Vec::len), Some(1));
    tokio::time::sleep(Duration::from_millis(3200)).await;
    assert_eq!(decided(&upload(&caller, &picture).await), ("allow", "recalled", None));
    let in_force = caller.get("/v1/overrides?in_force=true").await;
    assert_eq!(in_force.expect(200)["data"], json!([]));

    // All of it is on record, ended ones too, and every act and every use is audited.
    let all = caller.get("/v1/overrides").await;
    assert_eq!(all.expect(200)["data"].as_array().map(Vec::len), Some(4));
    let created = caller.get(&format!("/v1/audit?act=override.created&target={block}")).await;
    assert_eq!(created.expect(200)["data"][0]["detail"]["reason"], "known");
    assert_eq!(created.json["data"][0]["hashes"]["content"], sha256);
    let deleted = caller.get("/v1/audit?act=override.deleted").await;
    assert_eq!(deleted.expect(200)["data"].as_array().map(Vec::len), Some(3));
    let used = caller.get("/v1/audit?act=verdict.recorded").await;
    let named: Vec<String> = used.expect(200)["data"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| entry["detail"]["overrides"][0].as_str().map(str::to_owned))
        .collect();
    assert_eq!(named, [brief, review.clone(), block.clone(), review, allow, block]);
}

/// By the database's clock, so that it is the one the service compares with.
async fn in_seconds(gate: &Gate, seconds: i32) -> String {
    let mut owner = gate.owner().await;
    sqlx::query_scalar("select to_char(now() at time zone 'utc' + make_interval(secs => $1), 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
        .bind(f64::from(seconds))
        .fetch_one(&mut owner)
        .await
        .expect("a time")
}

#[tokio::test]
async fn a_kill_switch_turns_a_whole_policy() {
    let gate = gate().await;
    let caller = gate.caller(&gate.key("moderate,read,admin"));
    let killed =
        made(&caller, json!({"policy": "sexual", "action": "review", "reason": "the judge is broken"})).await;
    for seed in 0..2 {
        assert_eq!(
            decided(&upload(&caller, &samples::unique(seed)).await),
            ("review", "override", Some(killed.as_str()))
        );
    }
    // A word about these very bytes goes before it, be it for all policies.
    let first = upload(&caller, &samples::unique(0)).await;
    let sha256 = &first.json["content"]["sha256"];
    let block = made(&caller, json!({"sha256": sha256, "action": "block", "reason": "known"})).await;
    assert_eq!(
        decided(&upload(&caller, &samples::unique(0)).await),
        ("block", "override", Some(block.as_str()))
    );
    caller.delete(&format!("/v1/overrides/{killed}")).await.expect(200);
    assert_eq!(decided(&upload(&caller, &samples::unique(1)).await), ("allow", "judged", None));

    // A policy that is not installed can be decided all the same.
    made(&caller, json!({"policy": "violence", "action": "allow", "reason": "not ours to judge"})).await;
    let upload = Upload { query: Some("policies=violence".to_owned()), ..Upload::from(&samples::unique(3)) };
    assert_eq!(decided(&caller.upload(upload).await).1, "override");

    // Projects keep their own.
    let theirs = gate.caller(&gate.key_in("other", "admin"));
    assert_eq!(theirs.get("/v1/overrides").await.expect(200)["data"], json!([]));
    theirs.delete(&format!("/v1/overrides/{block}")).await.refused(404, "not_found");
}

#[tokio::test]
async fn overrides_that_cannot_be_meant_are_refused() {
    let gate = gate().await;
    let caller = gate.caller(&gate.key("admin"));
    let sha256 = "ab".repeat(32);
    for (body, status, code) in [
        (json!({"action": "block", "reason": "r"}), 422, "override_of_nothing"),
        (json!({"sha256": sha256, "action": "block", "reason": " "}), 422, "reason_invalid"),
        (json!({"sha256": sha256, "action": "block", "reason": "r".repeat(1001)}), 422, "reason_invalid"),
        (json!({"sha256": sha256, "action": "block", "reason": "a\u{0}b"}), 422, "not_storable"),
        (json!({"sha256": sha256, "action": "block"}), 400, "json_invalid"),
        (json!({"sha256": sha256, "action": "maybe", "reason": "r"}), 400, "json_invalid"),
        (
            json!({"sha256": sha256, "action": "block", "reason": "r", "expires": "never"}),
            400,
            "json_invalid",
        ),
        (json!({"sha256": "xyz", "action": "block", "reason": "r"}), 400, "sha256_invalid"),
        (
            json!({"sha256": sha256, "action": "block", "reason": "r", "expires_at": "soon"}),
            400,
            "time_invalid",
        ),
        (
            json!({"sha256": sha256, "action": "block", "reason": "r", "expires_at": "2001-01-01T00:00:00Z"}),
            422,
            "expiry_past",
        ),
        // A misspelt kill switch would switch nothing off.
        (json!({"policy": "violense", "action": "block", "reason": "r"}), 422, "policy_unknown"),
        (json!({"policy": "", "action": "block", "reason": "r"}), 422, "policy_invalid"),
        (json!({"policy": "p".repeat(65), "action": "block", "reason": "r"}), 422, "policy_invalid"),
    ] {
        let answer = caller.post("/v1/overrides", &body).await;
        assert_eq!(
            (answer.status, &answer.json["error"]["code"]),
            (status, &json!(code)),
            "{body}: {}",
            answer.text()
        );
    }
    caller.delete("/v1/overrides/no-uuid").await.refused(400, "id_invalid");
    caller.get("/v1/overrides?limit=201").await.refused(400, "limit_invalid");
    caller.get("/v1/overrides?cursor=x").await.refused(400, "cursor_invalid");
    assert_eq!(caller.get("/v1/overrides").await.expect(200)["data"], json!([]));
}
