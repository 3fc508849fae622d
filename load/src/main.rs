//! Load against a gate on this machine: profiles with a report, and benchmarks that are ratios within one run.

mod arrivals;
mod bench;
mod callers;
mod client;
mod cpu;
mod gate;
mod machine;
mod metrics;
mod open_loop;
mod options;
mod pictures;
mod profile;
mod report;
mod say;
mod signals;
mod slow;
mod tally;
mod target;
mod texts;
mod upload;

use std::process::ExitCode;

use anyhow::{Result, anyhow};
use conf::Conf as _;

use options::{Cli, Command};

/// As a shell reports a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return say::failed(&error.into(), 1),
    };
    let (outcome, interrupted) = runtime.block_on(async {
        // Whatever was started (a gate, its Postgres, pgbench) is stopped where the work is dropped.
        tokio::select! {
            biased;
            () = signals::told_to_stop() => (Err(anyhow!("interrupted")), true),
            outcome = run(cli.command) => (outcome, false),
        }
    });
    match outcome {
        Ok(code) => code,
        Err(error) => say::failed(&error, if interrupted { INTERRUPTED } else { 1 }),
    }
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Bench(options) => bench::run(options).await,
        Command::Steady(options) => profile::run(options).await,
        Command::Burst(options) => profile::run(options).await,
        Command::Mixed(options) => profile::run(options).await,
        Command::Duplicates(options) => profile::run(options).await,
        Command::Slow(options) => profile::run(options).await,
    }
}
