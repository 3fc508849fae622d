//! The queue in virtual time: thousands of seeded arrivals, one judge, and what must hold whatever comes.
//!
//! The seed is in every message: a failure can be run again.

mod world;

use std::time::Duration;

use self::world::{Arrival, End, Load, Random, World};
use super::queue::{Lane, QueueConfig};

const CONFIG: QueueConfig = QueueConfig {
    jobs_max: 64,
    batch_max: 16,
    batch_target: Duration::from_millis(100),
    batch_longest: Duration::from_millis(800),
    bulk_share: 0.2,
};

fn p95(sorted: &[Duration]) -> Duration {
    sorted.get(sorted.len() * 95 / 100).copied().unwrap_or_default()
}

const QUIET: Load = Load {
    interactive: None,
    bulk: None,
    bulk_callers: 0,
    views_max: 16,
    work_max: 1,
    patience: Duration::from_secs(5),
    leaving_percent: 0,
    prepared_in: Duration::ZERO,
    one_by_one: false,
};

#[test]
fn nothing_is_lost_and_nothing_answered_twice_whatever_comes() {
    let (mut total, mut interruptions) = (0, 0);
    for seed in 0..40 {
        let mut random = Random(seed);
        let apart = |random: &mut Random| Some(Duration::from_micros(2_000 + random.below(40_000)));
        let load = Load {
            interactive: apart(&mut random),
            bulk: apart(&mut random),
            bulk_callers: random.below(20) as usize,
            views_max: 1 + random.below(32),
            work_max: 1 + random.below(2) * random.below(30),
            patience: Duration::from_millis(50 + random.below(3_000)),
            leaving_percent: random.below(30),
            prepared_in: Duration::from_millis(random.below(3) * 10),
            one_by_one: random.chance(50),
        };
        let config = QueueConfig {
            jobs_max: 1 + random.below(64) as usize,
            batch_max: 1 + random.below(16) as usize,
            batch_target: Duration::from_millis(random.below(300)),
            batch_longest: Duration::from_millis(random.below(1000)),
            bulk_share: random.below(90) as f64 / 100.0,
        };
        let mut world = World::new(seed, config);
        world.run(&load, Duration::from_secs(20));
        world.check();
        total += world.arrivals.len();
        interruptions += world.interruptions;
    }
    println!("{total} arrivals, {interruptions} interruptions");
    assert!(total > 40_000 && interruptions > 500, "{total}, {interruptions}");
}

#[test]
fn a_saturating_bulk_load_costs_interactive_work_a_bounded_share() {
    for seed in 100..110 {
        for prepared_in in [Duration::ZERO, Duration::from_millis(20)] {
            // The judge is half busy with interactive work; bulk would take all it can get.
            let load =
                Load { interactive: Some(Duration::from_millis(45)), views_max: 2, prepared_in, ..QUIET };
            let mut alone = World::new(seed, CONFIG);
            alone.run(&load, Duration::from_secs(600));
            alone.check();
            let mut beside = World::new(seed, CONFIG);
            beside.run(&Load { bulk_callers: 16, ..load }, Duration::from_secs(600));
            beside.check();
            let a_bulk_batch = beside.ran.iter().filter(|ran| ran.lane == Lane::Bulk);
            let a_bulk_batch = a_bulk_batch.map(|ran| ran.took).max().unwrap_or_default();
            let (before, after) =
                (p95(&alone.answered(Lane::Interactive)), p95(&beside.answered(Lane::Interactive)));
            let (bound, bulk) = (before.mul_f64(1.25) + a_bulk_batch, beside.answered(Lane::Bulk).len());
            println!(
                "seed {seed}: p95 {before:?} alone, {after:?} beside bulk, bound {bound:?}; {bulk} bulk, {} interruptions",
                beside.interruptions
            );
            assert!(after <= bound, "seed {seed}: {after:?} instead of {bound:?}");
            assert!(beside.interruptions > 100, "seed {seed}: nothing was interrupted");
            // Bulk gets what interactive work leaves over.
            assert!(bulk > 1_000, "seed {seed}: bulk starves");
        }
    }
}

#[test]
fn where_both_lanes_are_full_bulk_gets_its_share_and_no_more() {
    for seed in 200..210 {
        let load = Load {
            interactive: Some(Duration::from_millis(4)),
            bulk_callers: 16,
            views_max: 1,
            patience: Duration::from_secs(60),
            ..QUIET
        };
        let mut world = World::new(seed, CONFIG);
        world.run(&load, Duration::from_secs(120));
        world.check();
        let contested = world.ran.iter().filter(|ran| ran.contested);
        let time = |lane: Lane| -> Duration {
            contested.clone().filter(|ran| ran.lane == lane).map(|ran| ran.took).sum()
        };
        let (interactive, bulk) = (time(Lane::Interactive), time(Lane::Bulk));
        let share = bulk.as_secs_f64() / (interactive + bulk).as_secs_f64();
        println!("seed {seed}: bulk has {share:.3} of the contested time");
        assert!((0.15..=0.21).contains(&share), "seed {seed}: {share}");
    }
}

#[test]
fn an_overloaded_judge_refuses_early_and_keeps_answering() {
    for seed in 300..310 {
        // Twice what it can do.
        let load = Load {
            interactive: Some(Duration::from_micros(5_200)),
            views_max: 1,
            patience: Duration::from_millis(400),
            ..QUIET
        };
        let mut world = World::new(seed, CONFIG);
        world.run(&load, Duration::from_secs(60));
        world.check();
        let answered = world.share(|end| matches!(end, End::Answered(_)));
        let refused = world.share(|end| matches!(end, End::Refused(_)));
        let late = world.share(|end| end == End::Late);
        println!("seed {seed}: {answered:.2} answered, {refused:.2} refused at once, {late:.2} too late");
        // It works at its rate, and who can't be served hears so at once instead of after a wait.
        assert!(answered > 0.45, "seed {seed}: {answered}");
        assert!(late < 0.02, "seed {seed}: {late}");
        let worst = world.answered(Lane::Interactive).last().copied().unwrap_or_default();
        assert!(worst <= load.patience + Duration::from_millis(250), "seed {seed}: {worst:?}");
    }
}

#[test]
fn a_long_animation_does_not_hold_up_what_comes_after_it() {
    let mut world = World::new(1, CONFIG);
    // The speed is known by now.
    let warm = Load { interactive: Some(Duration::from_millis(50)), views_max: 1, ..QUIET };
    world.run(&warm, Duration::from_secs(2));
    let now = world.now;
    let deadline = now + Duration::from_secs(60);
    let mut push = |views: usize| {
        let id = world.arrivals.len();
        world.queue.push(Lane::Interactive, id, vec![1; views], deadline, now).expect("room");
        let (work, seen) = (vec![1; views], vec![false; views]);
        let lane = Lane::Interactive;
        world.arrivals.push(Arrival { lane, at: now, work, deadline, leaves: None, seen, end: None });
        world.open.push(id);
        id
    };
    let (long, short) = (push(200), push(1));
    world.run(&QUIET, Duration::ZERO);
    // An empty load runs nothing by itself.
    while let Some(busy) = world.begin() {
        world.now = busy.until;
        world.finish(busy, &QUIET, false);
    }
    let after = |id: usize| match world.arrivals[id].end {
        Some(End::Answered(after)) => after,
        other => panic!("{other:?}"),
    };
    assert!(after(short) < Duration::from_millis(300), "{:?}", after(short));
    assert!(after(long) > Duration::from_secs(2), "{:?}", after(long));
}
