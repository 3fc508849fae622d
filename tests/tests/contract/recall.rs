//! Recall: the same bytes under the same question are judged once, and never across projects.

use serde_json::Value;
use shieldgate_tests::{Gate, Upload, samples};

fn outcome(verdict: &Value) -> (bool, &str) {
    (
        verdict["cached"].as_bool().unwrap_or_default(),
        verdict["policies"][0]["outcome"].as_str().unwrap_or_default(),
    )
}

#[tokio::test]
async fn the_same_bytes_are_recalled_and_still_get_their_own_verdict() {
    let gate = Gate::start().await;
    let caller = gate.caller(&gate.key("moderate"));
    let first = caller.upload(&samples::coffee()).await;
    assert_eq!(outcome(first.expect(200)), (false, "judged"));
    let upload = Upload { query: Some("ref=again".to_owned()), ..Upload::from(&samples::coffee()) };
    let second = caller.upload(upload).await;
    assert_eq!(outcome(second.expect(200)), (true, "recalled"));
    assert_ne!(first.json["id"], second.json["id"]);
    assert_ne!(first.json["submission_id"], second.json["submission_id"]);
    assert_eq!((&first.json["ref"], &second.json["ref"]), (&Value::Null, &Value::from("again")));
    for same in ["probability", "thresholds", "version", "judges"] {
        assert_eq!(first.json["policies"][0][same], second.json["policies"][0][same], "{same}");
    }

    // One bit more is another content.
    let other = caller.upload(&samples::unique(1)).await;
    assert_eq!(outcome(other.expect(200)), (false, "judged"));
}

#[tokio::test]
async fn what_another_project_uploaded_is_not_revealed() {
    let gate = Gate::start().await;
    let policies = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies");
    gate.command(&["policies", "apply", "--activate", "--project", "other", policies]).good();
    let ours = gate.caller(&gate.key("moderate,read"));
    let theirs = gate.caller(&gate.key_in("other", "moderate,read"));
    let first = ours.upload(&samples::coffee()).await;
    assert_eq!(outcome(first.expect(200)), (false, "judged"));

    let second = theirs.upload(&samples::coffee()).await;
    assert_eq!(
        outcome(second.expect(200)),
        (false, "judged"),
        "`cached` would say that somebody has this picture"
    );
    assert_eq!(second.json["project"], "other");
    assert_eq!(outcome(theirs.upload(&samples::coffee()).await.expect(200)), (true, "recalled"));

    // Nor can one be read from the other.
    let id = first.json["id"].as_str().unwrap_or_default();
    ours.get(&format!("/v1/verdicts/{id}")).await.expect(200);
    theirs.get(&format!("/v1/verdicts/{id}")).await.refused(404, "not_found");
    let listed = theirs.get("/v1/verdicts").await;
    let projects: Vec<&Value> = listed.expect(200)["data"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|verdict| &verdict["project"])
        .collect();
    assert_eq!(projects, ["other", "other"]);
}

#[tokio::test]
async fn a_project_without_policies_gets_no_verdict() {
    let gate = Gate::start().await;
    let caller = gate.caller(&gate.key_in("empty", "moderate"));
    let problem = caller.upload(&samples::coffee()).await;
    assert!(
        problem.refused(503, "nothing_judged")["detail"]
            .as_str()
            .is_some_and(|d| d.contains("no policy is active")),
        "{}",
        problem.text()
    );
}
