//! Is recording the limit of a recalled upload, and not the gate around it?

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::pgbench::{self, Cluster};
use super::spread::{Bound, Limit, Measured};
use super::{Finding, Setting, WARM_UP};
use crate::cpu::{CpuTime, milliseconds_each};
use crate::pictures::{self, Mix, Source};
use crate::report::Percentiles;
use crate::say;
use crate::tally::Tally;
use crate::upload::{Endpoint, Outcome};

const AT_ONCE: usize = 64;

/// As many as the gate has connections by default (`--database-connections`).
const CLIENTS: usize = 16;

const RATIO_MIN: f64 = 0.5;

pub(super) async fn run(setting: &Setting<'_>) -> Result<Finding> {
    let (target, rounds, seconds) = (setting.target, setting.options.rounds, setting.options.seconds);
    let own = target.own.as_ref().context("a benchmark has a gate of its own")?;
    let cluster = Cluster::find(&own.cluster(), setting.options.pgbench.as_deref())?;
    let durable =
        cluster.ask("select current_setting('fsync') || ' ' || current_setting('synchronous_commit')");
    let durable = durable.await?;
    ensure!(
        durable == "on on",
        "fsync and synchronous_commit are `{durable}`: commits that no disk has seen"
    );

    let picture = match &setting.options.picture {
        Some(file) => pictures::load(std::slice::from_ref(file))?.swap_remove(0),
        None => pictures::photograph_64_kb(),
    };
    let bytes = picture.len();
    let source = || Source::new(vec![picture.clone()], Mix::Same, "recall", 1);
    // The first alone: until its verdict is on record, others would be judged as well.
    let first = setting.callers_for(WARM_UP, 1, "recall", Endpoint::Images, source()).await?;
    let warm = setting.callers_for(WARM_UP, AT_ONCE, "recall", Endpoint::Images, source()).await?;
    let latest = &target.json("/v1/verdicts?limit=1").await?["data"][0];
    ensure!(latest["cached"] == true, "the last verdict was not recalled: {latest}");
    let id = latest["id"].as_str().context("a verdict without an id")?;
    let verdict = target.json(&format!("/v1/verdicts/{id}")).await?;
    let entries = target.json(&format!("/v1/audit?limit=1&target={id}")).await?;
    let script = pgbench::script(&verdict, &entries["data"][0])?;

    let mut finding = Finding {
        name: "recall",
        compared: format!(
            "{AT_ONCE} callers with one picture of {bytes} bytes that is on record against pgbench with {CLIENTS} clients and the inserts that one such upload makes, same cluster, fsync on; {rounds} rounds of 2 × {seconds} s"
        ),
        measured: Vec::new(),
        bounds: Vec::new(),
        faults: Vec::new(),
        rounds: Vec::new(),
    };
    let mut recorded = verdicts(&first) + verdicts(&warm);
    let (mut gate, mut postgres, mut p99s) = (Vec::new(), Vec::new(), Vec::new());
    let mut cpu: [Vec<f64>; 4] = Default::default();
    for round in 1..=rounds {
        let look = || CpuTime::look(own.pid(), cluster.postmaster);
        let before = look();
        let uploads = setting.callers(AT_ONCE, "recall", Endpoint::Images, source()).await?;
        let between = look();
        let inserts = cluster.run(&script, CLIENTS, seconds).await?;
        let (upload_cpu, insert_cpu) = (between.since(&before), look().since(&between));
        let count = verdicts(&uploads);
        let used = [
            milliseconds_each(upload_cpu.gate, count),
            milliseconds_each(upload_cpu.postgres, count),
            milliseconds_each(upload_cpu.load, count),
            milliseconds_each(insert_cpu.postgres, inserts.transactions),
        ];
        cpu.iter_mut().zip(used).for_each(|(all, ms)| all.push(ms));
        recorded += verdicts(&uploads) + inserts.transactions;
        finding.expect_verdicts("recalled uploads", &uploads);
        if uploads.rows.contains_key(&("recall", Outcome::Judged)) {
            finding.faults.push("an upload of the picture on record was judged again".to_owned());
        }
        let (rate, latency) = (uploads.verdict_rate("recall"), Percentiles::of(&uploads.verdicts("recall")));
        say::note(format!(
            "recall, round {round} of {rounds}: gate {rate:.0}/s, pgbench {:.0}/s",
            inserts.a_second
        ));
        finding.rounds.push(json!({
            "gate": {"a_second": rate, "latency": latency,
                     "cpu_ms_an_upload": {"gate": used[0], "postgres": used[1], "load": used[2]}},
            "pgbench": {"a_second": inserts.a_second, "transactions": inserts.transactions,
                        "cpu_ms_a_transaction": {"postgres": used[3]}},
        }));
        gate.push(rate);
        postgres.push(inserts.a_second);
        p99s.push(latency.p99_ms);
    }
    // Both sides wrote what they say they wrote, or the ratio means nothing.
    for (what, sql) in [
        ("verdicts", "select count(*) from verdicts"),
        ("audit entries", "select count(*) from audit where act = 'verdict.recorded'"),
    ] {
        let found: u64 = cluster.ask(sql).await?.parse().context("a count")?;
        if found != recorded {
            finding
                .faults
                .push(format!("{found} {what} on record, {recorded} answered or counted by pgbench"));
        }
    }
    let ratios = gate.iter().zip(&postgres).map(|(gate, postgres)| gate / postgres.max(f64::MIN_POSITIVE));
    finding.bounds.push(Bound::new("gate / pgbench", Limit::AtLeast(RATIO_MIN), ratios));
    let [by_gate, by_postgres, by_callers, by_inserts] = cpu;
    finding.measured = vec![
        Measured::new("recalled uploads", "/s", gate),
        Measured::new("pgbench, the same inserts", "/s", postgres),
        Measured::new("p99 of a recalled upload", " ms", p99s),
        Measured::new("CPU an upload: the gate", " ms", by_gate),
        Measured::new("CPU an upload: its Postgres", " ms", by_postgres),
        Measured::new("CPU an upload: these callers", " ms", by_callers),
        Measured::new("CPU a pgbench transaction: Postgres", " ms", by_inserts),
    ];
    Ok(finding)
}

fn verdicts(tally: &Tally) -> u64 {
    tally.verdicts("recall").len()
}
