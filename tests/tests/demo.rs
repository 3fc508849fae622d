//! The demo model in `models/demo`: it answers on its own pictures, and says wherever it answers that it is a demo.

use std::path::{Path, PathBuf};

use shieldgate_tests::{Gate, Setup, Upload, shieldgate};
use tempfile::TempDir;

/// What `models/demo/samples.py` has composed, and the policy that each breaks.
const PICTURES: [(&str, Option<&str>); 10] = [
    ("bomb.png", Some("dangerous")),
    ("syringe.webp", Some("dangerous")),
    ("swords.jpg", Some("dangerous")),
    ("kiss.webp", Some("sexual")),
    ("eighteen.jpg", Some("sexual")),
    ("blood.png", Some("violence")),
    ("skull.webp", Some("violence")),
    ("grin.jpg", None),
    ("cat.webp", None),
    ("dog.webp", None),
];

fn house(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// As `make run` has it: under the name that the shipped policies call.
fn shown(data_dir: &TempDir) -> Setup {
    let (data, checkpoint) = (data_dir.path().join("data"), house("models/demo/checkpoint"));
    let (data, checkpoint) = (data.to_string_lossy(), checkpoint.to_string_lossy());
    let add = ["models", "add", &checkpoint, "--name", "shieldgemma2", "--data-dir", &data];
    shieldgate(data_dir.path(), &add, &[]).good();
    Gate::with().data_dir(&data_dir.path().join("data"))
}

#[tokio::test]
async fn the_shipped_policies_are_shown_by_a_demo_judge() {
    let data_dir = TempDir::new().expect("a folder");
    let gate = shown(&data_dir).start().await;
    let caller = gate.caller(&gate.key("moderate"));
    let folder = house("service/samples/demo");
    let pictures = std::fs::read_dir(&folder).expect("is committed").filter_map(Result::ok);
    let pictures = pictures.filter(|entry| entry.path().extension().is_some_and(|kind| kind != "md"));
    assert_eq!(pictures.count(), PICTURES.len(), "each has its line above");
    for (name, breaks) in PICTURES {
        let bytes = std::fs::read(folder.join(name)).expect("is committed");
        let answer = caller.upload(Upload::from(&bytes)).await;
        let verdict = answer.expect(200);
        assert_eq!(verdict["policies_not_run"], serde_json::json!([]), "{name}");
        for answered in verdict["policies"].as_array().expect("policies") {
            let judges = answered["judges"].as_array().expect("judges");
            let judge = judges.iter().find(|judge| judge["name"] == "shieldgemma2").expect("was asked");
            assert_eq!(judge["demo"], true, "{name}");
            let p = judge["probability"].as_f64().expect("a number");
            let policy = &answered["policy"];
            assert_eq!(p >= 0.5, breaks == policy.as_str(), "{name}, {policy}: {p}");
        }
        assert_eq!(verdict["action"] == "allow", breaks.is_none(), "{name}: {}", verdict["action"]);
    }
}

/// It must not judge a real upload pipeline by mistake.
#[tokio::test]
async fn it_is_refused_where_others_could_reach_it() {
    let data_dir = TempDir::new().expect("a folder");
    let refused = shown(&data_dir).flag("--listen", "0.0.0.0:0").try_start().await;
    let refused = refused.expect_err("it must not start");
    assert_eq!(refused.code, Some(1), "{}", refused.log);
    for word in ["demo judges (shieldgemma2)", "`--allow-demo`"] {
        assert!(refused.log.contains(word), "no {word}: {}", refused.log);
    }
}
