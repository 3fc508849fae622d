//! Benchmarks that are ratios: both sides in one run, in turns, so that a slow machine slows both alike.

mod concurrency;
mod lanes;
mod pgbench;
mod recall;
mod spread;
mod texts;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::callers;
use crate::machine::Machine;
use crate::options::{Bench, BenchName};
use crate::report;
use crate::say;
use crate::tally::{Run, Stream, Tally};
use crate::target::{About, Target};
use crate::upload::{Bodies, Endpoint, Outcome};
use spread::{Bound, Measured};

/// Models and connections are warm before anything is measured.
const WARM_UP: Duration = Duration::from_secs(2);

/// One benchmark's result.
#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    /// What was compared with what.
    compared: String,
    measured: Vec<Measured>,
    bounds: Vec<Bound>,
    /// What should not have happened, and makes the ratios worth less.
    faults: Vec<String>,
    /// Every round's numbers.
    rounds: Vec<Value>,
}

#[derive(Debug, Serialize)]
struct Results {
    started_at: String,
    command: Vec<String>,
    version: &'static str,
    machine: Machine,
    gate: Option<About>,
    rounds: usize,
    /// Of one side of one round.
    seconds: u64,
    findings: Vec<Finding>,
}

/// What a benchmark works with: a gate of its own and how long to measure.
struct Setting<'a> {
    target: &'a Target,
    options: &'a Bench,
}

pub(crate) async fn run(options: Bench) -> Result<ExitCode> {
    options.check()?;
    let started_at = OffsetDateTime::now_utc().truncate_to_second().format(&Rfc3339)?;
    let mut results = Results {
        started_at,
        command: std::env::args().collect(),
        version: env!("CARGO_PKG_VERSION"),
        machine: Machine::look(),
        gate: None,
        rounds: options.rounds,
        seconds: options.seconds,
        findings: Vec::new(),
    };
    let names = if options.names.is_empty() { &BenchName::ALL[..] } else { &options.names };
    for name in names {
        // Each has a gate of its own: what one leaves on record doesn't slow the next.
        let mut target = Target::own(&options.own).await?;
        results.gate = Some(target.about(&options.own).await?);
        let setting = Setting { target: &target, options: &options };
        let finding = match name {
            BenchName::Concurrency => concurrency::run(&setting).await?,
            BenchName::Lanes => lanes::run(&setting).await?,
            BenchName::Recall => recall::run(&setting).await?,
            BenchName::Texts => texts::run(&setting).await?,
        };
        if let Some(own) = &mut target.own {
            own.check()?;
        }
        say::result(finding.text());
        results.findings.push(finding);
        results.machine.look_again();
        // After each, so that one which fails doesn't take the others' numbers with it.
        if let Some(path) = &options.json {
            report::write(path, &serde_json::to_string_pretty(&results)?)?;
        }
    }
    if let Some(gate) = &results.gate {
        say::result(format!("gate     {}\nmachine  {}", gate.line(), results.machine.line()));
    }
    if results.machine.was_busy() {
        say::result("         the machine was busy before the run began: even ratios say little");
    }
    let missed = results.findings.iter().flat_map(|finding| &finding.bounds).any(|bound| !bound.met);
    Ok(if missed && options.enforce { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Setting<'_> {
    /// So many callers, each one upload after the other, for one side of a round.
    async fn callers(
        &self,
        count: usize,
        stream: Stream,
        endpoint: Endpoint,
        bodies: impl Bodies,
    ) -> Result<Tally> {
        self.callers_for(self.options.length(), count, stream, endpoint, bodies).await
    }

    async fn callers_for(
        &self,
        length: Duration,
        count: usize,
        stream: Stream,
        endpoint: Endpoint,
        bodies: impl Bodies,
    ) -> Result<Tally> {
        let run = Run::begin(length);
        callers::run(count, stream, &self.target.uploader(endpoint)?, bodies, &run, length).await?;
        Ok(run.tally())
    }
}

impl Finding {
    /// Notes every upload that should have had a verdict and had none.
    fn expect_verdicts(&mut self, what: &str, tally: &Tally) {
        self.expect(what, tally, Outcome::is_verdict);
    }

    /// Notes every upload that came to another end than those expected, and every breach of the contract.
    fn expect(&mut self, what: &str, tally: &Tally, expected: impl Fn(&Outcome) -> bool) {
        for (end, count) in tally.other_ends(expected) {
            self.faults.push(format!("{what}: {end}: {count} ×"));
        }
        for (fault, count) in &tally.faults {
            self.faults.push(format!("{what}: {fault}: {count} ×"));
        }
    }

    fn text(&self) -> String {
        let mut lines = vec![format!("{}: {}", self.name, self.compared)];
        lines.extend(self.measured.iter().map(|measured| format!("  {measured}")));
        lines.extend(self.bounds.iter().map(|bound| format!("  {bound}")));
        lines.extend(self.faults.iter().map(|fault| format!("  fault: {fault}")));
        lines.push(String::new());
        lines.join("\n")
    }
}
