//! OpenAI's official clients against the real service, with nothing changed but address and key.
//!
//! `make test` installs them (`tests/clients/prepare.py`); what they check stands in `tests/clients/check.py` and
//! `check.mjs`. `CLIENTS=no` leaves these tests out.

#![expect(clippy::expect_used, reason = "this is all tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shieldgate_tests::texts::{gate, tiny};
use shieldgate_tests::{Gate, samples, target_dir};

/// One that hangs, hangs in a wait that the gate asked for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `prepare.py` says of itself; none where they are left out.
fn prepared() -> Option<Value> {
    if std::env::var_os("CLIENTS").is_some_and(|clients| clients == "no") {
        // Past the harness, which keeps what a good test prints to itself.
        let said = b"CLIENTS=no: OpenAI's clients are not tested\n";
        drop(std::io::Write::write_all(&mut std::io::stderr(), said));
        return None;
    }
    let path = target_dir().join("clients/prepared.json");
    let text = std::fs::read(&path).unwrap_or_else(|error| {
        panic!(
            "`{}`: {error}\n  hint: `make test` installs OpenAI's clients; `CLIENTS=no` leaves them out",
            path.display()
        )
    });
    Some(serde_json::from_slice(&text).expect("prepare.py writes JSON"))
}

fn house() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A client's own settings, and the proxies that would stand between us.
fn unset(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy().to_ascii_lowercase();
        if text.starts_with("openai_") || text.ends_with("_proxy") || text.starts_with("node_") {
            command.env_remove(&name);
        }
    }
}

/// `prepare.py`'s Python or Node on a script in the gate's folder, from the house's root.
fn interpreter(prepared: &Value, gate: &Gate, name: &str, script: &str) -> Command {
    let path = |key: &str| prepared[key].as_str().expect("prepare.py wrote it").to_owned();
    let file = gate.folder().join(name);
    std::fs::write(&file, script).expect("writes the script");
    let mut command = if name.ends_with(".py") {
        let mut python = Command::new(path("python"));
        python.args(["-B", "-s"]).env("PYTHONPATH", path("site"));
        python
    } else {
        let beside = gate.folder().join("node_modules");
        if !beside.exists() {
            // Node looks for packages beside the script.
            std::os::unix::fs::symlink(path("modules"), &beside).expect("links");
        }
        Command::new(path("node"))
    };
    unset(&mut command);
    command.arg(file).current_dir(house());
    command
}

/// Its output, if it ends well and in time.
async fn run(mut command: Command, gate: &Gate, key: &str) -> String {
    command.env("OPENAI_BASE_URL", gate.url("/v1")).env("OPENAI_API_KEY", key);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Off the runtime, which has the gate's connections to look after.
    let waited = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().expect("it starts");
        let until = Instant::now() + PATIENCE;
        while child.try_wait().expect("our own child").is_none() {
            if Instant::now() > until {
                child.kill().expect("our own child");
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let output = child.wait_with_output().expect("our own child");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{command:?} ended with {}:\n{stdout}{stderr}", output.status);
        stdout
    });
    waited.await.expect("the client is content")
}

/// `shieldgate_moderation_failures_total` for a reason.
async fn turned_away(gate: &Gate, reason: &str) -> u64 {
    let metrics = gate.nobody().get("/metrics").await.text();
    let label = format!("reason=\"{reason}\"");
    let mut lines = metrics.lines().filter(|line| line.starts_with("shieldgate_moderation_failures_total"));
    let line = lines.find(|line| line.contains(&label));
    line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0) as u64
}

#[tokio::test]
async fn they_work_unchanged() {
    let Some(prepared) = prepared() else { return };
    let (_folder, model) = tiny();
    let gate = gate(&model).flag("--text-bytes-max", 2000).switch("--fetch-image-urls").start().await;
    let shipped = house().join("policies");
    let shipped = shipped.to_str().expect("a plain path");
    gate.command(&["policies", "apply", "--activate", "--project", "pictures", shipped]).good();
    let picture = gate.folder().join("picture.png");
    std::fs::write(&picture, samples::coffee()).expect("writes");
    let key = gate.key("moderate");
    let check = |client: &str| {
        let limited = |limit: &[&str]| {
            let create = ["keys", "create", "--name", client, "--scopes", "moderate"];
            gate.command(&[&create, limit].concat()).good()
        };
        json!({
            "picture": picture,
            "reader": gate.key("read"),
            "limited": limited(&["--rate", "0.5"]),
            "quota": limited(&["--daily-quota", "1"]),
            "pictures_only": gate.key_in("pictures", "moderate"),
        })
    };
    let command = |client, script| {
        let mut command = interpreter(&prepared, &gate, client, script);
        command.env("CHECK", check(client).to_string());
        command
    };
    let python = command("check.py", include_str!("../clients/check.py"));
    let node = command("check.mjs", include_str!("../clients/check.mjs"));
    let (python, node) = tokio::join!(run(python, &gate, &key), run(node, &gate, &key));
    for said in [python, node] {
        assert!(said.ends_with(": good\n"), "{said}");
        eprint!("{said}");
    }
    // Two clients, one attempt each: what is not to be retried was not.
    for reason in ["idempotency_conflict", "quota_exceeded", "nothing_judged"] {
        assert_eq!(turned_away(&gate, reason).await, 2, "{reason}");
    }
    assert!(turned_away(&gate, "rate_limited").await >= 5, "and what is, was");
}

/// The README's own lines, as they stand there.
#[tokio::test]
async fn the_readme_s_examples_run() {
    let Some(prepared) = prepared() else { return };
    let (_folder, model) = tiny();
    let gate = gate(&model).start().await;
    let key = gate.key("moderate");
    let readme = std::fs::read_to_string(house().join("README.md")).expect("is committed");
    for (language, name) in [("python", "example.py"), ("js", "example.mjs")] {
        let blocks: Vec<&str> = readme
            .split(&format!("\n```{language}\n"))
            .skip(1)
            .filter_map(|rest| rest.split("\n```").next())
            .filter(|block| block.contains("openai"))
            .collect();
        assert_eq!(blocks.len(), 1, "README.md has one example in {language}");
        let command = interpreter(&prepared, &gate, name, blocks[0]);
        let said = run(command, &gate, &key).await;
        // Every text is reviewed here, a picture of a cat is allowed.
        let expected = if language == "python" { "True review\n" } else { "true review\n" };
        assert_eq!(said, expected);
    }
}
