//! Pictures of every format, broken on purpose, over HTTP: no 5xx, no crash, memory that does not grow.
//!
//! Some hundred in the ordinary run; `make mutate` sends five thousand.

use std::collections::BTreeMap;

use shieldgate_tests::mutate::Mutator;
use shieldgate_tests::{Upload, samples};
use tokio::task::JoinSet;

use crate::stage::{policy, stage};

const AT_ONCE: usize = 8;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().expect(name))
}

#[tokio::test]
async fn mutated_uploads() {
    let (rounds, seed) =
        (setting("SHIELDGATE_MUTATIONS", 600), setting("SHIELDGATE_MUTATION_SEED", 1) as u64);
    let gate = stage(&["steady"]).policy("alpha", &policy("alpha", &["steady"], "fail")).start().await;
    let caller = gate.caller(&gate.key("moderate"));
    let good = samples::all_media();
    let mut mutator = Mutator::new(seed);
    let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
    let mut settled = 0;
    let mut open = JoinSet::new();
    for round in 0..rounds {
        let (name, bytes) = &good[mutator.below(good.len())];
        let (_, other) = &good[mutator.below(good.len())];
        let (what, bytes) = mutator.mutate(bytes, other);
        let what = format!("seed {seed}, round {round}: {name}: {what}");
        if open.len() >= AT_ONCE
            && let Some(done) = open.join_next().await
        {
            *statuses.entry(done.expect("a task")).or_default() += 1;
        }
        let caller = caller.clone();
        open.spawn(async move {
            let answer = caller.upload(Upload::from(&bytes)).await;
            let expected = matches!(answer.status, 200 | 400 | 413 | 415 | 422);
            assert!(expected, "{what}: {} {}", answer.status, answer.text());
            answer.status
        });
        // What the first tenth cost is what it takes: buffers, caches, threads.
        if round == rounds / 10 {
            settled = gate.memory();
        }
    }
    while let Some(done) = open.join_next().await {
        *statuses.entry(done.expect("a task")).or_default() += 1;
    }
    let end = gate.memory();
    println!("{statuses:?}; {} MB after a tenth, {} MB at the end", settled >> 20, end >> 20);
    assert_eq!(statuses.values().sum::<usize>(), rounds);
    assert!(end as f64 <= settled as f64 * 1.2, "{settled} bytes after a tenth, {end} at the end");
    gate.nobody().get("/readyz").await.expect(200);
}
