//! The judge of texts that comes with the build: Gemma 3 270M with the shipped heads, as `make run` has it.
#![expect(clippy::expect_used, reason = "a test that cannot set up fails")]

use std::path::Path;

use serde_json::{Value, json};
use shieldgate_tests::{Gate, all_assets};

/// The samples that `make run` shows.
fn samples() -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../service/samples/texts.jsonl");
    let lines = std::fs::read_to_string(path).expect("is committed");
    let field = |row: &Value, name: &str| row[name].as_str().expect("a text").to_owned();
    let rows = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    rows.map(|row| (field(&row, "name"), field(&row, "text"))).collect()
}

/// Sentences that nobody minds, each another.
fn manual(sentences: usize) -> Vec<String> {
    let parts = ["valve", "filter", "handle", "gasket", "bracket", "hinge", "spring"];
    let sentence = |n: usize| {
        let (one, other) = (parts[n % 7], parts[n / 7 % 7]);
        format!("Step {n}: check the {one} of unit {n}, clean it with water and fit the {other} again. ")
    };
    (0..sentences).map(sentence).collect()
}

#[tokio::test]
async fn texts_are_judged_as_shipped() {
    let gate = Gate::with().env("SHIELDGATE_ASSETS", all_assets().display()).start().await;
    let caller = gate.caller(&gate.key("moderate"));
    let breaks = [
        ("thanks", None),
        ("bread", None),
        ("threat", Some("harassment-text")),
        ("crisis", Some("self-harm-text")),
        ("vermin", Some("hate-text")),
    ];
    let samples = samples();
    assert_eq!(samples.len(), breaks.len(), "each has its line above");
    for ((name, text), (expected, breaks)) in samples.iter().zip(breaks) {
        assert_eq!(name, expected);
        let answer = caller.post("/v1/texts", &json!({"text": text})).await;
        let verdict = answer.expect(200);
        assert_eq!(verdict["policies_not_run"], json!([]), "{name}");
        let answers = verdict["policies"].as_array().expect("policies");
        assert_eq!(answers.len(), 5, "{name}");
        for answer in answers {
            let judge = &answer["judges"][0];
            assert_eq!((&judge["name"], &judge["demo"]), (&json!("gemma3"), &json!(false)), "{name}");
        }
        match breaks {
            None => assert_eq!(verdict["action"], "allow", "{name}: {verdict}"),
            Some(policy) => {
                let answer = answers.iter().find(|answer| answer["policy"] == policy).expect("it answers");
                assert_ne!(answer["action"], "allow", "{name}: {answer}");
            }
        }
    }

    // One bad sentence in a page that it is lost in, and in many pages: found, and its place named.
    let (plain, bad) = (manual(90), &samples[4].1);
    let long = plain.concat();
    let answer = caller.post("/v1/texts", &json!({"text": long})).await;
    assert_eq!(answer.expect(200)["action"], "allow", "{}", answer.json);
    let place = plain[..45].concat().chars().count();
    let hidden = format!("{}{bad} {}", plain[..45].concat(), plain[45..].concat());
    let answer = caller.post("/v1/texts", &json!({"text": hidden})).await;
    let verdict = answer.expect(200);
    assert_ne!(verdict["action"], "allow", "{verdict}");
    let hate = verdict["policies"].as_array().expect("policies").iter();
    let hate = hate.into_iter().find(|answer| answer["policy"] == "hate-text").expect("it answers");
    let worst = &hate["judges"][0]["worst"];
    let (start, end) = (worst["start"].as_u64().expect("a place"), worst["end"].as_u64().expect("a place"));
    assert!((start..end).contains(&(place as u64 + 5)), "{worst}, it is at {place}");

    // `/v1/moderations` says so in its own words; no policy for texts covers what is illicit.
    let answer = caller.post("/v1/moderations", &json!({"input": bad})).await;
    let result = &answer.expect(200)["results"][0];
    assert_eq!((&result["flagged"], &result["categories"]["hate"]), (&json!(true), &json!(true)));
    assert_eq!(result["category_applied_input_types"]["hate"], json!(["text"]));
    assert_eq!(result["category_applied_input_types"]["illicit"], json!([]));
}
