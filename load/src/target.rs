//! The gate under load: a running one on this machine, or one of our own.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use serde_json::Value;

use crate::client;
use crate::gate::Gate;
use crate::metrics::JudgeNow;
use crate::options::{Against, OwnGate};
use crate::say;
use crate::upload::{Endpoint, Uploader};

const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Target {
    /// `http://127.0.0.1:8080`
    pub(crate) base: String,
    pub(crate) key: String,
    pub(crate) own: Option<Gate>,
    client: reqwest::Client,
}

/// What it says about itself.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct About {
    pub(crate) version: String,
    pub(crate) runtime: String,
    pub(crate) device: String,
    /// As `/readyz` lists them.
    pub(crate) judges: Value,
    /// Started for this run, with these options beside the defaults; null where it was running already.
    pub(crate) started_with: Option<Vec<String>>,
}

impl About {
    /// `shieldgate 0.1.0 (open-nsfw; onnxruntime 1.32.0, cpu)`
    pub(crate) fn line(&self) -> String {
        let judges: Vec<&str> =
            self.judges.as_array().into_iter().flatten().filter_map(|judge| judge["name"].as_str()).collect();
        let options = self.started_with.iter().flatten().map(|option| format!(" {option}"));
        let options: String = options.collect();
        format!(
            "shieldgate {} ({}; {}, {}){options}",
            self.version,
            judges.join(", "),
            self.runtime,
            self.device
        )
    }
}

impl Target {
    /// The gate that is named, or one of our own.
    pub(crate) async fn open(against: &Against) -> Result<Self> {
        match (&against.url, &against.key) {
            (Some(url), Some(key)) => Self::running(url, key),
            (Some(_), None) => bail!(
                "a running gate wants a key\n  hint: `shieldgate keys create --data-dir DIR --name load --scopes moderate`, then KEY in the environment"
            ),
            (None, _) => Self::own(&against.own).await,
        }
    }

    fn running(url: &str, key: &str) -> Result<Self> {
        let base = url.trim_end_matches('/');
        ensure!(
            is_here(base),
            "`{url}` is not on this machine: load goes to `http://127.…`, `http://localhost` or `http://[::1]` only"
        );
        Self::new(base.to_owned(), key.to_owned(), None)
    }

    pub(crate) async fn own(options: &OwnGate) -> Result<Self> {
        let binary = options.gate.clone().map_or_else(beside_us, Ok)?;
        say::note("starting a gate in a throw-away folder");
        let gate = Gate::start(&binary, &options.gate_option).await?;
        Self::new(gate.base(), gate.key().to_owned(), Some(gate))
    }

    fn new(base: String, key: String, own: Option<Gate>) -> Result<Self> {
        let client = client::client(PATIENCE)?;
        Ok(Self { base, key, own, client })
    }

    pub(crate) fn uploader(&self, endpoint: Endpoint) -> Result<Uploader> {
        Uploader::new(&self.base, &self.key, endpoint)
    }

    /// `127.0.0.1:8080`
    pub(crate) fn address(&self) -> &str {
        self.base.strip_prefix("http://").unwrap_or(&self.base)
    }

    /// An error where it isn't ready.
    pub(crate) async fn about(&self, options: &OwnGate) -> Result<About> {
        let health: Value = self.get("/healthz").await?.json().await?;
        let ready: Value = self.get("/readyz").await?.json().await?;
        let text = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
        Ok(About {
            version: text(&health["version"]),
            runtime: text(&ready["runtime"]),
            device: text(&ready["device"]),
            judges: ready["judges"].clone(),
            started_with: self.own.is_some().then(|| options.gate_option.clone()),
        })
    }

    /// A JSON document of the API.
    pub(crate) async fn json(&self, path: &str) -> Result<Value> {
        Ok(self.get(path).await?.json().await?)
    }

    pub(crate) async fn judge(&self, name: &str) -> Result<JudgeNow> {
        let text = self.get("/metrics").await?.text().await?;
        JudgeNow::read(&text, name).with_context(|| format!("/metrics say nothing about the judge `{name}`"))
    }

    async fn get(&self, path: &str) -> Result<reqwest::Response> {
        let request = self.client.get(format!("{}{path}", self.base)).bearer_auth(&self.key);
        let answer = request.send().await.with_context(|| format!("no answer from {}{path}", self.base))?;
        ensure!(
            answer.status().is_success(),
            "{}{path} answered {}: {}",
            self.base,
            answer.status(),
            answer.text().await.unwrap_or_default()
        );
        Ok(answer)
    }
}

/// `shieldgate` beside this program, where the build puts both.
fn beside_us() -> Result<PathBuf> {
    Ok(std::env::current_exe()
        .context("this program doesn't know where it lies")?
        .with_file_name("shieldgate"))
}

/// Whether a base URL names this machine by its loopback interface.
fn is_here(base: &str) -> bool {
    let Some(rest) = base.strip_prefix("http://") else { return false };
    let Some((host, port)) = rest.rsplit_once(':') else { return false };
    let loopback = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(host) => host.parse::<std::net::Ipv6Addr>().is_ok_and(|address| address.is_loopback()),
        None => {
            host == "localhost"
                || host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        }
    };
    loopback && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loaded() {
        for here in
            ["http://127.0.0.1:8080", "http://127.1.2.3:1", "http://localhost:80", "http://[::1]:8080"]
        {
            assert!(is_here(here), "{here}");
        }
        for elsewhere in [
            "http://10.0.0.1:8080",
            "http://127.0.0.1.example.org:80",
            "http://localhost.example.org:80",
            "http://127.0.0.1@example.org:80",
            "https://127.0.0.1:80",
            "http://127.0.0.1",
            "http://127.0.0.1:80/v1",
        ] {
            assert!(!is_here(elsewhere), "{elsewhere}");
        }
    }
}
