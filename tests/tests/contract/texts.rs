//! `POST /v1/texts`: a text in, a verdict out, by a Gemma 3 of the exact architecture with random weights.

use serde_json::{Value, json};
use shieldgate_tests::Gate;
use shieldgate_tests::texts::{gate, policy, tiny};
use tempfile::TempDir;

/// Policy, outcome and action of each answer.
fn answers(verdict: &Value) -> Vec<[&str; 3]> {
    let policies = verdict["policies"].as_array().expect("policies").iter();
    policies
        .map(|answer| ["policy", "outcome", "action"].map(|name| answer[name].as_str().unwrap_or_default()))
        .collect()
}

#[tokio::test]
async fn a_text_is_judged_recorded_and_recalled() {
    let (_folder, model) = tiny();
    let gate = gate(&model).start().await;
    let caller = gate.caller(&gate.key("moderate,read"));
    let body = json!({"text": "You are ｂａｄ, ä", "ref": "post 1", "subject": "u1", "metadata": {"a": 1}});
    let first = caller.post("/v1/texts", &body).await;
    let verdict = first.expect(200);
    assert_eq!((&verdict["action"], &verdict["cached"]), (&json!("review"), &json!(false)));
    assert_eq!(answers(verdict), [["insults", "judged", "review"], ["threats", "judged", "allow"]]);
    let content = &verdict["content"];
    assert_eq!((&content["characters"], &content["bytes"]), (&json!(14), &json!(21)));
    assert_eq!((&content["media_type"], content.get("width")), (&json!("text/plain"), None));
    let worst = &verdict["policies"][0]["judges"][0]["worst"];
    assert_eq!((&worst["start"], &worst["end"]), (&json!(0), &json!(14)));
    assert!(["written", "folded"].contains(&worst["form"].as_str().unwrap_or_default()), "{worst}");
    assert_eq!((&verdict["ref"], &verdict["metadata"]), (&json!("post 1"), &json!({"a": 1})));

    let again = caller.post("/v1/texts", &json!({"text": "You are ｂａｄ, ä"})).await;
    let recalled = again.expect(200);
    assert_eq!((&recalled["cached"], &recalled["content"]), (&json!(true), content));
    assert_eq!(recalled["policies"][0]["probability"], verdict["policies"][0]["probability"]);
    assert_eq!(recalled["policies"][0]["judges"][0]["worst"], *worst);
    let id = verdict["id"].as_str().expect("an id");
    assert_eq!(caller.get(&format!("/v1/verdicts/{id}")).await.expect(200), verdict);
}

/// The window that decides is named, wherever it stands.
#[tokio::test]
async fn a_long_text_is_judged_whole() {
    let (_folder, model) = tiny();
    let gate = gate(&model).start().await;
    let caller = gate.caller(&gate.key("moderate"));
    let text: String = (0..400).map(|n| format!("sentence number {n}. ")).collect();
    let answer = caller.post("/v1/texts?policies=insults", &json!({"text": text})).await;
    let verdict = answer.expect(200);
    let characters = text.chars().count() as u64;
    assert_eq!(verdict["content"]["characters"], json!(characters));
    let worst = &verdict["policies"][0]["judges"][0]["worst"];
    let (start, end) = (worst["start"].as_u64().expect("a start"), worst["end"].as_u64().expect("an end"));
    assert!(start < end && end <= characters && end - start <= 1200, "{worst}");
}

#[tokio::test]
async fn what_is_no_text_is_refused() {
    let (_folder, model) = tiny();
    let gate = gate(&model).flag("--text-bytes-max", 100).start().await;
    let caller = gate.caller(&gate.key("moderate"));
    let post = async |body: Value| caller.post("/v1/texts", &body).await;
    post(json!({"text": ""})).await.refused(400, "text_empty");
    post(json!({"text": "a".repeat(101)})).await.refused(413, "text_too_long");
    post(json!({"text": 1})).await.refused(400, "json_invalid");
    post(json!({"txt": "a"})).await.refused(400, "json_invalid");
    post(json!({"text": "a", "ref": ""})).await.refused(400, "word_invalid");
    post(json!({"text": "a", "metadata": [1]})).await.refused(400, "metadata_invalid");
    let unknown = caller.post("/v1/texts?policies=none", &json!({"text": "a"})).await;
    unknown.refused(422, "policy_not_active");
    let form = caller.request(reqwest::Method::POST, "/v1/texts").header("content-type", "text/plain");
    caller.send(form.body("a")).await.refused(415, "content_type_unsupported");
    // A policy for images is none for texts.
    let foreign = caller.post("/v1/texts?policies=sexual", &json!({"text": "a"})).await;
    foreign.refused(422, "policy_not_active");
    // Zero characters and blanks are text like any other.
    post(json!({"text": "\u{0}"})).await.expect(200);
    post(json!({"text": " "})).await.expect(200);
}

#[tokio::test]
async fn a_judge_of_texts_is_none_for_pictures() {
    let (_folder, model) = tiny();
    let wrong = policy("insults", 0.5, "").replace("modality: text", "modality: image");
    let gate = Gate::with().model(&model).start().await;
    let folder = TempDir::new().expect("a folder");
    std::fs::write(folder.path().join("insults.yaml"), wrong).expect("writes");
    let policies = folder.path().to_str().expect("plain");
    let said = gate.command(&["policies", "apply", "--activate", policies]).bad(1);
    assert!(said.contains("judges texts"), "{said}");
}
