//! Every option, defined once: as a flag, as `SHIELDGATE_…` in the environment, as a key of `shieldgate.toml`.
//!
//! Flags win over the environment, the environment over the file, the file over the defaults. The file's
//! keys are the flags with `_` for `-` (`listen`, `judge_timeout_ms`). It is `--config FILE` or
//! `SHIELDGATE_CONFIG`, else `shieldgate.toml` in the working directory, where there is one.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use conf::Conf;
use shieldgate_models::runtime::DeviceChoice;

use crate::moderate::KeepWhich;
use crate::telemetry::LogFormat;

/// Where things lie and how it is told; for every command.
#[derive(Conf, Debug, Clone)]
#[conf(env_prefix = "SHIELDGATE_")]
pub struct Common {
    /// Folder for everything that is this service's own: private Postgres, kept originals, model records, keys.
    #[arg(long, env, default_value = "shieldgate-data")]
    pub data_dir: PathBuf,
    /// Folder with ONNX Runtime, Postgres and the default models; found beside the binary where absent.
    #[arg(long, env)]
    pub assets: Option<PathBuf>,
    /// Configuration file.
    #[arg(long, env)]
    pub config: Option<PathBuf>,
    /// `text` or `json`, to stderr.
    #[arg(long, env, default_value = "text")]
    pub log_format: LogFormat,
    /// What is logged: `warn`, `info`, `shieldgate=debug,info`; `info` for `serve` and `warn` for other
    /// commands where absent.
    #[arg(long, env)]
    pub log: Option<String>,
}

/// Which Postgres; for every command that needs one.
#[derive(Conf, Debug, Clone)]
#[conf(env_prefix = "SHIELDGATE_")]
pub struct Database {
    /// Postgres to record in, as the service's role; a private one in the data directory where absent.
    /// `DATABASE_URL` is read as well.
    #[arg(long, env)]
    pub database_url: Option<String>,
    /// The same database as its owner, for migrations; `--database-url` where absent.
    #[arg(long, env)]
    pub owner_database_url: Option<String>,
    /// Connections to Postgres, at most.
    #[arg(long, env, default_value = "16")]
    pub database_connections: u32,
    /// How long a request waits for a connection before it is answered 503, in milliseconds.
    #[arg(long, env, default_value = "3000")]
    pub database_timeout_ms: u64,
}

/// `shieldgate serve`
#[derive(Conf, Debug, Clone)]
pub struct Serve {
    #[conf(flatten)]
    pub common: Common,
    #[conf(flatten)]
    pub database: Database,
    #[conf(flatten)]
    pub gate: Gate,
}

/// How uploads are taken in and judged.
#[derive(Conf, Debug, Clone)]
#[conf(env_prefix = "SHIELDGATE_")]
pub struct Gate {
    /// Address to serve on.
    #[arg(long, env, default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Address for `/metrics` (and `/healthz`, `/readyz`) alone; beside the API where absent.
    #[arg(long, env)]
    pub metrics_listen: Option<SocketAddr>,
    /// OpenTelemetry collector to send traces, metrics and logs to (OTLP over HTTP), as
    /// `http://collector:4318`; `OTEL_EXPORTER_OTLP_ENDPOINT` is read as well.
    #[arg(long, env)]
    pub otlp_endpoint: Option<String>,
    /// Where models run: `auto`, `cpu`, `cuda:N`. A device that is named and absent stops the start.
    #[arg(long, env, default_value = "auto")]
    pub device: DeviceChoice,
    /// Threads of each model session; 0 for one a core.
    #[arg(long, env, default_value = "0")]
    pub threads: usize,
    /// Serve demo judges also on an address that is not loopback.
    #[arg(long, env)]
    pub allow_demo: bool,
    /// Largest upload, in bytes.
    #[arg(long, env, default_value = "20971520")]
    pub body_bytes_max: u64,
    /// Largest text, in bytes of UTF-8.
    #[arg(long, env, default_value = "1048576")]
    pub text_bytes_max: u64,
    /// Memory that all bodies under way may hold together, in bytes.
    #[arg(long, env, default_value = "536870912")]
    pub body_budget_bytes: u64,
    /// Memory that all decoded pictures which wait for judges may hold together, in bytes.
    #[arg(long, env, default_value = "1073741824")]
    pub pictures_budget_bytes: u64,
    /// How long an upload may take to arrive, in milliseconds.
    #[arg(long, env, default_value = "30000")]
    pub body_timeout_ms: u64,
    /// Fetch images that `POST /v1/moderations` names by `http(s)` URLs, from public addresses alone.
    #[arg(long, env)]
    pub fetch_image_urls: bool,
    /// How long one such fetch may take, redirects included, in milliseconds.
    #[arg(long, env, default_value = "10000")]
    pub fetch_timeout_ms: u64,
    /// Fetches at once; more are answered 429.
    #[arg(long, env, default_value = "16")]
    pub fetches_max: usize,
    /// Largest picture, in pixels (width × height).
    #[arg(long, env, default_value = "50000000")]
    pub pixels_max: u64,
    /// Pictures decoded at once; 0 for one a core.
    #[arg(long, env, default_value = "0")]
    pub decoders: usize,
    /// Submissions worked on at once; more are answered 429.
    #[arg(long, env, default_value = "64")]
    pub in_flight_max: usize,
    /// The same for submissions of the bulk lane.
    #[arg(long, env, default_value = "16")]
    pub bulk_in_flight_max: usize,
    /// Submissions of one lane waiting for one judge; more are answered 429.
    #[arg(long, env, default_value = "64")]
    pub queue_max: usize,
    /// How long a batch should take, in milliseconds: what does not fit into it waits for the next. Where interactive
    /// work waits for longer, a quarter of that, up to eight times as long.
    #[arg(long, env, default_value = "30")]
    pub batch_target_ms: u64,
    /// Of each judge's time, what bulk work gets while interactive work waits or is on its way; 0 to 0.9.
    #[arg(long, env, default_value = "0.05")]
    pub bulk_share: f64,
    /// How long a submission may wait for its judges before it is answered 503, in milliseconds; a long text as much
    /// again for every 16 KiB, up to 16 times.
    #[arg(long, env, default_value = "60000")]
    pub request_timeout_ms: u64,
    /// How long one run of a judge may take before it counts as failed, in milliseconds.
    #[arg(long, env, default_value = "30000")]
    pub judge_timeout_ms: u64,
    /// How long a judge's run may go on after it was told to stop before the judge counts as stuck and
    /// fails at once, in milliseconds; one node of a large model on a slow CPU may take seconds.
    #[arg(long, env, default_value = "5000")]
    pub judge_stop_grace_ms: u64,
    /// Which originals are kept: `none`, `flagged` or `all`.
    #[arg(long, env, default_value = "flagged")]
    pub media_keep: KeepWhich,
    /// How long they are kept.
    #[arg(long, env, default_value = "30")]
    pub media_keep_days: u32,
    /// Connections, at most.
    #[arg(long, env, default_value = "1024")]
    pub connections_max: usize,
    /// How long open requests may take to end at shutdown, in milliseconds.
    #[arg(long, env, default_value = "15000")]
    pub shutdown_grace_ms: u64,
}

impl Gate {
    /// What no option alone can see.
    pub fn faults(&self) -> Vec<String> {
        const COUNT_MAX: usize = 65_536;
        const DAYS_MAX: u32 = 36_500;
        let mut faults = Vec::new();
        let counts = [
            ("in-flight-max", self.in_flight_max),
            ("bulk-in-flight-max", self.bulk_in_flight_max),
            ("queue-max", self.queue_max),
            ("connections-max", self.connections_max),
            ("decoders", self.decoders.max(1)),
            ("fetches-max", self.fetches_max),
        ];
        for (name, count) in counts {
            if !(1..=COUNT_MAX).contains(&count) {
                faults.push(format!("`--{name} {count}`: expected 1 to {COUNT_MAX}"));
            }
        }
        if self.media_keep_days > DAYS_MAX {
            faults.push(format!("`--media-keep-days {}`: expected at most {DAYS_MAX}", self.media_keep_days));
        }
        if self.body_bytes_max == 0 || self.body_budget_bytes < self.body_bytes_max {
            faults.push("`--body-budget-bytes` must hold at least one body of `--body-bytes-max`, and that be above 0".to_owned());
        }
        if !(0.0..=0.9).contains(&self.bulk_share) {
            faults.push(format!("`--bulk-share {}`: expected 0 to 0.9", self.bulk_share));
        }
        let times = [
            ("batch-target-ms", self.batch_target_ms),
            ("judge-timeout-ms", self.judge_timeout_ms),
            ("request-timeout-ms", self.request_timeout_ms),
            ("body-timeout-ms", self.body_timeout_ms),
            ("fetch-timeout-ms", self.fetch_timeout_ms),
        ];
        for (name, ms) in times {
            if !(1..=86_400_000).contains(&ms) {
                faults.push(format!("`--{name} {ms}`: expected 1 to 86400000 (a day)"));
            }
        }
        faults
    }
}

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("configuration file `{}` can't be read", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Without the line itself: it may hold a password.
    #[error("configuration file `{}`, line {line}: {message}", path.display())]
    Toml { path: PathBuf, line: usize, message: String },
    #[error("configuration file `{}`: `{key}` is no option{}", path.display(), similar(suggestion.as_deref()))]
    Unknown { path: PathBuf, key: String, suggestion: Option<String> },
    #[error("configuration file `{}`: `{key}` must be a text, a number or true/false", path.display())]
    NotScalar { path: PathBuf, key: String },
}

fn similar(suggestion: Option<&str>) -> String {
    suggestion.map(|key| format!("; is `{key}` meant?")).unwrap_or_default()
}

/// Variables that other programs go by, and the options of ours that they stand for.
const USUAL: [(&str, &str); 2] = [
    ("DATABASE_URL", "SHIELDGATE_DATABASE_URL"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "SHIELDGATE_OTLP_ENDPOINT"),
];

/// The environment with what the file says beneath it: the file's `listen` is `SHIELDGATE_LISTEN` where
/// that is not set.
pub fn environment(
    args: &[OsString],
    env: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<(OsString, OsString)>, FileError> {
    let mut env: BTreeMap<OsString, OsString> = env.collect();
    // The usual variables stand for the options as the environment has them; the file comes beneath.
    // Set but empty, as compose files write it, means not set.
    let ours_or_usual = |name: &OsString| USUAL.iter().any(|(usual, ours)| name == usual || name == ours);
    env.retain(|name, value| {
        let owner = name == "SHIELDGATE_OWNER_DATABASE_URL";
        !(value.is_empty() && (owner || ours_or_usual(name)))
    });
    for (usual, ours) in USUAL {
        if let Some(value) = env.get(&OsString::from(usual)).cloned() {
            env.entry(ours.into()).or_insert(value);
        }
    }
    let Some(path) = file(args, &env) else { return Ok(env.into_iter().collect()) };
    let text =
        std::fs::read_to_string(&path).map_err(|source| FileError::Read { path: path.clone(), source })?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| FileError::Toml {
        path: path.clone(),
        line: error
            .span()
            .map_or(1, |span| text.get(..span.start).unwrap_or_default().lines().count().max(1)),
        message: error.message().to_owned(),
    })?;
    let known: Vec<String> = keys();
    for (key, value) in table {
        if !known.contains(&key) {
            let close =
                known.iter().find(|known| known.contains(&key) || key.contains(known.as_str())).cloned();
            return Err(FileError::Unknown { path, key, suggestion: close });
        }
        let text = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            toml::Value::Boolean(yes) => yes.to_string(),
            _ => return Err(FileError::NotScalar { path, key }),
        };
        env.entry(format!("SHIELDGATE_{}", key.to_uppercase()).into()).or_insert_with(|| text.into());
    }
    Ok(env.into_iter().collect())
}

/// Every key of the file: those of `serve`, and of the commands that have some of their own.
pub fn keys() -> Vec<String> {
    use conf::introspection::ProgramOptionMeta as _;
    let env_forms: Vec<String> = Serve::program_options()
        .filter_map(|option| option.env_form().map(|form| form.to_string()))
        .collect();
    env_forms
        .iter()
        .filter_map(|form| form.strip_prefix("SHIELDGATE_"))
        .filter(|form| *form != "CONFIG")
        .map(str::to_lowercase)
        .chain(["project", "name", "scopes"].map(str::to_owned))
        .collect()
}

fn file(args: &[OsString], env: &BTreeMap<OsString, OsString>) -> Option<PathBuf> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--config" {
            return args.next().map(PathBuf::from);
        }
        if let Some(path) = arg.to_str().and_then(|arg| arg.strip_prefix("--config=")) {
            return Some(path.into());
        }
    }
    let named = env.get(&OsString::from("SHIELDGATE_CONFIG")).map(PathBuf::from);
    named.or_else(|| Some(Path::new("shieldgate.toml")).filter(|path| path.is_file()).map(Path::to_path_buf))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str], env: &[(&str, &str)], file: Option<&str>) -> Result<Serve, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let mut args: Vec<OsString> = args.iter().map(OsString::from).collect();
        if let Some(text) = file {
            let path = folder.path().join("shieldgate.toml");
            std::fs::write(&path, text).expect("written");
            args.push(format!("--config={}", path.display()).into());
        }
        let env = env.iter().map(|(key, value)| (OsString::from(key), OsString::from(value)));
        let env = environment(&args, env).map_err(|error| error.to_string())?;
        let args = [OsString::from("serve")].into_iter().chain(args);
        Serve::conf_builder().args(args).env(env).try_parse().map_err(|error| error.to_string())
    }

    #[test]
    fn flags_win_over_environment_over_file_over_defaults() {
        let file = Some("listen = '127.0.0.1:1'\nqueue_max = 3\nmedia_keep = 'all'\nallow_demo = true\n");
        let env = [("SHIELDGATE_LISTEN", "127.0.0.1:2"), ("SHIELDGATE_QUEUE_MAX", "4")];
        let config = parsed(&["--listen", "127.0.0.1:3"], &env, file).expect("good");
        assert_eq!(config.gate.listen.port(), 3);
        assert_eq!(config.gate.queue_max, 4);
        assert_eq!(config.gate.media_keep, KeepWhich::All);
        assert!(config.gate.allow_demo);
        assert_eq!(config.gate.in_flight_max, 64);
    }

    #[test]
    fn the_usual_database_url_counts() {
        let config = parsed(&[], &[("DATABASE_URL", "postgres://a/b")], None).expect("good");
        assert_eq!(config.database.database_url.as_deref(), Some("postgres://a/b"));
    }

    #[test]
    fn a_misspelt_key_is_named() {
        let error = parsed(&[], &[], Some("judge_timeout = 5\n")).expect_err("no such key");
        assert!(error.contains("`judge_timeout` is no option; is `judge_timeout_ms` meant?"), "{error}");
    }
}
