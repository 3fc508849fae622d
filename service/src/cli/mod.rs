//! The command line: results to stdout, logs and progress to stderr; exit codes 0 done, 1 failed, 2 wrong use.

mod connect;
mod doctor;
mod eval;
mod heads;
mod keys;
mod migrate;
mod models;
mod output;
mod policies;
mod progress;
mod serve;
mod signals;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use conf::{Conf, Subcommands};

use crate::config::{self, Common, Database, Serve};
use crate::telemetry::{self, Export, LogFormat, Metrics};

/// A self-hosted content-safety gate: every upload gets a verdict per policy, and every verdict is on record.
///
/// Every option can also stand in the environment as SHIELDGATE_… and in shieldgate.toml; flags win over
/// the environment, the environment over the file.
#[derive(Conf)]
#[conf(name = "shieldgate", version)]
struct Cli {
    #[conf(subcommands)]
    command: Command,
}

#[derive(Subcommands)]
enum Command {
    /// Run the gate: the HTTP API, the judges and, without a database URL, a private Postgres.
    Serve(Serve),
    /// Models this machine has.
    Models(models::Models),
    /// Policies: check files, import them, activate versions.
    Policies(policies::Policies),
    /// Say how good the installed judges are on labelled rows; needs no database.
    Eval(eval::Eval),
    /// Small trained classifiers over a text model's hidden states, one a policy.
    Heads(heads::HeadsArgs),
    /// API keys.
    Keys(keys::Keys),
    /// Say what is right and wrong with this installation.
    Doctor(doctor::Doctor),
    /// Bring the database up to date, as its owner.
    Migrate(Plain),
}

/// A command that needs a database and nothing else.
#[derive(Conf)]
pub(crate) struct Plain {
    #[conf(flatten)]
    common: Common,
    #[conf(flatten)]
    database: Database,
}

/// Errors as people read them: the fact, the causes, a hint on a line of its own.
type Failed = Box<dyn std::error::Error + Send + Sync>;

pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let env = match config::environment(args.get(1..).unwrap_or_default(), std::env::vars_os()) {
        Ok(env) => env,
        Err(error) => return output::failed(&error, 2),
    };
    let cli = match Cli::conf_builder().args(args).env(env).try_parse() {
        Ok(cli) => cli,
        // Prints help to stdout with 0, errors to stderr with 2.
        Err(error) => error.exit(),
    };
    if let Command::Serve(config) = &cli.command {
        let faults = config.gate.faults();
        if !faults.is_empty() {
            return output::failed(&*Failed::from(faults.join("\nerror: ")), 2);
        }
    }
    let common = cli.command.common();
    let filter = common.log.as_deref().unwrap_or(match cli.command {
        Command::Serve(_) => "info,ort=warn,sqlx=warn,actix_server=warn",
        _ => "warn,sqlx=error",
    });
    // Here, and not in `serve`: its exporters must be made and ended off the async threads.
    let telemetry = match Telemetry::start(&cli.command, common.log_format, filter) {
        Ok(telemetry) => telemetry,
        Err(error) => return output::failed(&*error, 2),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::failed(&error, 1),
    };
    let outcome = runtime.block_on(interruptible(cli.command, telemetry.metrics.clone()));
    // A stuck judge or decoder must not hold up the exit.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    telemetry.shut_down();
    match outcome {
        Ok(code) => code,
        Err(error) => output::failed(&*error, 1),
    }
}

/// Logs for every command; metrics and the way to a collector for `serve`.
struct Telemetry {
    metrics: Arc<Metrics>,
    export: Option<Export>,
}

impl Telemetry {
    fn start(command: &Command, format: LogFormat, filter: &str) -> Result<Self, Failed> {
        let endpoint = match command {
            Command::Serve(config) => config.gate.otlp_endpoint.as_deref(),
            _ => None,
        };
        let export = endpoint.map(Export::new).transpose()?;
        telemetry::init_logs(format, filter, export.as_ref())?;
        Ok(Self { metrics: Arc::new(Metrics::new(export.as_ref())?), export })
    }

    fn shut_down(&self) {
        self.metrics.shut_down();
        if let Some(export) = &self.export {
            export.shut_down();
        }
    }
}

/// `serve` answers signals in its own order. Any other command is dropped where it stands, so that a
/// Postgres which it started for itself is told to stop.
async fn interruptible(command: Command, metrics: Arc<Metrics>) -> Result<ExitCode, Failed> {
    if matches!(command, Command::Serve(_)) {
        return command.run(metrics).await;
    }
    let mut signals = signals::Signals::listen()?;
    tokio::select! {
        done = command.run(metrics) => done,
        () = signals.told() => Err("interrupted".into()),
    }
}

impl Command {
    fn common(&self) -> &Common {
        match self {
            Self::Serve(serve) => &serve.common,
            Self::Models(models) => models.common(),
            Self::Policies(policies) => policies.common(),
            Self::Eval(eval) => &eval.common,
            Self::Heads(heads) => heads.common(),
            Self::Keys(keys) => keys.common(),
            Self::Doctor(doctor) => &doctor.common,
            Self::Migrate(plain) => &plain.common,
        }
    }

    async fn run(self, metrics: Arc<Metrics>) -> Result<ExitCode, Failed> {
        match self {
            Self::Serve(config) => serve::run(config, metrics).await,
            Self::Models(models) => models.run().await,
            Self::Policies(policies) => policies.run().await,
            Self::Eval(eval) => eval.run().await,
            Self::Heads(heads) => heads.run().await,
            Self::Keys(keys) => keys.run().await,
            Self::Doctor(doctor) => doctor.run().await,
            Self::Migrate(plain) => migrate::run(&plain.common, &plain.database).await,
        }
    }
}
