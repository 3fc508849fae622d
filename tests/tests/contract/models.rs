//! `models add|list|verify`, and a classifier that was added judging a policy by its manifest alone.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use shieldgate_tests::{Gate, samples, shieldgate, target_dir};
use tempfile::TempDir;

/// Open-NSFW under another name, asked about another policy.
pub(crate) fn copy_of_open_nsfw(folder: &Path, name: &str, demo: bool) -> PathBuf {
    let shipped = target_dir().join("assets/models/open-nsfw");
    let copy = folder.join(name);
    std::fs::create_dir(&copy).expect("makes a folder");
    std::fs::copy(shipped.join("open-nsfw.onnx"), copy.join("open-nsfw.onnx")).expect("copies the model");
    let manifest = std::fs::read_to_string(shipped.join("judge.yaml")).expect("reads the manifest");
    let changed = manifest
        .replace("name: open-nsfw", &format!("name: {name}{}", if demo { "\ndemo: true" } else { "" }))
        .replace("sexual: [nsfw]", "nudity: [nsfw]");
    assert_ne!(manifest, changed);
    std::fs::write(copy.join("judge.yaml"), changed).expect("writes the manifest");
    copy
}

fn policy(judge: &str) -> String {
    format!(
        "id: nudity\ntitle: N\nmodality: image\ntext: N\njudges:\n  - name: {judge}\n    thresholds: {{review: 0.001, block: 0.9}}\n"
    )
}

#[tokio::test]
async fn an_added_classifier_judges_by_its_manifest() {
    let folder = TempDir::new().expect("a folder");
    let copy = copy_of_open_nsfw(folder.path(), "second", false);
    let gate = Gate::with().model(&copy).policy("nudity", &policy("second")).start().await;
    let caller = gate.caller(&gate.key("moderate"));
    let answer = caller.upload(&samples::coffee()).await;
    let policies = answer.expect(200)["policies"].as_array().cloned().unwrap_or_default();
    let of =
        |id: &str| policies.iter().find(|policy| policy["policy"] == id).unwrap_or_else(|| panic!("no {id}"));
    assert_eq!((&of("nudity")["action"], &of("sexual")["action"]), (&json!("review"), &json!("allow")));
    assert_eq!(of("nudity")["judges"][0]["name"], "second");
    assert_eq!(of("nudity")["probability"], of("sexual")["probability"], "the same network");
    assert_eq!(answer.json["action"], "review", "the worst policy decides");

    let listed: Value =
        serde_json::from_str(&gate.command(&["models", "list", "--json"]).good()).expect("JSON");
    let names: Vec<&Value> = listed.as_array().into_iter().flatten().map(|model| &model["name"]).collect();
    assert_eq!(names, ["second", "open-nsfw"]);
    let verified = gate.command(&["models", "verify"]).good();
    assert!(verified.contains("second good") && verified.contains("open-nsfw good"), "{verified}");

    // One byte more, and it is not the model that was added.
    let file = copy.join("open-nsfw.onnx");
    let mut bytes = std::fs::read(&file).expect("reads");
    *bytes.last_mut().expect("it has bytes") ^= 1;
    std::fs::write(&file, bytes).expect("writes");
    let error = gate.command(&["models", "verify", "second"]).bad(1);
    assert!(error.contains("open-nsfw.onnx") && error.contains("SHA-256"), "{error}");
    gate.command(&["models", "verify", "open-nsfw"]).good();
    // Nor can it be added again: its own manifest disowns it.
    let add = ["models", "add", copy.to_str().expect("a plain name")];
    let error = gate.command(&add).bad(1);
    assert!(error.contains("open-nsfw.onnx"), "{error}");
}

#[tokio::test]
async fn a_demo_judge_stays_on_loopback() {
    let folder = TempDir::new().expect("a folder");
    let copy = copy_of_open_nsfw(folder.path(), "shown", true);
    let failed = Gate::with()
        .model(&copy)
        .flag("--listen", "0.0.0.0:0")
        .try_start()
        .await
        .expect_err("it must not start");
    assert_eq!(failed.code, Some(1), "{}", failed.log);
    assert!(
        failed.log.contains("demo judges (shown)") && failed.log.contains("`--allow-demo`"),
        "{}",
        failed.log
    );

    // Said in every verdict where it answers.
    let gate = Gate::with().model(&copy).policy("nudity", &policy("shown")).start().await;
    let caller = gate.caller(&gate.key("moderate"));
    let answer = caller.upload(&samples::coffee()).await;
    assert_eq!(answer.expect(200)["policies"][0]["judges"][0]["demo"], true);
    let ready = gate.nobody().get("/readyz").await;
    let demo = ready.expect(200)["judges"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|judge| judge["demo"] == true)
        .count();
    assert_eq!(demo, 1);
    drop(gate);

    let mut gate =
        Gate::with().model(&copy).flag("--listen", "0.0.0.0:0").switch("--allow-demo").start().await;
    assert_eq!(gate.stop().await, Some(0));
}

#[test]
fn a_folder_that_is_no_model_is_named() {
    let folder = TempDir::new().expect("a folder");
    let add = |args: &[&str]| {
        let args: Vec<&str> =
            ["models", "add", "--data-dir", "data"].into_iter().chain(args.iter().copied()).collect();
        shieldgate(folder.path(), &args, &[])
    };
    for neither in ["nowhere", "./no/where", "/no/where", "../nowhere", "a/b@", "a/b/c"] {
        let error = add(&[neither]).bad(1);
        assert!(error.contains(&format!("`{neither}` is no folder, and no model of the Hub")), "{error}");
        assert!(error.contains("ORG/NAME@REVISION"), "{error}");
    }
    std::fs::create_dir(folder.path().join("empty")).expect("makes a folder");
    let error = add(&["empty"]).bad(1);
    assert!(error.contains("is no model folder that shieldgate knows"), "{error}");
    let copy = copy_of_open_nsfw(folder.path(), "cut", false);
    let model = copy.join("open-nsfw.onnx");
    let bytes = std::fs::read(&model).expect("reads");
    std::fs::write(&model, &bytes[..1000]).expect("writes");
    let error = add(&["cut"]).bad(1);
    assert!(error.contains("open-nsfw.onnx"), "{error}");
    std::fs::write(&model, &bytes).expect("writes");
    std::fs::write(copy.join("judge.yaml"), "kind: classifier\nname: [").expect("writes");
    let error = add(&["cut"]).bad(1);
    assert!(error.contains("judge.yaml"), "{error}");
    add(&["cut", "--name", "Not A Name"]).bad(1);
    add(&[]).bad(2);
}
