//! Does the gate use the machine better with many uploads at once than with one at a time?

use anyhow::Result;
use serde_json::json;

use super::spread::{Bound, Limit, Measured};
use super::{Finding, Setting, WARM_UP};
use crate::pictures::{self, Mix, Source};
use crate::report::Percentiles;
use crate::say;
use crate::upload::Lane;

/// As many as the gate works on at once by default (`--in-flight-max`, `--queue-max`).
const AT_ONCE: usize = 64;

const GAIN_MIN: f64 = 1.3;

pub(super) async fn run(setting: &Setting<'_>) -> Result<Finding> {
    let originals = pictures::load(&[])?;
    let source = |stream| Source::new(originals.clone(), Mix::Fresh, stream, 1);
    let rounds = setting.options.rounds;
    setting.callers_for(WARM_UP, AT_ONCE, "warm-up", Lane::Interactive, source("warm-up")).await?;

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
    let (mut alone, mut together, mut p99s, mut waits) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        let one = setting.callers(1, "one", Lane::Interactive, source("one")).await?;
        let many = setting.callers(AT_ONCE, "many", Lane::Interactive, source("many")).await?;
        finding.expect_verdicts("one at a time", "one", &one);
        finding.expect_verdicts("many at once", "many", &many);
        let (one_rate, many_rate) = (one.verdict_rate("one"), many.verdict_rate("many"));
        let (one_ms, many_ms) =
            (Percentiles::of(&one.verdicts("one")), Percentiles::of(&many.verdicts("many")));
        say::note(format!(
            "concurrency, round {round} of {rounds}: one {one_rate:.1}/s, {AT_ONCE} at once {many_rate:.1}/s, p99 {:.0} ms",
            many_ms.p99_ms
        ));
        finding.rounds.push(json!({
            "one": {"a_second": one_rate, "latency": one_ms},
            "many": {"a_second": many_rate, "latency": many_ms},
        }));
        alone.push(one_rate);
        together.push(many_rate);
        p99s.push(many_ms.p99_ms);
        // A full queue, judged one picture after the other.
        waits.push(AT_ONCE as f64 * 1000.0 / one_rate.max(f64::MIN_POSITIVE));
    }
    let ratios = together.iter().zip(&alone).map(|(many, one)| many / one.max(f64::MIN_POSITIVE));
    finding.bounds.push(Bound::new("throughput, many / one", Limit::AtLeast(GAIN_MIN), ratios));
    let full = p99s.iter().zip(&waits).map(|(p99, wait)| p99 / wait);
    finding.bounds.push(Bound::new("p99 with many / a full queue one by one", Limit::AtMost(1.0), full));
    finding.measured = vec![
        Measured::new("one at a time", "/s", alone),
        Measured::new("64 at once", "/s", together),
        Measured::new("p99 with 64 at once", " ms", p99s),
        Measured::new("64 × the time that one takes", " ms", waits),
    ];
    Ok(finding)
}
