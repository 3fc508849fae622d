//! What a run measured, with everything that is needed to judge it; as a table, as JSON and as a picture.

mod svg;
mod text;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::machine::Machine;
use crate::tally::{Latencies, Tally};
use crate::target::About;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The profile's name.
    profile: &'static str,
    /// What it was asked to do, in words.
    asked: String,
    /// RFC 3339, UTC.
    started_at: String,
    /// The command line; a key never stands in it.
    command: Vec<String>,
    /// Of this program.
    version: &'static str,
    machine: Machine,
    gate: About,
    /// How long uploads were sent, in seconds.
    seconds: f64,
    rows: Vec<Row>,
    /// Uploads that were due and not sent, since too many were under way; by stream.
    not_sent: BTreeMap<&'static str, u64>,
    /// What `Retry-After` said, in seconds, by status.
    retry_after_s: BTreeMap<u16, RetryAfter>,
    /// Breaches of the wire contract and how often.
    faults: BTreeMap<&'static str, u64>,
    generator: Generator,
    over_time: Vec<Moment>,
    /// Latencies of verdicts, judged and recalled alike, by stream.
    verdicts: BTreeMap<&'static str, Percentiles>,
    /// The same as histograms.
    distribution: BTreeMap<&'static str, Vec<Bar>>,
}

/// Uploads of one stream that ended alike.
#[derive(Debug, Serialize)]
struct Row {
    stream: &'static str,
    outcome: String,
    /// 200, with a verdict in it.
    verdict: bool,
    count: u64,
    /// Answers a second while uploads were sent.
    a_second: f64,
    #[serde(flatten)]
    latency: Percentiles,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

impl Percentiles {
    pub(crate) fn of(latencies: &Latencies) -> Self {
        let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
            max_ms: latencies.max() as f64 / 1e3,
        }
    }
}

#[derive(Debug, Serialize)]
struct RetryAfter {
    count: u64,
    min: u64,
    p50: u64,
    max: u64,
}

/// How well the generator kept its own schedule.
#[derive(Debug, Serialize)]
struct Generator {
    /// In the open loop.
    sent: u64,
    /// Sent later than due.
    lag_p50_ms: f64,
    lag_p99_ms: f64,
    lag_max_ms: f64,
}

/// What was due in one stretch of the run.
#[derive(Debug, Serialize)]
struct Moment {
    from_s: f64,
    to_s: f64,
    /// How many uploads came to what end.
    fates: BTreeMap<&'static str, u64>,
    /// Latencies of verdicts, by stream.
    latency: BTreeMap<&'static str, Percentiles>,
}

/// A bar of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Bar {
    from_ms: f64,
    to_ms: f64,
    count: u64,
}

/// Bars a decade of latency, all equally wide on a logarithmic axis.
const BARS_A_DECADE: i32 = 12;

impl Report {
    pub(crate) fn new(
        profile: &'static str,
        asked: String,
        started_at: OffsetDateTime,
        machine: Machine,
        gate: About,
        tally: &Tally,
    ) -> Result<Self> {
        let seconds = tally.length.as_secs_f64();
        let rows = tally.rows.iter().map(|((stream, outcome), row)| Row {
            stream,
            outcome: outcome.to_string(),
            verdict: outcome.is_verdict(),
            count: row.latency.len(),
            a_second: row.in_time as f64 / seconds,
            latency: Percentiles::of(&row.latency),
        });
        let retry_after = tally.retry_after.iter().map(|(status, seconds)| {
            let said = RetryAfter {
                count: seconds.len(),
                min: seconds.min(),
                p50: seconds.value_at_quantile(0.5),
                max: seconds.max(),
            };
            (*status, said)
        });
        let lag = Percentiles::of(&tally.lag);
        let streams = tally.streams().into_iter().map(|stream| (stream, tally.verdicts(stream)));
        let streams: Vec<_> = streams.filter(|(_, latencies)| !latencies.is_empty()).collect();
        Ok(Self {
            profile,
            asked,
            started_at: started_at.truncate_to_second().format(&Rfc3339)?,
            command: std::env::args().collect(),
            version: env!("CARGO_PKG_VERSION"),
            machine,
            gate,
            seconds,
            rows: rows.collect(),
            not_sent: tally.not_sent.clone(),
            retry_after_s: retry_after.collect(),
            faults: tally.faults.clone(),
            generator: Generator {
                sent: tally.lag.len(),
                lag_p50_ms: lag.p50_ms,
                lag_p99_ms: lag.p99_ms,
                lag_max_ms: lag.max_ms,
            },
            over_time: over_time(tally),
            verdicts: streams.iter().map(|(stream, all)| (*stream, Percentiles::of(all))).collect(),
            distribution: streams.iter().map(|(stream, all)| (*stream, bars(all))).collect(),
        })
    }

    pub(crate) fn write_json(&self, path: &Path) -> Result<()> {
        write(path, &serde_json::to_string_pretty(self)?)
    }

    pub(crate) fn write_svg(&self, path: &Path) -> Result<()> {
        write(path, &self.svg())
    }
}

/// A file that was asked for on the command line.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("`{}` can't be written", path.display()))
}

fn over_time(tally: &Tally) -> Vec<Moment> {
    let at = |index: usize| (tally.slice_length * u32::try_from(index).unwrap_or(u32::MAX)).min(tally.length);
    let moments = tally.slices.iter().enumerate().map(|(index, slice)| Moment {
        from_s: at(index).as_secs_f64(),
        to_s: at(index + 1).max(at(index) + Duration::from_millis(1)).as_secs_f64(),
        fates: slice.fates.iter().map(|(fate, count)| (fate.name(), *count)).collect(),
        latency: slice.latency.iter().map(|(stream, all)| (*stream, Percentiles::of(all))).collect(),
    });
    moments.collect()
}

/// From the fastest to the slowest, empty bars in between included.
fn bars(latencies: &Latencies) -> Vec<Bar> {
    if latencies.is_empty() {
        return Vec::new();
    }
    let place = |micros: u64| ((micros.max(1) as f64).log10() * f64::from(BARS_A_DECADE)).floor() as i32;
    let edge_ms = |place: i32| 10_f64.powf(f64::from(place) / f64::from(BARS_A_DECADE)) / 1e3;
    let mut counts: BTreeMap<i32, u64> = BTreeMap::new();
    for value in latencies.iter_recorded() {
        *counts.entry(place(value.value_iterated_to())).or_default() += value.count_at_value();
    }
    let (Some(first), Some(last)) = (counts.keys().next().copied(), counts.keys().last().copied()) else {
        return Vec::new();
    };
    (first..=last)
        .map(|place| Bar {
            from_ms: edge_ms(place),
            to_ms: edge_ms(place + 1),
            count: counts.get(&place).copied().unwrap_or(0),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally;

    pub(super) fn a_report() -> Report {
        let machine = Machine {
            cores: 2,
            cpu: "A <fast> & \"good\" CPU".to_owned(),
            memory_gib: Some(23.5),
            load_before: Some(0.2),
            load_after: None,
        };
        let gate = About {
            version: "0.1.0".to_owned(),
            runtime: "onnxruntime 1.32.0".to_owned(),
            device: "cpu".to_owned(),
            judges: serde_json::json!([{"name": "open-nsfw"}]),
            started_with: None,
        };
        let asked = "5 a second".to_owned();
        let started_at = OffsetDateTime::UNIX_EPOCH;
        Report::new("mixed", asked, started_at, machine, gate, &tally::testing::a_run()).expect("a report")
    }

    #[test]
    fn the_json_holds_every_upload_thrice() {
        let json = serde_json::to_value(a_report()).expect("JSON");
        let sum = |rows: &serde_json::Value, wanted: &dyn Fn(&serde_json::Value) -> u64| {
            rows.as_array().expect("an array").iter().map(wanted).sum::<u64>()
        };
        assert_eq!(sum(&json["rows"], &|row| row["count"].as_u64().expect("a count")), 1000);
        let fates = |moment: &serde_json::Value| {
            let fates = moment["fates"].as_object().expect("an object");
            fates.values().map(|count| count.as_u64().expect("a count")).sum()
        };
        assert_eq!(sum(&json["over_time"], &fates), 1000);
        let verdicts: u64 = ["bulk", "interactive"]
            .iter()
            .map(|stream| sum(&json["distribution"][stream], &|bar| bar["count"].as_u64().expect("a count")))
            .sum();
        assert_eq!(verdicts, 899);
        assert_eq!(json["started_at"], "1970-01-01T00:00:00Z");
        assert_eq!(json["retry_after_s"]["429"]["p50"], 2);
    }

    #[test]
    fn bars_touch_each_other_and_cover_the_extremes() {
        let mut latencies = tally::latencies();
        for micros in [900, 1_000, 15_000, 2_000_000] {
            tally::put(&mut latencies, micros);
        }
        let bars = bars(&latencies);
        assert!(bars.array_windows().all(|[one, next]| one.to_ms == next.from_ms), "{bars:?}");
        let (first, last) = (bars[0], bars[bars.len() - 1]);
        assert!(first.from_ms <= 0.9 && last.to_ms >= 2000.0);
        assert_eq!(bars.iter().map(|bar| bar.count).sum::<u64>(), 4);
    }
}
