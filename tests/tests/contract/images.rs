//! `POST /v1/images`: what may be sent with a picture, and the verdict's exact shape.

use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use shieldgate_tests::openapi::is_time;
use shieldgate_tests::{Answer, Caller, Gate, Upload, samples};
use uuid::Uuid;

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A value taken out, so that the rest can be compared whole.
fn taken(value: &mut Value, pointer: &str) -> Value {
    value.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")).take()
}

async fn form(caller: &Caller, query: &str, form: Form) -> Answer {
    caller.send(caller.request(Method::POST, &format!("/v1/images{query}")).multipart(form)).await
}

fn file() -> Part {
    Part::bytes(samples::coffee()).file_name("coffee.png").mime_str("image/png").expect("a content type")
}

#[tokio::test]
async fn the_verdict_has_exactly_the_contract_s_shape() {
    let gate = Gate::start().await;
    let caller = gate.caller(&gate.key("moderate"));
    let answer = caller
        .upload(Upload {
            query: Some("ref=item%201&subject=account-7".to_owned()),
            ..Upload::from(&samples::coffee())
        })
        .await;
    let mut verdict = answer.expect(200).clone();
    assert_eq!(answer.header("content-type"), Some("application/json"));

    let id = taken(&mut verdict, "/id");
    let version =
        |id: &Value| id.as_str().and_then(|id| id.parse::<Uuid>().ok()).map(|id| id.get_version_num());
    assert_eq!(version(&id), Some(7), "{id}");
    let submission = taken(&mut verdict, "/submission_id");
    assert_eq!(version(&submission), Some(7), "{submission}");
    assert_ne!(id, submission);
    let created_at = taken(&mut verdict, "/created_at");
    assert!(created_at.as_str().is_some_and(is_time), "{created_at}");
    let policy_version = taken(&mut verdict, "/policies/0/version");
    let hex = |text: &str| {
        text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    assert!(policy_version.as_str().is_some_and(hex), "{policy_version}");
    let digest = taken(&mut verdict, "/policies/0/judges/0/digest");
    assert!(digest.as_str().and_then(|text| text.strip_prefix("sha256:")).is_some_and(hex), "{digest}");
    let deciding = taken(&mut verdict, "/policies/0/probability");
    assert_eq!(deciding, taken(&mut verdict, "/policies/0/judges/0/probability"));
    let expected = samples::golden_probability("coffee");
    assert!(deciding.as_f64().is_some_and(|p| (p - expected).abs() <= 1e-3), "{deciding}, not {expected}");
    let pdq = taken(&mut verdict, "/content/pdq");
    assert!(pdq.as_str().is_some_and(hex), "{pdq}");
    let quality = taken(&mut verdict, "/content/pdq_quality");
    assert!(quality.as_u64().is_some_and(|quality| (50..=100).contains(&quality)), "{quality}");
    let runtime = taken(&mut verdict, "/runtime");
    assert!(runtime.as_str().is_some_and(|text| text.starts_with("onnxruntime 1.")), "{runtime}");

    // All that is left is known beforehand; a key more or less is a break of the contract.
    assert_eq!(
        verdict,
        json!({
            "id": null, "status": "done", "action": "allow", "cached": false, "submission_id": null,
            "project": "default", "ref": "item 1", "metadata": {}, "source": "upload",
            "content": {
                "sha256": sha256(&samples::coffee()), "pdq": null, "pdq_quality": null, "media_type": "image/png",
                "width": 150, "height": 100, "bytes": samples::coffee().len(),
                "frames_total": 1, "frames_scored": 1,
            },
            "policies": [{
                "policy": "sexual", "version": null, "outcome": "judged", "action": "allow", "probability": null,
                "thresholds": {"review": 0.5, "block": 0.85}, "error": null,
                "judges": [{
                    "name": "open-nsfw", "digest": null, "demo": false, "probability": null, "action": "allow",
                    "thresholds": {"review": 0.5, "block": 0.85}, "worst": {"frame": 0, "at_ms": 0},
                }],
                "judges_not_run": [{"name": "shieldgemma2", "reason": "judge `shieldgemma2` is not installed"}],
            }],
            "policies_not_run": [
                {"policy": "dangerous", "reason": "judge `shieldgemma2` is not installed"},
                {"policy": "violence", "reason": "judge `shieldgemma2` is not installed"},
            ],
            "runtime": null, "device": "cpu", "created_at": null,
        })
    );

    // The same by id, bit for bit: what is answered is what is on record.
    let id = id.as_str().unwrap_or_default();
    assert_eq!(caller.get(&format!("/v1/verdicts/{id}")).await.expect(200), &answer.json);
    // The account's id itself is nowhere: neither in the answer nor on record.
    assert!(!answer.text().contains("account-7"));
    let mut owner = gate.owner().await;
    let row: String = sqlx::query_scalar("select v::text from verdicts v where id = $1::uuid")
        .bind(id)
        .fetch_one(&mut owner)
        .await
        .expect("it is there");
    assert!(!row.contains("account-7"), "{row}");
    let hashes: i64 =
        sqlx::query_scalar("select count(*) from verdicts where octet_length(subject_hash) = 32")
            .fetch_one(&mut owner)
            .await
            .expect("counts");
    assert_eq!(hashes, 1);
}

#[tokio::test]
async fn a_form_may_carry_all_fields_and_a_query_too() {
    let gate = Gate::start().await;
    let caller = gate.caller(&gate.key("moderate"));
    let metadata = json!({"title": "Kaffee ☕", "nested": {"list": [1, 2.5, null, true]}, "big": 9_007_199_254_740_993_i64});
    let answer = form(
        &caller,
        "",
        Form::new()
            .text("metadata", metadata.to_string())
            .text("ref", "größe/1")
            .text("subject", "account-7")
            .part("file", file()),
    )
    .await;
    let verdict = answer.expect(200);
    assert_eq!(verdict["metadata"], metadata);
    assert_eq!(verdict["ref"], "größe/1");
    assert_eq!(verdict["content"]["sha256"], sha256(&samples::coffee()));

    // In the query as well, for a form without them; the form's own win.
    let answer = form(&caller, "?ref=query&policies=sexual", Form::new().part("file", file())).await;
    assert_eq!(answer.expect(200)["ref"], "query");
    let answer = form(&caller, "?ref=query", Form::new().part("file", file()).text("ref", "form")).await;
    assert_eq!(answer.expect(200)["ref"], "form");

    // An image is an image by its bytes, whatever the part or the header calls it.
    let part = Part::bytes(samples::coffee()).mime_str("text/plain").expect("a content type");
    let answer = form(&caller, "", Form::new().part("file", part)).await;
    assert_eq!(answer.expect(200)["content"]["media_type"], "image/png");
    for content_type in ["image/jpeg", "image/*", "application/octet-stream"] {
        let upload =
            Upload { content_type: Some(content_type.to_owned()), ..Upload::from(&samples::coffee()) };
        assert_eq!(caller.upload(upload).await.expect(200)["content"]["media_type"], "image/png");
    }
}

#[tokio::test]
async fn probabilities_are_the_model_s_own() {
    let gate = Gate::start().await;
    let caller = gate.caller(&gate.key("moderate"));
    for name in ["astronaut", "cat", "coffee", "skin", "noise", "wide", "exact"] {
        let answer = caller.upload(&samples::golden(name)).await;
        let probability = answer.expect(200)["policies"][0]["probability"].as_f64().unwrap_or(f64::NAN);
        let expected = samples::golden_probability(name);
        assert!((probability - expected).abs() <= 1e-3, "{name}: {probability}, not {expected}");
    }
}

#[tokio::test]
async fn policies_can_be_chosen_and_mistakes_are_named() {
    let gate = Gate::start().await;
    let caller = gate.caller(&gate.key("moderate"));
    let ask = |query: &str| {
        let upload = Upload { query: Some(query.to_owned()), ..Upload::from(&samples::coffee()) };
        let caller = caller.clone();
        async move { caller.upload(upload).await }
    };
    let verdict = ask("policies=sexual").await;
    assert_eq!(verdict.expect(200)["policies"].as_array().map(Vec::len), Some(1));
    assert_eq!(verdict.json["policies_not_run"], json!([]));
    let verdict = ask("policies=violence,sexual,sexual").await;
    assert_eq!(verdict.expect(200)["policies"].as_array().map(Vec::len), Some(1));
    assert_eq!(verdict.json["policies_not_run"][0]["policy"], "violence");

    let problem = ask("policies=sexual,violense").await;
    assert!(
        problem.refused(422, "policy_not_active")["detail"]
            .as_str()
            .is_some_and(|d| d.contains("`violense`"))
    );
    assert_eq!(problem.json["error"]["param"], "policies");
    ask("policies=").await.refused(400, "policies_invalid");
    ask("policies=sexual,,").await.refused(400, "policies_invalid");
    // Nothing that could be judged is no verdict, and says why.
    let problem = ask("policies=violence").await;
    assert!(
        problem.refused(503, "nothing_judged")["detail"].as_str().is_some_and(|d| d.contains("shieldgemma2"))
    );
    // A misspelt parameter must not be taken for "all policies".
    ask("polices=sexual").await.refused(400, "query_invalid");
    ask("ref=a&ref=b").await.refused(400, "query_invalid");
    ask("ref=a%00b").await.refused(400, "query_invalid");

    // Ids of the client's: 1 to 255 bytes, no control characters.
    ask(&format!("ref={}", "r".repeat(255))).await.expect(200);
    for (query, param) in [
        (format!("ref={}", "r".repeat(256)), "ref"),
        ("ref=".to_owned(), "ref"),
        ("ref=a%1Bb".to_owned(), "ref"),
        ("ref=a%0Ab".to_owned(), "ref"),
        (format!("subject={}", "ü".repeat(128).replace('ü', "%C3%BC")), "subject"),
    ] {
        assert_eq!(ask(&query).await.refused(400, "word_invalid")["error"]["param"], param, "{query}");
    }
}
