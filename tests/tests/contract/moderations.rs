//! `POST /v1/moderations`: the OpenAI moderation shape.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use shieldgate_tests::samples;
use shieldgate_tests::texts::{gate, tiny};

const CATEGORIES: [&str; 13] = [
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
];

fn has_all_keys(result: &Value) {
    for map in ["categories", "category_scores", "category_applied_input_types"] {
        let mut keys: Vec<&str> = result[map].as_object().expect(map).keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, CATEGORIES, "{map}");
    }
}

#[tokio::test]
async fn each_form_of_input_has_its_results_and_every_content_its_verdict() {
    let (_folder, model) = tiny();
    let gate = gate(&model).start().await;
    let caller = gate.caller(&gate.key("moderate,read"));
    let post = async |input: Value| {
        let body = json!({"model": "omni-moderation-latest", "input": input});
        caller.post("/v1/moderations", &body).await.expect(200).clone()
    };
    let verdicts = |answer: &Value| answer["shieldgate"]["verdicts"].as_array().map_or(0, Vec::len);

    let one = post(json!("You are bad")).await;
    assert!(one["id"].as_str().is_some_and(|id| id.starts_with("modr-")), "{one}");
    assert_eq!((one["results"].as_array().map(Vec::len), verdicts(&one)), (Some(1), 1));
    let result = &one["results"][0];
    has_all_keys(result);
    // One policy reviews every text, the other none.
    assert_eq!(result["flagged"], true);
    assert_eq!(
        (&result["categories"]["hate"], &result["categories"]["harassment"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(result["categories"]["harassment/threatening"], false);
    assert_eq!(result["category_applied_input_types"]["hate"], json!(["text"]));
    assert_eq!(
        (&result["category_scores"]["violence"], &result["categories"]["violence"]),
        (&json!(0.0), &json!(false))
    );
    assert_eq!(result["category_applied_input_types"]["violence"], json!([]));
    let verdict = &one["shieldgate"]["verdicts"][0];
    assert_eq!(result["category_scores"]["hate"], verdict["policies"][0]["probability"]);
    let id = verdict["id"].as_str().expect("an id");
    assert_eq!(caller.get(&format!("/v1/verdicts/{id}")).await.expect(200), verdict);

    let several = post(json!(["a", "b", "c"])).await;
    assert_eq!((several["results"].as_array().map(Vec::len), verdicts(&several)), (Some(3), 3));
    several["results"].as_array().into_iter().flatten().for_each(has_all_keys);
    let submissions: Vec<&Value> = several["shieldgate"]["verdicts"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|v| &v["submission_id"])
        .collect();
    assert!(submissions.iter().all(|id| **id == several["shieldgate"]["submission_id"]), "{submissions:?}");

    let url = format!("data:image/png;base64,{}", STANDARD.encode(samples::coffee()));
    let image = json!({"type": "image_url", "image_url": {"url": url}});
    let mixed = post(json!([{"type": "text", "text": "You are bad"}, image])).await;
    assert_eq!((mixed["results"].as_array().map(Vec::len), verdicts(&mixed)), (Some(1), 2));
    has_all_keys(&mixed["results"][0]);
    assert_eq!(mixed["results"][0]["category_applied_input_types"]["sexual"], json!(["image"]));
    assert_eq!(mixed["results"][0]["category_applied_input_types"]["hate"], json!(["text"]));
    let alone = post(json!([image])).await;
    assert_eq!((&alone["results"][0]["flagged"], verdicts(&alone)), (&json!(false), 1));
}

#[tokio::test]
async fn errors_are_those_that_the_clients_know() {
    let (_folder, model) = tiny();
    let gate = gate(&model).start().await;
    let caller = gate.caller(&gate.key("moderate"));
    let post = async |body: Value| caller.post("/v1/moderations", &body).await;
    let image = |url: &str| json!({"type": "image_url", "image_url": {"url": url}});
    post(json!({})).await.refused(400, "json_invalid");
    post(json!({"input": "a", "stream": true})).await.refused(400, "json_invalid");
    post(json!({"input": []})).await.refused(400, "input_empty");
    post(json!({"input": [1]})).await.refused(400, "input_invalid");
    let two =
        post(json!({"input": [image("data:image/png;base64,AA=="), image("data:image/png;base64,AA==")]}))
            .await;
    two.refused(400, "too_many_images");
    assert_eq!(
        (&two.json["error"]["param"], &two.json["error"]["type"]),
        (&json!("input"), &json!("invalid_request_error"))
    );
    let text = format!("data:image/png;base64,{}", STANDARD.encode("no picture"));
    post(json!({"input": [image(&text)]})).await.refused(415, "image_type_unsupported");
    gate.nobody().post("/v1/moderations", &json!({"input": "a"})).await.refused(401, "key_invalid");
    gate.caller(&gate.key("read"))
        .post("/v1/moderations", &json!({"input": "a"}))
        .await
        .refused(403, "scope_missing");
}

/// A request with several contents and one key: the same verdicts again.
#[tokio::test]
async fn one_idempotency_key_stands_for_all_contents() {
    let (_folder, model) = tiny();
    let gate = gate(&model).start().await;
    let caller = gate.caller(&gate.key("moderate"));
    let post = async |input: Value| {
        let request = caller.request(reqwest::Method::POST, "/v1/moderations");
        caller.send(request.header("idempotency-key", "k").json(&json!({"input": input}))).await
    };
    let first = post(json!(["a", "b"])).await.expect(200).clone();
    assert_eq!(post(json!(["a", "b"])).await.expect(200), &first);
    post(json!(["a", "c"])).await.refused(409, "idempotency_conflict");
}
