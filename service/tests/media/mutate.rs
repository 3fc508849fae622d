//! Pictures of every format broken on purpose: no panic, no nonsense, bounded time and memory for each.
//!
//! Five thousand in the ordinary run (half a second); `SHIELDGATE_MUTATIONS=100000` for as many, `SHIELDGATE_MUTATION_SEED`
//! for others than the usual ones.

use std::collections::BTreeMap;

use super::memory::peak_of;
use super::mutator::Mutator;
use super::{hostile, samples, seen};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect(name))
}

#[test]
fn mutated_pictures() {
    let (rounds, seed) = (setting("SHIELDGATE_MUTATIONS", 5000), setting("SHIELDGATE_MUTATION_SEED", 1));
    let all = samples();
    let mut mutator = Mutator::new(seed);
    let mut outcomes: BTreeMap<&str, u32> = BTreeMap::new();
    for round in 0..rounds {
        let (name, good) = &all[mutator.below(all.len())];
        let (other_name, other) = &all[mutator.below(all.len())];
        let (what, bytes) = mutator.mutate(good, other);
        let what = format!("seed {seed}, round {round}: {name} with {other_name}: {what}");
        let ((), peak) = peak_of(|| hostile::check(&what, &bytes));
        // The samples are small; a header may claim a picture up to the limits, and then it may cost that.
        assert!(peak < 1100 << 20, "{what}: {peak} bytes");
        let outcome = match seen(&bytes) {
            Ok(_) => "accepted",
            Err(e) => e.code(),
        };
        *outcomes.entry(outcome).or_default() += 1;
    }
    println!("{outcomes:?}");
    // A mutator that breaks everything, or nothing, tests little.
    let accepted = u64::from(outcomes["accepted"]);
    assert!(accepted > rounds / 50 && accepted < rounds / 2, "{accepted} of {rounds} were accepted");
}
