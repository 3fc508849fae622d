//! ShieldGemma 2 through the whole gate: added, opened, asked over HTTP, and the reference's own numbers answered.
#![expect(clippy::expect_used, reason = "a test that cannot set up fails")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use shieldgate_tests::hub::{Deed, Hub, MODEL};
use shieldgate_tests::{Collector, Gate};
use tempfile::TempDir;

const POLICIES: [&str; 3] = ["dangerous", "sexual", "violence"];

fn golden_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/shieldgemma2")
}

/// The committed random checkpoint, under the name that the shipped policies call.
fn checkpoint() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let target = folder.path().join("shieldgemma2");
    std::fs::create_dir(&target).expect("makes a folder");
    for entry in std::fs::read_dir(golden_folder().join("a/checkpoint")).expect("is committed") {
        let entry = entry.expect("is readable");
        std::fs::copy(entry.path(), target.join(entry.file_name())).expect("copies");
    }
    folder
}

#[tokio::test]
async fn the_shipped_policies_are_judged_as_transformers_does() {
    let folder = checkpoint();
    let collector = Collector::start().await;
    let gate = Gate::with().model(&folder.path().join("shieldgemma2"));
    let mut gate = gate.env("SHIELDGATE_OTLP_ENDPOINT", collector.endpoint()).start().await;
    judges_like_transformers(&gate, "a").await;
    assert_eq!(gate.stop().await, Some(0));
    for stage in ["vision", "prefix", "policies"] {
        assert!(collector.got("/v1/traces", stage.as_bytes()), "no span `{stage}`");
    }
}

#[tokio::test]
async fn a_model_of_the_hub_is_judged_where_its_cache_lies() {
    let hub = Hub::start(&golden_folder().join("c/checkpoint"), |_| Deed::Well);
    let cache = TempDir::new().expect("a folder");
    let gate = Gate::with().env("HF_ENDPOINT", hub.endpoint()).env("HF_HOME", cache.path().display());
    // No folder has this name, so it is asked for at the Hub; in the end it is called as its policies call it.
    let gate = gate.env("NO_PROXY", "127.0.0.1").model(Path::new(MODEL)).start().await;
    judges_like_transformers(&gate, "c").await;
    let weights = |folder: &Path| {
        let files = walk(folder).into_iter();
        files.filter(|file| std::fs::metadata(file).is_ok_and(|file| file.len() > 50_000)).count()
    };
    assert_eq!((weights(cache.path()), weights(gate.data_dir())), (4, 0), "each shard lies there once");
}

/// Every file below a folder but links and what Postgres has.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("is readable") {
        let (entry, kind) =
            entry.and_then(|entry| Ok((entry.path(), entry.file_type()?))).expect("is readable");
        if kind.is_file() {
            files.push(entry);
        } else if kind.is_dir() && !entry.ends_with("postgres") {
            files.extend(walk(&entry));
        }
    }
    files
}

async fn judges_like_transformers(gate: &Gate, checkpoint: &str) {
    let caller = gate.caller(&gate.key("moderate,read"));
    let golden = std::fs::read(golden_folder().join(checkpoint).join("golden.json")).expect("is committed");
    let golden: Value = serde_json::from_slice(&golden).expect("is JSON");

    for run in golden["runs"].as_array().expect("runs") {
        let picture = run["picture"].as_str().expect("a name");
        let bytes = std::fs::read(golden_folder().join("pictures").join(format!("{picture}.png")));
        let answer = caller.upload(&bytes.expect("is committed")).await;
        let verdict = answer.expect(200);
        assert_eq!(verdict["policies_not_run"], serde_json::json!([]), "nothing is left out: {verdict}");
        for policy in POLICIES {
            let answers = verdict["policies"].as_array().expect("policies");
            let answered = answers.iter().find(|answer| answer["policy"] == policy).expect("is answered");
            let judges = answered["judges"].as_array().expect("judges");
            let judge = judges.iter().find(|judge| judge["name"] == "shieldgemma2").expect("was asked");
            let (p, expected) = (judge["probability"].as_f64(), run["alone"][policy]["probability"].as_f64());
            let (p, expected) = (p.expect("a number"), expected.expect("a number"));
            assert!((p - expected).abs() <= 1e-5, "{picture}, {policy}: {p} instead of {expected}");
        }
    }
}
