//! Do moderations of texts hold a hundred callers, gain from them, and keep their tail short with half of them?

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use tokio::sync::Semaphore;

use super::spread::{Bound, Limit, Measured};
use super::{Finding, Setting, WARM_UP};
use crate::arrivals::{Arrivals, Shape};
use crate::cpu::{CpuTime, milliseconds_each};
use crate::gate::Postmaster;
use crate::metrics::JudgeNow;
use crate::open_loop::{self, Flow, Sender};
use crate::report::Percentiles;
use crate::say;
use crate::tally::{Latencies, Run, Stream, Tally, together};
use crate::texts::{LONG_SHARE, Lengths, Source};
use crate::upload::{Endpoint, Outcome};

/// More than the gate works on at once by default (`--in-flight-max`): some are turned away and come back.
const AT_ONCE: usize = 100;

/// Half load is half the callers. Of half the rate in independent arrivals the tail is told and has no bound: for
/// such a mix of lengths p99 / p50 is above it even where nobody ever waits.
const HALF: usize = AT_ONCE / 2;
const LOAD: f64 = 0.5;

/// Of p99 / p50 with [`HALF`] callers.
const TAIL_MAX: f64 = 3.0;

/// A side at half load takes as long as this many need: p99 of fewer is the slowest of them.
const DUE_MIN: f64 = 100.0;

const OPEN_MAX: usize = 512;

const MIXED: Stream = "mixed";
/// At half the rate the two are told apart, which shows whether the tail is of long texts or of waiting.
const SHORT: Stream = "short";
const LONG: Stream = "long";

/// The gate's own counters.
struct Look {
    cpu: CpuTime,
    judge: JudgeNow,
}

/// One side of one round.
#[derive(Debug, Serialize)]
struct Side {
    a_second: f64,
    answered: u64,
    turned_away: u64,
    latency: Percentiles,
    /// None where no batch ran.
    texts_a_batch: Option<f64>,
    gate_cpu_ms_a_text: f64,
}

#[derive(Debug, Serialize)]
struct Round {
    one: Side,
    many: Side,
    fifty: Side,
    due_a_second: f64,
    half: Side,
    half_short: Percentiles,
    half_long: Percentiles,
    /// How much later than due the generator sent.
    half_lag: Percentiles,
}

pub(super) async fn run(setting: &Setting<'_>) -> Result<Finding> {
    let rounds = setting.options.rounds;
    let own = setting.target.own.as_ref().context("a benchmark has a gate of its own")?;
    let postmaster = Postmaster::of(&own.cluster()).context("the gate has no private Postgres")?;
    let look = async || {
        let judge = setting.target.judge(&setting.options.text_judge).await?;
        Ok::<_, anyhow::Error>(Look { cpu: CpuTime::look(own.pid(), postmaster.pid), judge })
    };
    // Each source and each row of arrivals has its own: no two have a message or a rhythm in common.
    let mut number = 0;
    let mut numbered = || {
        number += 1;
        number
    };
    let endpoint = Endpoint::Moderations;
    let warm_up = Source::new(Lengths::Mixed, numbered());
    setting.callers_for(WARM_UP, AT_ONCE, MIXED, endpoint, warm_up).await?;

    let mut finding = Finding {
        name: "texts",
        compared: format!(
            "{AT_ONCE} callers at once against one, {HALF}, and half of the hundred's rate as independent arrivals; texts that are new each time, most of 5 to 60 words, one in ten of up to 200; {rounds} rounds of 4 × {} s, longer where some {DUE_MIN} texts take longer",
            setting.options.seconds
        ),
        measured: Vec::new(),
        bounds: Vec::new(),
        faults: Vec::new(),
        rounds: Vec::new(),
    };
    let (mut done, mut alone, mut halves) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        let start = look().await?;
        let one = Source::new(Lengths::Mixed, numbered());
        let one = setting.callers(1, MIXED, endpoint, one).await?;
        let after_one = look().await?;
        let many = Source::new(Lengths::Mixed, numbered());
        let many = setting.callers(AT_ONCE, MIXED, endpoint, many).await?;
        let after_many = look().await?;

        let full = rate(&many).max(1.0);
        let time_for =
            |texts: f64, rate: f64| setting.options.length().max(Duration::from_secs_f64(texts / rate));
        let fifty = Source::new(Lengths::Mixed, numbered());
        let fifty = setting.callers_for(time_for(DUE_MIN, full), HALF, MIXED, endpoint, fifty).await?;
        let after_fifty = look().await?;

        let rate = full * LOAD;
        let length = time_for(DUE_MIN, rate);
        let half = Run::begin(length);
        let (open, uploader) = (Arc::new(Semaphore::new(OPEN_MAX)), setting.target.uploader(endpoint)?);
        let mut flow = |stream, lengths, share: f64| {
            let shape = Shape::Steady { rate: rate * share };
            let flow = Flow {
                stream,
                arrivals: Arrivals::random(shape, length, numbered().into()),
                bodies: Source::new(lengths, numbered()),
                sender: Sender::Swift(uploader.clone()),
            };
            open_loop::run(flow, half.clone(), Arc::clone(&open))
        };
        // Two independent rows together are one of the same kind, whose messages are mixed as above.
        tokio::try_join!(
            flow(SHORT, Lengths::Short, 1.0 - LONG_SHARE),
            flow(LONG, Lengths::Long, LONG_SHARE)
        )?;
        let half = half.tally();
        let after_half = look().await?;

        let sides = [
            ("one at a time", &one),
            ("100 at once", &many),
            ("50 at once", &fifty),
            ("half the rate", &half),
        ];
        for (what, tally) in sides {
            finding.expect(what, tally, |outcome| *outcome == Outcome::Judged || is_turned_away(outcome));
        }
        alone.push(latencies(&one));
        halves.push(latencies(&half));
        let this = Round {
            one: Side::of(&one, &start, &after_one),
            many: Side::of(&many, &after_one, &after_many),
            fifty: Side::of(&fifty, &after_many, &after_fifty),
            due_a_second: rate,
            half: Side::of(&half, &after_fifty, &after_half),
            half_short: Percentiles::of(&half.verdicts(SHORT)),
            half_long: Percentiles::of(&half.verdicts(LONG)),
            half_lag: Percentiles::of(&half.lag),
        };
        say::note(format!(
            "texts, round {round} of {rounds}: one {:.1}/s, {AT_ONCE} at once {:.1}/s; {HALF} at once p50 {:.0} ms, p99 {:.0} ms; at half the rate p50 {:.0} ms, p99 {:.0} ms",
            this.one.a_second,
            this.many.a_second,
            this.fifty.latency.p50_ms,
            this.fifty.latency.p99_ms,
            this.half.latency.p50_ms,
            this.half.latency.p99_ms
        ));
        finding.rounds.push(serde_json::to_value(&this)?);
        done.push(this);
    }
    let each = |number: fn(&Round) -> f64| done.iter().map(number);
    let as_one = |rounds: &[Latencies]| [tail(&Percentiles::of(&together(rounds)))];
    finding.bounds = vec![
        Bound::new(
            "p99 / p50 with 50 at once",
            Limit::AtMost(TAIL_MAX),
            each(|round| tail(&round.fifty.latency)),
        ),
        Bound::new("kinds of faults (429 is none)", Limit::AtMost(0.0), [finding.faults.len() as f64]),
    ];
    finding.measured = vec![
        Measured::new("one at a time", "/s", each(|round| round.one.a_second)),
        Measured::new("100 at once", "/s", each(|round| round.many.a_second)),
        Measured::new(
            "100 at once / one at a time",
            "",
            each(|round| round.many.a_second / round.one.a_second.max(f64::MIN_POSITIVE)),
        ),
        Measured::new(
            "texts a batch, 100 at once",
            "",
            done.iter().filter_map(|round| round.many.texts_a_batch),
        ),
        Measured::new("answered 429, 100 at once", "", each(|round| round.many.turned_away as f64)),
        Measured::new("p50 with 50 at once", " ms", each(|round| round.fifty.latency.p50_ms)),
        Measured::new("p99 with 50 at once", " ms", each(|round| round.fifty.latency.p99_ms)),
        Measured::new("answered 429, 50 at once", "", each(|round| round.fifty.turned_away as f64)),
        Measured::new("p50 at half the rate", " ms", each(|round| round.half.latency.p50_ms)),
        Measured::new("p95 at half the rate", " ms", each(|round| round.half.latency.p95_ms)),
        Measured::new("p99 at half the rate", " ms", each(|round| round.half.latency.p99_ms)),
        Measured::new("p99 at half the rate, short texts", " ms", each(|round| round.half_short.p99_ms)),
        Measured::new("p50 at half the rate, long texts", " ms", each(|round| round.half_long.p50_ms)),
        Measured::new("p99 at half the rate, long texts", " ms", each(|round| round.half_long.p99_ms)),
        Measured::new(
            "texts a batch, half the rate",
            "",
            done.iter().filter_map(|round| round.half.texts_a_batch),
        ),
        Measured::new("answered at half the rate", "", each(|round| round.half.answered as f64)),
        Measured::new("answered 429, half the rate", "", each(|round| round.half.turned_away as f64)),
        Measured::new("p99 / p50 at half the rate, rounds as one", "", as_one(&halves)),
        Measured::new("p99 / p50 one at a time, rounds as one", "", as_one(&alone)),
        Measured::new(
            "CPU of the gate a text, one at a time",
            " ms",
            each(|round| round.one.gate_cpu_ms_a_text),
        ),
        Measured::new(
            "CPU of the gate a text, 100 at once",
            " ms",
            each(|round| round.many.gate_cpu_ms_a_text),
        ),
        Measured::new(
            "CPU of the gate a text, half the rate",
            " ms",
            each(|round| round.half.gate_cpu_ms_a_text),
        ),
    ];
    Ok(finding)
}

impl Side {
    fn of(tally: &Tally, before: &Look, after: &Look) -> Self {
        let latencies = latencies(tally);
        let turned_away = tally.rows.iter().filter(|((_, outcome), _)| is_turned_away(outcome));
        Self {
            a_second: rate(tally),
            answered: latencies.len(),
            turned_away: turned_away.map(|(_, row)| row.latency.len()).sum(),
            latency: Percentiles::of(&latencies),
            texts_a_batch: after.judge.pictures_a_batch(&before.judge),
            gate_cpu_ms_a_text: milliseconds_each(after.cpu.since(&before.cpu).gate, latencies.len()),
        }
    }
}

fn is_turned_away(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused(429, _))
}

/// Verdicts a second, of all streams.
fn rate(tally: &Tally) -> f64 {
    tally.streams().into_iter().map(|stream| tally.verdict_rate(stream)).sum()
}

/// Of verdicts, of all streams: a 429 comes at once and would make the median look better than it is.
fn latencies(tally: &Tally) -> Latencies {
    let streams: Vec<_> = tally.streams().into_iter().map(|stream| tally.verdicts(stream)).collect();
    together(&streams)
}

/// p99 / p50.
fn tail(latency: &Percentiles) -> f64 {
    latency.p99_ms / latency.p50_ms.max(f64::MIN_POSITIVE)
}
