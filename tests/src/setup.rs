//! How a gate is to be started: flags, environment, data directory, policies, models.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::binary::{command, shieldgate};
use crate::caller::client;
use crate::gate::{Gate, Home};
use crate::process::{self, Postmaster};
use crate::template;

/// A start with recovery, on a machine that builds and tests beside us.
const PATIENCE: Duration = Duration::from_secs(60);

/// Options of one gate; `Gate::with()` begins them, `start()` ends them.
#[derive(Debug, Default, Clone)]
pub struct Setup {
    flags: Vec<String>,
    env: Vec<(String, String)>,
    data_dir: Option<PathBuf>,
    policies: Vec<(String, String)>,
    models: Vec<PathBuf>,
    own_listen: bool,
    fresh: bool,
}

/// A service that ended before it was ready.
#[derive(Debug)]
pub struct Failed {
    pub code: Option<i32>,
    /// Its stderr.
    pub log: String,
}

impl Setup {
    /// `--name value`
    #[must_use]
    pub fn flag(mut self, name: &str, value: impl ToString) -> Self {
        self.own_listen |= name == "--listen";
        self.flags.extend([name.to_owned(), value.to_string()]);
        self
    }

    /// `--name`
    #[must_use]
    pub fn switch(mut self, name: &str) -> Self {
        self.flags.push(name.to_owned());
        self
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.own_listen |= name == "SHIELDGATE_LISTEN";
        self.env.push((name.to_owned(), value.to_string()));
        self
    }

    /// A data directory that is the test's own and is not removed.
    #[must_use]
    pub fn data_dir(mut self, path: &Path) -> Self {
        self.data_dir = Some(path.to_owned());
        self
    }

    /// An empty data directory, so that the start makes the cluster itself.
    #[must_use]
    pub fn fresh(mut self) -> Self {
        self.fresh = true;
        self
    }

    /// A policy that is applied and activated before the start, in place of the shipped one of its id.
    #[must_use]
    pub fn policy(mut self, id: &str, yaml: &str) -> Self {
        self.policies.push((id.to_owned(), yaml.to_owned()));
        self
    }

    /// A model folder that is added before the start.
    #[must_use]
    pub fn model(mut self, folder: &Path) -> Self {
        self.models.push(folder.to_owned());
        self
    }

    /// Starts and waits for `/readyz`; panics with the log's tail where it does not come.
    pub async fn start(self) -> Gate {
        match self.try_start().await {
            Ok(gate) => gate,
            Err(failed) => {
                panic!("the gate ended with {:?} before it was ready:\n{}", failed.code, tail(&failed.log))
            }
        }
    }

    /// For starts that are to fail.
    pub async fn try_start(self) -> Result<Gate, Failed> {
        let folder = TempDir::with_prefix("shieldgate-test-").expect("a folder for the gate");
        let data_dir = self.data_dir.clone().unwrap_or_else(|| folder.path().join("data"));
        if self.data_dir.is_none() && !self.fresh {
            template::copy_to(&data_dir);
        }
        let env: Vec<(&str, &str)> =
            self.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let data = data_dir.to_str().expect("a temporary folder's name is plain");
        for model in &self.models {
            let model = model.to_str().expect("a test's folder's name is plain");
            shieldgate(folder.path(), &["models", "add", "--data-dir", data, model], &env).good();
        }
        if !self.policies.is_empty() {
            let policies = folder.path().join("policies");
            std::fs::create_dir(&policies).expect("makes a folder");
            for (id, yaml) in &self.policies {
                std::fs::write(policies.join(format!("{id}.yaml")), yaml).expect("writes a policy");
            }
            let policies = policies.to_str().expect("plain as well");
            shieldgate(
                folder.path(),
                &["policies", "apply", "--activate", "--data-dir", data, policies],
                &env,
            )
            .good();
        }
        let home = Home { folder: Arc::new(folder), data_dir };
        let running = match self.launch(&home, None).await {
            Ok(running) => running,
            Err(failed) => {
                // Of a directory that another gate uses, Postgres is that gate's.
                let own = self.data_dir.is_none() && Postmaster::of(&home.data_dir).is_some();
                assert!(!own, "a start that failed left its Postgres behind:\n{}", tail(&failed.log));
                return Err(failed);
            }
        };
        Ok(Gate::new(self, home, running).await)
    }

    /// One process; `address` where it is to be the same as before.
    pub(crate) async fn launch(&self, home: &Home, address: Option<&str>) -> Result<Running, Failed> {
        let log = home.log();
        let before = std::fs::metadata(&log).map_or(0, |metadata| metadata.len());
        let file = File::options().create(true).append(true).open(&log).expect("a log file");
        let mut command = command(home.folder.path());
        command.arg("serve").arg("--data-dir").arg(&home.data_dir);
        if !self.own_listen || address.is_some() {
            command.args(["--listen", address.unwrap_or("127.0.0.1:0")]);
        }
        command.args(&self.flags).envs(self.env.iter().cloned());
        command.stdout(file.try_clone().expect("a second handle")).stderr(file);
        let mut child = command.spawn().expect("the binary starts");

        let until = Instant::now() + PATIENCE;
        let client = client(Duration::from_secs(5));
        loop {
            let text = read_from(&log, before);
            if let Some(address) = served_on(&text)
                && client
                    .get(format!("http://{address}/readyz"))
                    .send()
                    .await
                    .is_ok_and(|answer| answer.status().is_success())
            {
                return Ok(Running { child, address });
            }
            if let Some(status) = process::wait(&mut child, Duration::ZERO) {
                return Err(Failed { code: status.code(), log: read_from(&log, before) });
            }
            if Instant::now() > until {
                process::signal(child.id(), libc::SIGTERM);
                if process::wait(&mut child, Duration::from_secs(20)).is_none() {
                    process::signal(child.id(), libc::SIGKILL);
                }
                panic!("the gate was not ready within {PATIENCE:?}:\n{}", tail(&read_from(&log, before)));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) child: Child,
    /// `127.0.0.1:PORT`
    pub(crate) address: String,
}

/// The log line `… serving address=127.0.0.1:41234 …`, or the same in JSON.
fn served_on(log: &str) -> Option<String> {
    let said = |line: &&str| line.contains(" serving address=") || line.contains(r#""message":"serving""#);
    let line = log.lines().find(said)?;
    let rest = line.split_once("address=").or_else(|| line.split_once("\"address\":\""))?.1;
    Some(rest.split([' ', '"']).next()?.to_owned())
}

fn read_from(log: &Path, offset: u64) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let begin = usize::try_from(offset).unwrap_or(0).min(bytes.len());
    String::from_utf8_lossy(&bytes[begin..]).into_owned()
}

pub(crate) fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
