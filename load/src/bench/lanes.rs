//! Does bulk work that saturates the gate leave interactive work alone?

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use tokio::sync::Semaphore;

use super::spread::{Bound, Limit, Measured};
use super::{Finding, Setting, WARM_UP};
use crate::arrivals::{Arrivals, Shape};
use crate::callers;
use crate::open_loop::{self, Flow, Sender};
use crate::pictures::{self, Mix, Source};
use crate::profile::{BULK, INTERACTIVE};
use crate::report::Percentiles;
use crate::say;
use crate::tally::{Run, Tally};
use crate::upload::Endpoint;

/// As many as the gate takes of bulk work at once by default (`--bulk-in-flight-max`).
const BULK_CALLERS: usize = 16;

/// Enough to keep every stage busy, for the capacity.
const CAPACITY_CALLERS: usize = 16;

const LOAD: f64 = 0.5;

/// What bulk work may add to the interactive p95, beside one batch of its own.
const RISE_MAX: f64 = 1.25;

/// Bulk work is under way when the interactive one begins.
const LEAD: Duration = Duration::from_secs(1);

const OPEN_MAX: usize = 512;

pub(super) async fn run(setting: &Setting<'_>) -> Result<Finding> {
    let originals = pictures::load(&[])?;
    let source = |stream| Source::new(originals.clone(), Mix::Fresh, stream, 1);
    let (rounds, length) = (setting.options.rounds, setting.options.length());
    setting.callers_for(WARM_UP, CAPACITY_CALLERS, "warm-up", Endpoint::Images, source("warm-up")).await?;
    let full = setting.callers(CAPACITY_CALLERS, "capacity", Endpoint::Images, source("capacity")).await?;
    let capacity = full.verdict_rate("capacity");
    let rate = (capacity * LOAD).max(1.0);
    say::note(format!("lanes: capacity {capacity:.1}/s, so {rate:.1}/s interactive"));

    let mut finding = Finding {
        name: "lanes",
        compared: format!(
            "{rate:.1} interactive uploads a second (half of a capacity of {capacity:.1}/s) beside {BULK_CALLERS} bulk callers against alone, photographs that are new each time; {rounds} rounds of 3 × {} s",
            setting.options.seconds
        ),
        measured: Vec::new(),
        bounds: Vec::new(),
        faults: Vec::new(),
        rounds: Vec::new(),
    };
    finding.expect_verdicts("capacity", &full);
    let interactive = async |run: &Run| {
        let flow = Flow {
            stream: INTERACTIVE,
            arrivals: Arrivals::even(Shape::Steady { rate }, length),
            bodies: source(INTERACTIVE),
            sender: Sender::Swift(setting.target.uploader(Endpoint::Images)?),
        };
        open_loop::run(flow, run.clone(), Arc::new(Semaphore::new(OPEN_MAX))).await
    };
    let (mut alone, mut beside, mut batches, mut bulk_rates, mut rises) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        let run = Run::begin(length);
        interactive(&run).await?;
        let quiet = run.tally();

        let (before, bulk_run) =
            (setting.target.judge(&setting.options.judge).await?, Run::begin(LEAD + length));
        let uploader = setting.target.uploader(Endpoint::BulkImages)?;
        let bulk = callers::run(BULK_CALLERS, BULK, &uploader, source(BULK), &bulk_run, LEAD + length);
        let loud = async {
            tokio::time::sleep(LEAD).await;
            let run = Run::begin(length);
            interactive(&run).await?;
            Ok::<Tally, anyhow::Error>(run.tally())
        };
        let (bulk, loud) = tokio::join!(bulk, loud);
        bulk?;
        let (loud, bulk) = (loud?, bulk_run.tally());
        let mixed = setting.target.judge(&setting.options.judge).await?;

        // What one bulk batch takes, from bulk work that has the judge for itself.
        let only = setting.callers(BULK_CALLERS, BULK, Endpoint::BulkImages, source(BULK)).await?;
        let after = setting.target.judge(&setting.options.judge).await?;
        let pictures = after.pictures_a_batch(&mixed).context("no bulk batch ran")?;
        let picture_ms = after.a_picture(&mixed).context("no picture was judged")? * 1000.0;
        let batch_ms = pictures * picture_ms;

        finding.expect_verdicts("interactive alone", &quiet);
        finding.expect_verdicts("interactive beside bulk", &loud);
        for (name, tally) in [("bulk beside interactive", &bulk), ("bulk alone", &only)] {
            finding.expect_verdicts(name, tally);
        }
        let (quiet_ms, loud_ms) =
            (Percentiles::of(&quiet.verdicts(INTERACTIVE)), Percentiles::of(&loud.verdicts(INTERACTIVE)));
        say::note(format!(
            "lanes, round {round} of {rounds}: p95 alone {:.0} ms, beside bulk {:.0} ms; a bulk batch {batch_ms:.0} ms",
            quiet_ms.p95_ms, loud_ms.p95_ms
        ));
        finding.rounds.push(json!({
            "alone": quiet_ms,
            "beside_bulk": loud_ms,
            "bulk_a_second": bulk.verdict_rate(BULK),
            "bulk_alone_a_second": only.verdict_rate(BULK),
            "bulk_batch_ms": batch_ms,
            "bulk_batch_pictures": pictures,
            "pictures_a_batch_beside_interactive": mixed.pictures_a_batch(&before),
            "picture_ms": picture_ms,
        }));
        rises.push((loud_ms.p95_ms - batch_ms) / quiet_ms.p95_ms.max(f64::MIN_POSITIVE));
        alone.push(quiet_ms.p95_ms);
        beside.push(loud_ms.p95_ms);
        batches.push(batch_ms);
        bulk_rates.push(bulk.verdict_rate(BULK));
    }
    finding.bounds.push(Bound::new(
        "(p95 beside bulk - a bulk batch) / p95 alone",
        Limit::AtMost(RISE_MAX),
        rises,
    ));
    finding.measured = vec![
        Measured::new("interactive p95 alone", " ms", alone),
        Measured::new("interactive p95 beside bulk", " ms", beside),
        Measured::new("one bulk batch (pictures × time of one)", " ms", batches),
        Measured::new("bulk verdicts beside interactive", "/s", bulk_rates),
    ];
    Ok(finding)
}
