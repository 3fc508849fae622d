//! Does the gate use the machine better with many uploads at once than with one at a time?

use anyhow::{Context as _, Result};
use serde_json::json;

use super::spread::{Bound, Limit, Measured};
use super::{Finding, Setting, WARM_UP};
use crate::cpu::{CpuTime, milliseconds_each};
use crate::gate::Postmaster;
use crate::pictures::{self, Mix, Source};
use crate::report::Percentiles;
use crate::say;
use crate::upload::Endpoint;

/// As many as the gate works on at once by default (`--in-flight-max`, `--queue-max`).
const AT_ONCE: usize = 64;

const GAIN_MIN: f64 = 1.3;

/// Of the time in which as many uploads as there are callers are answered. Who comes last in a queue in order
/// waits just that long; batches and the answers' own time come on top. Without an order, or without a bound
/// on the queue, it would be several times as long.
const TAIL_MAX: f64 = 1.5;

pub(super) async fn run(setting: &Setting<'_>) -> Result<Finding> {
    let originals = pictures::load(&[])?;
    let source = |stream| Source::new(originals.clone(), Mix::Fresh, stream, 1);
    let rounds = setting.options.rounds;
    setting.callers_for(WARM_UP, AT_ONCE, "warm-up", Endpoint::Images, source("warm-up")).await?;

    let mut finding = Finding {
        name: "concurrency",
        compared: format!(
            "{AT_ONCE} callers at once against one, photographs that are new each time; {rounds} rounds of 2 × {} s",
            setting.options.seconds
        ),
        measured: Vec::new(),
        bounds: Vec::new(),
        faults: Vec::new(),
        rounds: Vec::new(),
    };
    let own = setting.target.own.as_ref().context("a benchmark has a gate of its own")?;
    let postmaster = Postmaster::of(&own.cluster()).context("the gate has no private Postgres")?;
    let look = || CpuTime::look(own.pid(), postmaster.pid);
    let (mut alone, mut together, mut p99s, mut turns) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut cpu_alone, mut cpu_together) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let before = look();
        let one = setting.callers(1, "one", Endpoint::Images, source("one")).await?;
        let between = look();
        let many = setting.callers(AT_ONCE, "many", Endpoint::Images, source("many")).await?;
        let after = look();
        finding.expect_verdicts("one at a time", &one);
        finding.expect_verdicts("many at once", &many);
        let (one_rate, many_rate) = (one.verdict_rate("one"), many.verdict_rate("many"));
        let (one_all, many_all) = (one.verdicts("one"), many.verdicts("many"));
        let (one_ms, many_ms) = (Percentiles::of(&one_all), Percentiles::of(&many_all));
        let one_cpu = milliseconds_each(between.since(&before).gate, one_all.len());
        let many_cpu = milliseconds_each(after.since(&between).gate, many_all.len());
        say::note(format!(
            "concurrency, round {round} of {rounds}: one {one_rate:.1}/s, {AT_ONCE} at once {many_rate:.1}/s, p99 {:.0} ms",
            many_ms.p99_ms
        ));
        finding.rounds.push(json!({
            "one": {"a_second": one_rate, "latency": one_ms, "gate_cpu_ms_an_upload": one_cpu},
            "many": {"a_second": many_rate, "latency": many_ms, "gate_cpu_ms_an_upload": many_cpu},
        }));
        alone.push(one_rate);
        together.push(many_rate);
        p99s.push(many_ms.p99_ms);
        turns.push(AT_ONCE as f64 * 1000.0 / many_rate.max(f64::MIN_POSITIVE));
        cpu_alone.push(one_cpu);
        cpu_together.push(many_cpu);
    }
    let ratios = together.iter().zip(&alone).map(|(many, one)| many / one.max(f64::MIN_POSITIVE));
    finding.bounds.push(Bound::new("throughput, many / one", Limit::AtLeast(GAIN_MIN), ratios));
    let tails = p99s.iter().zip(&turns).map(|(p99, turn)| p99 / turn);
    finding.bounds.push(Bound::new(
        "p99 with 64 / time in which 64 are done",
        Limit::AtMost(TAIL_MAX),
        tails,
    ));
    finding.measured = vec![
        Measured::new("one at a time", "/s", alone),
        Measured::new("64 at once", "/s", together),
        Measured::new("p99 with 64 at once", " ms", p99s),
        Measured::new("time in which 64 are done", " ms", turns),
        Measured::new("CPU of the gate an upload, one at a time", " ms", cpu_alone),
        Measured::new("CPU of the gate an upload, 64 at once", " ms", cpu_together),
    ];
    Ok(finding)
}
