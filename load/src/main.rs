//! Uploads at a constant arrival rate against a running gate on this machine; prints latencies and statuses.
//!
//! Open loop: the next upload starts when its time has come, whether or not the one before was answered, so
//! that queueing shows instead of slowing the load down. Latency counts from the time an upload was due.
#![expect(clippy::print_stdout, reason = "its output is its result")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use conf::Conf;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

/// Uploads at a constant arrival rate, against loopback only.
#[derive(Conf)]
struct Load {
    /// Address of the gate.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// API key with the scope `moderate`.
    #[arg(long, env = "KEY")]
    key: String,
    /// Uploads a second.
    #[arg(long, default_value = "20")]
    rate: f64,
    /// How long, in seconds; at most 600.
    #[arg(long, default_value = "10")]
    seconds: u64,
    /// Uploads under way at once, at most; more are counted as not sent.
    #[arg(long, default_value = "512")]
    open_max: usize,
    /// Make every upload's bytes new, so that nothing is recalled: bytes are appended that no decoder looks at.
    #[arg(long)]
    fresh: bool,
    /// Pictures, sent in turn.
    #[conf(repeat, pos)]
    files: Vec<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let load = Load::parse();
    ensure!(load.rate > 0.0 && load.rate <= 10_000.0, "--rate is above 0 and at most 10000");
    ensure!((1..=600).contains(&load.seconds), "--seconds is 1 to 600");
    let host = load.url.strip_prefix("http://").unwrap_or_default();
    if !(host.starts_with("127.") || host.starts_with("localhost") || host.starts_with("[::1]")) {
        bail!("--url is not on this machine; run this beside the gate");
    }
    let mut pictures = Vec::new();
    for file in &load.files {
        pictures.push(std::fs::read(file).with_context(|| file.display().to_string())?);
    }
    ensure!(!pictures.is_empty(), "name at least one picture");

    // reqwest wants one even without TLS, where another crate of the workspace asks for TLS.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = reqwest::Client::builder().timeout(Duration::from_secs(120)).no_proxy().build()?;
    let (began, gap) = (Instant::now(), Duration::from_secs_f64(1.0 / load.rate));
    let (mut open, mut outcomes, mut sent, mut skipped) = (JoinSet::new(), Vec::new(), 0_u32, 0_u32);
    while gap * (sent + skipped) < Duration::from_secs(load.seconds) {
        let due = began + gap * (sent + skipped);
        tokio::time::sleep_until(due.into()).await;
        while let Some(done) = open.try_join_next() {
            outcomes.push(done?);
        }
        if open.len() >= load.open_max {
            skipped += 1;
            continue;
        }
        let mut picture = pictures[sent as usize % pictures.len()].clone();
        if load.fresh {
            picture.extend(format!("fresh {sent} {:?}", began.elapsed()).bytes());
        }
        let request = client.post(format!("{}/v1/images", load.url)).bearer_auth(&load.key).body(picture);
        open.spawn(async move {
            let status = match request.send().await {
                Ok(response) => {
                    let status = response.status().as_u16();
                    // The answer counts when all of it is there.
                    if response.bytes().await.is_ok() { status.to_string() } else { "broken".to_owned() }
                }
                Err(_) => "no answer".to_owned(),
            };
            (status, due.elapsed())
        });
        sent += 1;
    }
    while let Some(done) = open.join_next().await {
        outcomes.push(done?);
    }
    report(&outcomes, began.elapsed(), skipped)
}

fn report(outcomes: &[(String, Duration)], took: Duration, skipped: u32) -> Result<()> {
    let mut by_status: BTreeMap<&str, Histogram<u64>> = BTreeMap::new();
    for (status, latency) in outcomes {
        let latencies = match by_status.entry(status) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => new.insert(Histogram::new(3)?),
        };
        latencies.record(u64::try_from(latency.as_micros())?)?;
    }
    println!("status        count     p50 ms     p90 ms     p99 ms     max ms");
    for (status, latencies) in &by_status {
        let ms = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1e3;
        println!(
            "{status:<10} {:>8} {:>10.1} {:>10.1} {:>10.1} {:>10.1}",
            latencies.len(),
            ms(0.5),
            ms(0.9),
            ms(0.99),
            latencies.max() as f64 / 1e3
        );
    }
    println!(
        "{:.1} answers a second over {:.1} s; {skipped} not sent",
        outcomes.len() as f64 / took.as_secs_f64(),
        took.as_secs_f64()
    );
    Ok(())
}
