//! One running service with its private Postgres: keys, commands, signals, a look behind the API.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tempfile::TempDir;

use crate::binary::{Done, shieldgate};
use crate::caller::{Caller, client};
use crate::openapi::Api;
use crate::process::{self, Postmaster};
use crate::record;
use crate::setup::{Running, Setup, tail};

/// Longer than the service's own grace.
const STOP_PATIENCE: Duration = Duration::from_secs(40);

/// Where a gate's files lie.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    pub(crate) folder: Arc<TempDir>,
    pub(crate) data_dir: PathBuf,
}

impl Home {
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.path().join("serve.log")
    }
}

#[derive(Debug)]
pub struct Gate {
    setup: Setup,
    home: Home,
    /// None: stopped or killed.
    running: Option<Running>,
    address: String,
    client: reqwest::Client,
    api: Arc<Api>,
    /// A test that meddles with the record itself says so.
    check_at_end: bool,
}

impl Gate {
    /// As shipped: Open-NSFW, the shipped policies, a new database.
    pub async fn start() -> Self {
        Self::with().start().await
    }

    pub fn with() -> Setup {
        Setup::default()
    }

    pub(crate) async fn new(setup: Setup, home: Home, running: Running) -> Self {
        let client = client(Duration::from_secs(60));
        let address = running.address.clone();
        let document = client.get(format!("http://{address}/openapi.json")).send().await.expect("it answers");
        let api = Arc::new(Api::new(document.json().await.expect("the document is JSON")));
        Self { setup, home, running: Some(running), address, client, api, check_at_end: true }
    }

    /// `http://127.0.0.1:PORT` and the path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its OpenAPI document.
    pub fn api(&self) -> &Api {
        &self.api
    }

    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    pub fn data_dir(&self) -> &Path {
        &self.home.data_dir
    }

    /// A folder for the test's own files; it goes with the gate.
    pub fn folder(&self) -> &Path {
        self.home.folder.path()
    }

    /// What the service logged so far, all its starts together.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.home.log()).unwrap_or_default()).into_owned()
    }

    /// A new key of the project `default`, by `shieldgate keys create`.
    pub fn key(&self, scopes: &str) -> String {
        self.key_in("default", scopes)
    }

    pub fn key_in(&self, project: &str, scopes: &str) -> String {
        let name = format!("test-{}", scopes.replace(',', "."));
        let args = ["keys", "create", "--name", name.as_str(), "--project", project, "--scopes", scopes];
        let key = self.command(&args).good();
        assert!(key.starts_with("sg_") && !key.contains(char::is_whitespace), "not a key alone: {key}");
        key
    }

    /// As the audit log names the key of this name: by its id, for names may repeat.
    pub fn actor(&self, name: &str) -> String {
        let listed: serde_json::Value =
            serde_json::from_str(&self.command(&["keys", "list", "--json"]).good()).expect("JSON");
        let key = listed.as_array().into_iter().flatten().find(|key| key["name"] == name);
        let id = key.and_then(|key| key["id"].as_str());
        format!("key:{}", id.unwrap_or_else(|| panic!("no key `{name}` in {listed}")))
    }

    /// `shieldgate ARGS --data-dir DIR`, beside the running service; its code and outputs.
    pub fn command(&self, args: &[&str]) -> Done {
        let data_dir = self.home.data_dir.to_str().expect("a temporary folder's name is plain");
        let args: Vec<&str> = args.iter().copied().chain(["--data-dir", data_dir]).collect();
        shieldgate(self.folder(), &args, &[])
    }

    /// Requests under a key.
    pub fn caller(&self, key: &str) -> Caller {
        Caller::new(self.client.clone(), self.url(""), Some(key.to_owned()), Arc::clone(&self.api))
    }

    /// Requests without a key.
    pub fn nobody(&self) -> Caller {
        Caller::new(self.client.clone(), self.url(""), None, Arc::clone(&self.api))
    }

    pub fn pid(&self) -> u32 {
        self.running.as_ref().map(|running| running.child.id()).expect("the service is running")
    }

    /// The private Postgres as it is now; none while it is away.
    pub fn postmaster_pid(&self) -> Option<u32> {
        Postmaster::of(&self.home.data_dir).map(|postmaster| postmaster.pid)
    }

    /// Every process of the private Postgres.
    pub fn postgres_pids(&self) -> Vec<u32> {
        process::postgres_in(&self.home.data_dir.join("postgres"))
    }

    /// A signal to the service or to a process of its Postgres, and to no other.
    pub fn signal(&self, pid: u32, signal: i32) {
        let own = self.running.as_ref().is_some_and(|running| running.child.id() == pid);
        assert!(own || self.postgres_pids().contains(&pid), "{pid} is not this gate's");
        process::signal(pid, signal);
    }

    /// The service's largest resident memory so far, in bytes.
    pub fn memory_peak(&self) -> u64 {
        self.memory_line("VmHWM:")
    }

    /// The service's resident memory, in bytes.
    pub fn memory(&self) -> u64 {
        self.memory_line("VmRSS:")
    }

    fn memory_line(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("our own child");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux says so");
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
        kib * 1024
    }

    /// A connection past the API as the owner of the tables.
    pub async fn owner(&self) -> PgConnection {
        self.connection("shieldgate_owner").await
    }

    /// As the service itself connects.
    pub async fn service_role(&self) -> PgConnection {
        self.connection("shieldgate_service").await
    }

    pub async fn connection(&self, role: &str) -> PgConnection {
        record::connect(&self.home.data_dir, role).await.expect("the private Postgres answers")
    }

    /// Verdicts without their audit entry and entries without their verdict; empty in a healthy gate.
    pub async fn unaudited(&self) -> Vec<String> {
        record::unaudited(&self.home.data_dir).await.expect("the private Postgres answers")
    }

    /// For tests that change the record behind the service's back.
    pub fn skip_check_at_end(&mut self) {
        self.check_at_end = false;
    }

    /// SIGTERM, and the exit code once it and its Postgres are gone. The record is checked first.
    pub async fn stop(&mut self) -> Option<i32> {
        if self.check_at_end {
            assert_eq!(self.unaudited().await, Vec::<String>::new(), "verdicts and audit entries must match");
        }
        self.terminate().await
    }

    /// SIGTERM alone; requests under way go on meanwhile.
    pub async fn terminate(&mut self) -> Option<i32> {
        let running = self.running.take().expect("the service is running");
        process::signal(running.child.id(), libc::SIGTERM);
        let log = self.home.log();
        // Off the runtime, so that a load under way goes on.
        let ended = tokio::task::spawn_blocking(move || ended(running, &log));
        let code = ended.await.expect("it only waits");
        assert_eq!(self.postgres_pids(), Vec::<u32>::new(), "Postgres must end with the service");
        code
    }

    /// SIGKILL; the private Postgres stays behind, as after a crash.
    pub async fn kill(&mut self) {
        let mut running = self.running.take().expect("the service is running");
        process::signal(running.child.id(), libc::SIGKILL);
        let gone = tokio::task::spawn_blocking(move || process::wait(&mut running.child, STOP_PATIENCE));
        assert!(gone.await.expect("it only waits").is_some(), "SIGKILL ends everything");
    }

    /// Starts again on the same address and data, stopped (by SIGTERM) first where it runs.
    pub async fn restart(&mut self) {
        if self.running.is_some() {
            assert_eq!(self.terminate().await, Some(0), "{}", tail(&self.log()));
        }
        match self.setup.launch(&self.home, Some(&self.address)).await {
            Ok(running) => self.running = Some(running),
            Err(failed) => panic!("the gate did not start again ({:?}):\n{}", failed.code, tail(&failed.log)),
        }
    }
}

fn ended(mut running: Running, log: &Path) -> Option<i32> {
    match process::wait(&mut running.child, STOP_PATIENCE) {
        Some(status) => status.code(),
        None => {
            process::signal(running.child.id(), libc::SIGKILL);
            process::wait(&mut running.child, STOP_PATIENCE);
            let log = std::fs::read_to_string(log).unwrap_or_default();
            panic!("the service did not stop within {STOP_PATIENCE:?}:\n{}", tail(&log));
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let failing = std::thread::panicking();
        let mut wrong = Vec::new();
        if let Some(mut running) = self.running.take() {
            if self.check_at_end && !failing {
                match record::unaudited_blocking(&self.home.data_dir) {
                    Ok(found) => wrong.extend(found),
                    Err(error) => wrong.push(format!("the record could not be checked: {error}")),
                }
            }
            process::signal(running.child.id(), libc::SIGTERM);
            match process::wait(&mut running.child, STOP_PATIENCE) {
                Some(status) if status.success() => {}
                Some(status) => wrong.push(format!("the service ended with {status}")),
                None => {
                    wrong.push("the service did not stop".to_owned());
                    process::signal(running.child.id(), libc::SIGKILL);
                    process::wait(&mut running.child, STOP_PATIENCE);
                }
            }
            if Postmaster::of(&self.home.data_dir).is_some() {
                wrong.push("Postgres did not end with the service".to_owned());
            }
        }
        if let Some(left) = Postmaster::of(&self.home.data_dir) {
            left.end();
        }
        let log = self.log();
        if log.contains("panicked at") {
            wrong.push("the service panicked".to_owned());
        }
        if failing {
            // The test's own message says what failed; the service's side of it helps.
            let mut stderr = std::io::stderr().lock();
            drop(std::io::Write::write_all(
                &mut stderr,
                format!("the service's log ends:\n{}\n", tail(&log)).as_bytes(),
            ));
        } else {
            assert!(wrong.is_empty(), "{}\nthe service's log ends:\n{}", wrong.join("\n"), tail(&log));
        }
    }
}
