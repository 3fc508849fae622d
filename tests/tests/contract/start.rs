//! How `serve` starts and refuses to: configuration's precedence, taken ports, missing judges, demo judges.

use std::net::TcpListener;

use shieldgate_tests::{Gate, Setup, samples, shieldgate};
use tempfile::TempDir;

use crate::models::copy_of_open_nsfw;

/// Starts that must fail leave a sentence and exit code 1.
async fn refused(setup: Setup) -> String {
    let failed = setup.try_start().await.expect_err("it must not start");
    assert_eq!(failed.code, Some(1), "{}", failed.log);
    assert!(failed.log.contains("error: "), "{}", failed.log);
    failed.log
}

#[tokio::test]
async fn the_first_start_makes_everything_and_later_ones_find_it() {
    let mut gate = Gate::with().fresh().start().await;
    let caller = gate.caller(&gate.key("moderate,read"));
    let first = caller.upload(&samples::coffee()).await;
    assert_eq!(first.expect(200)["cached"], false);
    // After a crash Postgres is still there, and is adopted.
    gate.kill().await;
    let orphan = gate.postmaster_pid();
    assert!(orphan.is_some(), "Postgres outlives a killed service");
    gate.restart().await;
    assert_eq!(gate.postmaster_pid(), orphan);
    assert_eq!(caller.upload(&samples::coffee()).await.expect(200)["cached"], true);
    // After a stop it is started anew.
    gate.restart().await;
    assert_ne!(gate.postmaster_pid(), orphan);
    let listed = caller.get("/v1/verdicts").await;
    assert_eq!(listed.expect(200)["data"].as_array().map(Vec::len), Some(2));
    assert_eq!(gate.stop().await, Some(0));
}

#[tokio::test]
async fn flags_win_over_environment_over_file() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("gate.toml");
    std::fs::write(
        &file,
        "body_bytes_max = 1000\nmedia_keep = 'all'\nlog_format = 'json'\npixels_max = 100\n",
    )
    .expect("writes");
    let gate = Gate::with()
        .flag("--config", file.display())
        .env("SHIELDGATE_BODY_BYTES_MAX", 2000)
        .env("SHIELDGATE_PIXELS_MAX", 200)
        .flag("--pixels-max", 256)
        .start()
        .await;
    let caller = gate.caller(&gate.key("moderate"));
    // The file's: everything is kept, the log is JSON. A picture of 16 × 16 fits the flag's 256 pixels only.
    caller.upload(&samples::unique(1)).await.expect(200);
    assert!(gate.data_dir().join("media").read_dir().is_ok_and(|mut entries| entries.next().is_some()));
    assert!(gate.log().lines().all(|line| line.starts_with('{')), "{}", gate.log());
    // The environment's: 1500 bytes are not too many, 2500 are.
    caller.upload(vec![b'x'; 1500].as_slice()).await.refused(415, "image_type_unsupported");
    caller.upload(vec![b'x'; 2500].as_slice()).await.refused(413, "body_too_large");
}

#[tokio::test]
async fn a_wrong_configuration_is_named() {
    let folder = TempDir::new().expect("a folder");
    for (text, expected) in [
        ("judge_timeout = 5\n", "`judge_timeout` is no option; is `judge_timeout_ms` meant?"),
        ("listen = [1]\n", "`listen` must be"),
        ("= 1\n", "wrong.toml`, line 1: "),
        ("media_keep = 'some'\n", "`some` keeps nothing known"),
    ] {
        let file = folder.path().join("wrong.toml");
        std::fs::write(&file, text).expect("writes");
        let failed =
            Gate::with().flag("--config", file.display()).try_start().await.expect_err("it must not start");
        assert_eq!(failed.code, Some(2), "{}", failed.log);
        assert!(failed.log.contains(expected), "no `{expected}` in: {}", failed.log);
    }
    let failed =
        Gate::with().flag("--config", "/nowhere.toml").try_start().await.expect_err("it must not start");
    assert!(failed.code == Some(2) && failed.log.contains("`/nowhere.toml` can't be read"), "{}", failed.log);
}

#[tokio::test]
async fn a_taken_port_is_said_before_anything_is_made() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("it has one");
    let data = TempDir::new().expect("a folder");
    let data_dir = data.path().join("data");
    let log = refused(Gate::with().data_dir(&data_dir).flag("--listen", address)).await;
    assert!(log.contains(&format!("`{address}` can't be served on")) && log.contains("`--listen`"), "{log}");
    assert!(!data_dir.exists(), "no data directory for a service that never ran");
}

#[tokio::test]
async fn two_services_share_no_data_directory() {
    let gate = Gate::start().await;
    let log = refused(Gate::with().data_dir(gate.data_dir())).await;
    assert!(log.contains(&gate.pid().to_string()), "it says who holds it: {log}");
    gate.nobody().get("/readyz").await.expect(200);
    // With another directory both run.
    let other = Gate::start().await;
    other.nobody().get("/readyz").await.expect(200);
}

#[tokio::test]
async fn a_missing_judge_stops_the_start_unless_the_policy_says_skip() {
    let policy = |when: &str| {
        format!(
            "id: gore\ntitle: G\nmodality: image\ntext: G\nwhen_missing: {when}\njudges:\n  - name: absent\n    thresholds: {{review: 0.5, block: 0.8}}\n"
        )
    };
    // Not even activated; so one is activated, and its judge taken away afterwards.
    let folder = TempDir::new().expect("a folder");
    let data_dir = folder.path().join("data");
    let copy = copy_of_open_nsfw(folder.path(), "absent", false);
    let mapped = policy("refuse").replace("gore", "nudity");
    let mut gate = Gate::with().data_dir(&data_dir).model(&copy).policy("nudity", &mapped).start().await;
    assert_eq!(gate.stop().await, Some(0));
    std::fs::remove_file(data_dir.join("models/absent.json")).expect("its record is there");
    let log = refused(Gate::with().data_dir(&data_dir)).await;
    for expected in
        ["policy `nudity` needs judge `absent`", "`shieldgate models add`", "when_missing: skip", "open-nsfw"]
    {
        assert!(log.contains(expected), "no `{expected}` in: {log}");
    }
    let file = folder.path().join("gore.yaml");
    std::fs::write(&file, policy("refuse")).expect("writes");
    let args =
        ["policies", "apply", "--activate", "--data-dir", "other", file.to_str().expect("a plain name")];
    let error = shieldgate(folder.path(), &args, &[]).bad(1);
    assert!(
        error.contains("policy `gore` needs judge `absent`") && error.contains("when_missing: skip"),
        "{error}"
    );

    let gate = Gate::with().policy("gore", &policy("skip")).start().await;
    let caller = gate.caller(&gate.key("moderate"));
    let answer = caller.upload(&samples::coffee()).await;
    let named = |list: &str| -> Vec<String> {
        let list = answer.json[list].as_array().into_iter().flatten();
        list.filter_map(|policy| policy["policy"].as_str().map(str::to_owned)).collect()
    };
    answer.expect(200);
    assert_eq!(named("policies_not_run"), ["dangerous", "gore", "violence"]);
    // `policies apply` on an empty database still brings the shipped ones.
    assert_eq!(named("policies"), ["sexual"]);
}

#[tokio::test]
async fn a_device_that_is_absent_stops_the_start() {
    let log = refused(Gate::with().flag("--device", "cuda:77")).await;
    assert!(log.contains("cuda:77"), "{log}");
}
