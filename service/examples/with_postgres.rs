//! Runs a command with throw-away Postgres clusters: `with_postgres cargo test …`.
//!
//! The command finds superuser URLs in `SHIELDGATE_TEST_DATABASE_URL` (the fetched binaries) and,
//! where Debian's server is installed, in `SHIELDGATE_TEST_DATABASE_URL_15`: all SQL must run on both.
//! The clusters are stopped and deleted however the command ends.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use shieldgate::assets::Assets;
use shieldgate::cluster::{Cluster, ClusterConfig};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

const DEBIAN_15: &str = "/usr/lib/postgresql/15/bin";

#[tokio::main]
async fn main() -> Result<ExitCode> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let Some((program, arguments)) = arguments.split_first() else {
        bail!("usage: with_postgres COMMAND [ARGUMENT …]");
    };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;

    let root = tempfile::tempdir().context("no temporary folder")?;
    let binaries = Assets::find(None)?.postgres_binaries()?;
    let mut clusters = vec![];
    let mut command = Command::new(program);
    // Tests must not meet a database that the caller's shell happens to name.
    command.args(arguments).env_remove("DATABASE_URL");
    let setting_up = async {
        let pinned = start(binaries, root.path().join("pinned/postgres")).await?;
        command.env("SHIELDGATE_TEST_DATABASE_URL", pinned.superuser_url());
        clusters.push(pinned);
        if Path::new(DEBIAN_15).join("postgres").is_file() {
            let debian = start(DEBIAN_15.into(), root.path().join("debian/postgres")).await?;
            command.env("SHIELDGATE_TEST_DATABASE_URL_15", debian.superuser_url());
            clusters.push(debian);
        }
        let mut child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
        let pid = child.id();
        loop {
            tokio::select! {
                status = child.wait() => return anyhow::Ok(status?),
                // Ctrl-C reaches the command by itself, as it is of our group: wait for its end.
                _ = interrupt.recv() => {}
                _ = terminate.recv() => forward(pid),
            }
        }
    };
    let status = setting_up.await;
    for cluster in clusters {
        cluster.stop().await;
    }
    let code = status?.code().and_then(|code| u8::try_from(code).ok());
    // None: a signal ended it.
    Ok(ExitCode::from(code.unwrap_or(1)))
}

async fn start(binaries: PathBuf, data_dir: PathBuf) -> Result<Cluster> {
    let mut config = ClusterConfig::new(binaries, data_dir);
    // A database per test, each with a pool.
    config.connections_max = 300;
    Ok(Cluster::start(config).await?)
}

fn forward(pid: Option<u32>) {
    if let Some(pid) = pid.and_then(|pid| libc::pid_t::try_from(pid).ok()) {
        // SAFETY: kill takes two numbers and touches no memory of ours; our child is not waited for yet.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}
