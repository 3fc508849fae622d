//! What a key may submit: so many a second, so many a day; lanes.

use serde_json::json;
use shieldgate_tests::{Gate, Upload, samples};

fn key(gate: &Gate, name: &str, limits: &[&str]) -> String {
    let create = ["keys", "create", "--name", name, "--scopes", "moderate,admin"];
    gate.command(&[&create, limits].concat()).good()
}

#[tokio::test]
async fn a_rate_is_a_second_s_worth_and_then_429() {
    let gate = Gate::start().await;
    let limited = gate.caller(&key(&gate, "slow", &["--rate", "0.1"]));
    limited.upload(&samples::coffee()).await.expect(200);
    let refused = limited.upload(&samples::coffee()).await;
    refused.refused(429, "rate_limited");
    assert_eq!(refused.json["error"]["type"], "rate_limit_error");
    let wait: u64 = refused.header("retry-after").and_then(|wait| wait.parse().ok()).unwrap_or(0);
    assert!((5..=10).contains(&wait), "one every ten seconds: {wait}");
    // Reading is not submitting, and another key has its own.
    limited.get("/v1/audit").await.expect(200);
    gate.caller(&gate.key("moderate")).upload(&samples::coffee()).await.expect(200);
}

#[tokio::test]
async fn a_day_s_quota_holds_across_restarts() {
    let mut gate = Gate::start().await;
    let limited = key(&gate, "few", &["--daily-quota", "3"]);
    let listed: serde_json::Value =
        serde_json::from_str(&gate.command(&["keys", "list", "--json"]).good()).expect("JSON");
    assert_eq!(listed[0]["daily_quota"], json!(3), "{listed}");
    let caller = gate.caller(&limited);
    caller.upload(&samples::coffee()).await.expect(200);
    caller.upload(&samples::coffee()).await.expect(200);
    gate.stop().await;
    gate.restart().await;
    let caller = gate.caller(&limited);
    caller.upload(&samples::coffee()).await.expect(200);
    let refused = caller.upload(&samples::coffee()).await;
    refused.refused(429, "quota_exceeded");
    let wait: u64 = refused.header("retry-after").and_then(|wait| wait.parse().ok()).unwrap_or(0);
    assert!((1..=86_400).contains(&wait), "until midnight, UTC: {wait}");
}

#[test]
fn a_limit_that_can_t_be_meant_is_wrong_use() {
    for limits in [["--rate", "0"], ["--rate", "NaN"], ["--daily-quota", "0"], ["--daily-quota", "-1"]] {
        let args = [&["keys", "create", "--name", "x", "--scopes", "moderate"][..], &limits].concat();
        let done = shieldgate_tests::shieldgate(std::path::Path::new("/"), &args, &[]);
        assert_eq!(done.code, Some(2), "{limits:?}: {done:?}");
    }
}

#[tokio::test]
async fn the_bulk_lane_answers_as_the_other_does() {
    let gate = Gate::start().await;
    let caller = gate.caller(&gate.key("moderate"));
    let bytes = samples::coffee();
    let lane = |lane: &str| Upload { query: Some(format!("lane={lane}")), ..Upload::from(&bytes) };
    let bulk = caller.upload(lane("bulk")).await;
    let interactive = caller.upload(lane("interactive")).await;
    assert_eq!(
        bulk.expect(200)["policies"][0]["probability"],
        interactive.expect(200)["policies"][0]["probability"]
    );
    caller.upload(lane("express")).await.refused(400, "query_invalid");
}
