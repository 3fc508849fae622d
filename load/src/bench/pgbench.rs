//! `pgbench` beside the gate: the same inserts in the same cluster, by the program that Postgres is measured with.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::gate::Postmaster;

const SCRIPT: &str = include_str!("recall.sql");

/// A UUIDv7 of the transaction's time, the same wherever it stands in the transaction. Postgres 15 has no
/// `uuidv7()`, and asking for one would cost a round trip that the gate doesn't make.
const ID: &str = "cast(lpad(to_hex(cast(extract(epoch from now()) * 1000 as bigint)), 12, '0') || '7' || \
    lpad(to_hex(cast(:low as bigint)), 3, '0') || '8' || \
    lpad(to_hex(cast(:high as bigint) & 1152921504606846975), 15, '0') as uuid)";

/// The database and the role of a private cluster, as the gate makes them.
const DATABASE: &str = "shieldgate";
const ROLE: &str = "shieldgate_service";
const PORT: &str = "5432";

/// Where Debian puts its servers' programs, newest first.
const DEBIAN: [&str; 4] = ["18", "17", "16", "15"];

/// A private cluster and the programs to ask it with.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) postmaster: u32,
    socket_dir: PathBuf,
    pgbench: PathBuf,
    psql: PathBuf,
}

/// What `pgbench` counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Counted {
    pub(super) transactions: u64,
    pub(super) a_second: f64,
}

impl Cluster {
    pub(super) fn find(cluster: &Path, named: Option<&Path>) -> Result<Self> {
        let postmaster = Postmaster::of(cluster).context("the gate has no private Postgres")?;
        let beside = std::fs::read_link(format!("/proc/{}/exe", postmaster.pid))?;
        let debian =
            DEBIAN.map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin/pgbench")));
        let candidates = match named {
            Some(named) => vec![named.to_owned()],
            None => [beside.with_file_name("pgbench")].into_iter().chain(debian).collect(),
        };
        let Some(pgbench) = candidates.iter().find(|path| path.is_file()) else {
            let looked: Vec<String> = candidates.iter().map(|path| format!("`{}`", path.display())).collect();
            bail!("no pgbench at {}\n  hint: `--pgbench PATH` names one", looked.join(", "));
        };
        let psql = [beside.with_file_name("psql"), pgbench.with_file_name("psql")];
        let psql =
            psql.into_iter().find(|path| path.is_file()).context("no psql beside Postgres or pgbench")?;
        Ok(Self {
            postmaster: postmaster.pid,
            socket_dir: postmaster.socket_dir,
            pgbench: pgbench.clone(),
            psql,
        })
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.arg("--host").arg(&self.socket_dir).args(["--port", PORT, "--username", ROLE]);
        command.stdin(Stdio::null()).kill_on_drop(true);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(&name);
            }
        }
        command
    }

    /// Runs a script for so long with so many clients.
    pub(super) async fn run(&self, script: &str, clients: usize, seconds: u64) -> Result<Counted> {
        let mut file = tempfile::NamedTempFile::with_prefix("shieldgate-load-")?;
        file.write_all(script.as_bytes())?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(clients);
        let mut command = self.command(&self.pgbench);
        command.args(["--no-vacuum", "--protocol=prepared", "--file"]).arg(file.path());
        command.arg(format!("--client={clients}")).arg(format!("--jobs={threads}"));
        command.arg(format!("--time={seconds}")).arg(DATABASE);
        let output = command.output().await.context("pgbench can't be started")?;
        let (stdout, stderr) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "pgbench failed ({}): {}", output.status, stderr.trim());
        counted(&stdout).with_context(|| format!("pgbench said something unexpected:\n{stdout}{stderr}"))
    }

    /// A query's only value.
    pub(super) async fn ask(&self, sql: &str) -> Result<String> {
        let mut command = self.command(&self.psql);
        command.args(["--no-psqlrc", "--no-align", "--tuples-only", "--command", sql, DATABASE]);
        let output = command.output().await.context("psql can't be started")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "psql failed: {}", stderr.trim());
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// None: not what pgbench 15 to 18 print, or some transactions failed.
fn counted(text: &str) -> Option<Counted> {
    let after = |begin: &str| text.lines().find_map(|line| line.strip_prefix(begin)).map(str::trim);
    if after("number of failed transactions:").is_some_and(|failed| !failed.starts_with("0 ")) {
        return None;
    }
    Some(Counted {
        transactions: after("number of transactions actually processed:")?.parse().ok()?,
        a_second: after("tps = ")?.split(' ').next()?.parse().ok()?,
    })
}

/// The script with the values of a real verdict and its audit entry, both as the API shows them.
pub(super) fn script(verdict: &Value, entry: &Value) -> Result<String> {
    let content = &verdict["content"];
    let policies = verdict["policies"].as_array().context("a verdict without policies")?;
    let policies: Vec<String> =
        policies.iter().zip(0..).map(|(policy, at)| policy_row(verdict, policy, at)).collect();
    let key_id = entry["actor"].as_str().and_then(|actor| actor.strip_prefix("key:"));
    let leaf = entry["leaf_hash"].as_str().and_then(|hash| hash.strip_prefix("sha256:"));
    let mut script = SCRIPT.replace("{{policies}}", &policies.join(",\n       "));
    let values = [
        ("id", ID.to_owned()),
        ("sha256", bytea(content["sha256"].as_str())),
        ("pdq", bytea(content["pdq"].as_str())),
        ("leaf_hash", bytea(leaf)),
        ("key_id", format!("cast({} as uuid)", key_id.map_or_else(|| "null".to_owned(), text))),
        ("media_type", literal(&content["media_type"])),
        ("bytes", literal(&content["bytes"])),
        ("width", literal(&content["width"])),
        ("height", literal(&content["height"])),
        ("frames_total", literal(&content["frames_total"])),
        ("frames_scored", literal(&content["frames_scored"])),
        ("trailing_bytes", literal(&content["trailing_bytes"])),
        ("project", literal(&verdict["project"])),
        ("status", literal(&verdict["status"])),
        ("action", literal(&verdict["action"])),
        ("cached", literal(&verdict["cached"])),
        ("source", literal(&verdict["source"])),
        ("runtime", literal(&verdict["runtime"])),
        ("device", literal(&verdict["device"])),
        ("metadata", document(&verdict["metadata"], "{}")),
        ("policies_not_run", document(&verdict["policies_not_run"], "[]")),
        ("raised", document(&verdict["raised"], "[]")),
        ("actor", literal(&entry["actor"])),
        ("hashes", document(&entry["hashes"], "{}")),
        ("detail", document(&entry["detail"], "{}")),
    ];
    for (name, value) in values {
        script = script.replace(&format!("{{{{{name}}}}}"), &value);
    }
    Ok(script)
}

fn policy_row(verdict: &Value, policy: &Value, position: usize) -> String {
    let judges = policy["judges"].as_array().map(Vec::as_slice).unwrap_or_default();
    let decided_by = judges.iter().find(|judge| judge["probability"] == policy["probability"]);
    let (thresholds, error) = (&policy["thresholds"], &policy["error"]);
    let columns = [
        ID.to_owned(),
        literal(&verdict["project"]),
        position.to_string(),
        literal(&policy["policy"]),
        literal(&policy["version"]),
        literal(&policy["outcome"]),
        literal(&policy["action"]),
        format!("cast({} as real)", literal(&policy["probability"])),
        format!("cast({} as real)", literal(&thresholds["review"])),
        format!("cast({} as real)", literal(&thresholds["block"])),
        decided_by.map_or_else(|| "null".to_owned(), |judge| literal(&judge["name"])),
        literal(&error["code"]),
        literal(&error["message"]),
        format!("cast({} as uuid)", literal(&policy["override_id"])),
        document(&policy["judges"], "[]"),
        document(&policy["judges_not_run"], "[]"),
    ];
    format!("({})", columns.join(", "))
}

fn document(value: &Value, absent: &str) -> String {
    let json = if value.is_null() { absent.to_owned() } else { value.to_string() };
    format!("cast({} as json)", text(&json))
}

fn bytea(hex: Option<&str>) -> String {
    hex.map_or_else(|| "null".to_owned(), |hex| format!("decode({}, 'hex')", text(hex)))
}

fn literal(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::String(value) => text(value),
        other => other.to_string(),
    }
}

/// A text constant. No colon stands in it, since pgbench takes `:word` for a variable, in quotes as well.
fn text(value: &str) -> String {
    let safe = value.replace('\\', r"\\").replace('\'', "''").replace(':', r"\x3a").replace('\n', r"\n");
    format!("E'{safe}'")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_pgbench_prints_is_read_and_failures_are_not_counted() {
        let text = "pgbench (18.0)\ntransaction type: x.sql\nnumber of transactions actually processed: 4321\n\
            number of failed transactions: 0 (0.000%)\nlatency average = 7.4 ms\n\
            initial connection time = 31.5 ms\ntps = 2160.71 (without initial connection time)\n";
        assert_eq!(counted(text), Some(Counted { transactions: 4321, a_second: 2160.71 }));
        assert_eq!(counted(&text.replace("transactions: 0 (0", "transactions: 7 (0")), None);
        assert_eq!(counted(""), None);
    }

    #[test]
    fn constants_can_neither_end_early_nor_be_taken_for_variables() {
        assert_eq!(text("it's a:b \\ c"), r"E'it''s a\x3ab \\ c'");
        assert_eq!(document(&json!({"a": true}), "{}"), "cast(E'{\"a\"\\x3atrue}' as json)");
        assert_eq!(document(&Value::Null, "[]"), "cast(E'[]' as json)");
        assert_eq!((literal(&json!(0.25)), literal(&Value::Null)), ("0.25".to_owned(), "null".to_owned()));
    }

    #[test]
    fn every_place_of_the_script_is_filled() {
        let verdict = json!({
            "project": "default", "status": "done", "action": "allow", "cached": true, "source": "upload",
            "content": {"sha256": "00ff", "pdq": null, "media_type": "image/jpeg", "bytes": 1, "width": 2,
                        "height": 3, "frames_total": 1, "frames_scored": 1},
            "policies": [{"policy": "p", "version": "v", "outcome": "recalled", "action": "allow",
                          "probability": 0.5, "thresholds": {"review": 0.6, "block": 0.7},
                          "judges": [{"name": "j", "probability": 0.5}]}],
            "policies_not_run": [], "metadata": {}, "runtime": "r", "device": "cpu",
        });
        let entry = json!({"actor": "key:1", "leaf_hash": "sha256:00", "hashes": {}, "detail": {}});
        let script = script(&verdict, &entry).expect("a verdict");
        assert!(!script.lines().any(|line| !line.starts_with("--") && line.contains("{{")), "{script}");
        assert!(script.contains("decode(E'00ff', 'hex')") && script.contains("E'recalled'"), "{script}");
        // Those of the script's own variables alone.
        for after in
            script.lines().filter(|line| !line.starts_with("--")).flat_map(|line| line.split(':').skip(1))
        {
            assert!(after.starts_with("low") || after.starts_with("high"), "`:{after}`");
        }
    }
}
