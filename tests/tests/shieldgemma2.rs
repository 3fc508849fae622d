//! ShieldGemma 2 through the whole gate: added, opened, asked over HTTP, and the reference's own numbers answered.
#![expect(clippy::expect_used, reason = "a test that cannot set up fails")]

use std::path::{Path, PathBuf};

use serde_json::Value;
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
    let caller = gate.caller(&gate.key("moderate,read"));
    let golden: Value =
        serde_json::from_slice(&std::fs::read(golden_folder().join("a/golden.json")).expect("is committed"))
            .expect("is JSON");

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
    assert_eq!(gate.stop().await, Some(0));
    for stage in ["vision", "prefix", "policies"] {
        assert!(collector.got("/v1/traces", stage.as_bytes()), "no span `{stage}`");
    }
}
