//! The queue in virtual time: thousands of seeded arrivals, one judge, and what must hold whatever comes.
//!
//! The seed is in every message: a failure can be run again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Refused;
use super::queue::{Lane, Queue, QueueConfig};

/// SplitMix64 (Steele, Lea, Flood 2014): small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Exponential with this mean: arrivals that know nothing of each other.
    fn apart(&mut self, mean: Duration) -> Duration {
        let u = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        mean.mul_f64(-(1.0 - u).ln())
    }
}

/// A judge of which a batch costs a fixed part and a part a view.
#[derive(Clone, Copy)]
struct Speed {
    a_batch: Duration,
    a_view: Duration,
}

impl Speed {
    fn takes(self, views: usize) -> Duration {
        self.a_batch + self.a_view * views as u32
    }
}

#[derive(Clone, Copy)]
struct Load {
    /// Between two arrivals; none: nobody comes.
    interactive: Option<Duration>,
    bulk: Option<Duration>,
    /// Bulk callers that ask again as soon as they are answered.
    bulk_callers: usize,
    views_max: u64,
    patience: Duration,
    leaving_percent: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Answered(Duration),
    Late,
    Left,
    Refused(Refused),
}

struct Arrival {
    lane: Lane,
    at: Instant,
    views: usize,
    deadline: Instant,
    /// When the client leaves, if it does.
    leaves: Option<Instant>,
    seen: Vec<bool>,
    end: Option<End>,
}

/// Until when, with which views of which jobs, and how long in all.
type Busy = (Instant, Vec<(usize, usize)>, Duration);

struct World {
    seed: u64,
    random: Random,
    queue: Queue<usize>,
    config: QueueConfig,
    now: Instant,
    arrivals: Vec<Arrival>,
    /// Those that have not ended.
    open: Vec<usize>,
    /// Of the batches, in order: lane, views, how long, and whether interactive work waited meanwhile.
    batches: Vec<(Lane, usize, Duration, bool)>,
}

const CONFIG: QueueConfig =
    QueueConfig { jobs_max: 64, batch_max: 16, batch_target: Duration::from_millis(100), bulk_share: 0.2 };

const SPEED: Speed = Speed { a_batch: Duration::from_millis(4), a_view: Duration::from_millis(10) };

impl World {
    fn new(seed: u64, config: QueueConfig) -> Self {
        Self {
            seed,
            random: Random(seed),
            queue: Queue::new(config),
            config,
            now: Instant::now(),
            arrivals: Vec::new(),
            open: Vec::new(),
            batches: Vec::new(),
        }
    }

    fn arrive(&mut self, lane: Lane, load: &Load) {
        let views = 1 + if self.random.chance(20) { self.random.below(load.views_max) as usize } else { 0 };
        let leaves = self.random.chance(load.leaving_percent).then(|| {
            self.now + Duration::from_micros(self.random.below(2 * load.patience.as_micros() as u64))
        });
        let deadline = self.now + load.patience;
        let id = self.arrivals.len();
        let refused = self.queue.push(lane, id, views, deadline, self.now).err();
        let end = refused.map(End::Refused);
        let seen = vec![false; views];
        if end.is_none() {
            self.open.push(id);
        }
        self.arrivals.push(Arrival { lane, at: self.now, views, deadline, leaves, seen, end });
        for lane in Lane::ALL {
            assert!(self.queue.len(lane) <= self.config.jobs_max, "seed {}: a bound is broken", self.seed);
        }
    }

    fn end(&mut self, id: usize, end: End) {
        let arrival = &mut self.arrivals[id];
        assert_eq!(arrival.end, None, "seed {}: {id} ends twice", self.seed);
        arrival.end = Some(end);
        self.open.retain(|open| *open != id);
    }

    /// Those whose clients left by now leave the queue, as the service has it.
    fn leave(&mut self) {
        for id in self.open.clone() {
            if self.arrivals[id].leaves.is_some_and(|at| at <= self.now) {
                self.queue.remove(|job| *job == id);
                self.end(id, End::Left);
            }
        }
    }

    /// Runs until `arriving` is over and everything has ended.
    fn run(&mut self, load: &Load, arriving: Duration) {
        let begin = self.now;
        let mut next: BTreeMap<usize, (Lane, Duration, Instant)> = BTreeMap::new();
        for (at, (lane, mean)) in
            [(Lane::Interactive, load.interactive), (Lane::Bulk, load.bulk)].into_iter().enumerate()
        {
            if let Some(mean) = mean {
                next.insert(at, (lane, mean, begin + self.random.apart(mean)));
            }
        }
        for _ in 0..load.bulk_callers {
            self.arrive(Lane::Bulk, load);
        }
        let mut busy: Option<Busy> = None;
        loop {
            let arrival = next.iter().map(|(at, (_, _, when))| (*when, *at)).min();
            let arrival = arrival.filter(|(when, _)| *when - begin < arriving);
            let done = busy.as_ref().map(|(until, ..)| *until);
            match (arrival, done) {
                (Some((when, at)), done) if done.is_none_or(|done| when <= done) => {
                    self.now = when;
                    self.leave();
                    if let Some((lane, mean, _)) = next.get(&at).copied() {
                        self.arrive(lane, load);
                        let again = self.now + self.random.apart(mean);
                        next.insert(at, (lane, mean, again));
                    }
                }
                (_, Some(done)) => {
                    self.now = done;
                    self.leave();
                    if let Some((_, parts, took)) = busy.take() {
                        self.finish(&parts, took, load, self.now - begin < arriving);
                    }
                }
                (None, None) => break,
                // The first arm takes every arrival that no batch is in the way of.
                (Some(_), None) => unreachable!("seed {}", self.seed),
            }
            if busy.is_none() {
                busy = self.begin();
            }
        }
    }

    fn begin(&mut self) -> Option<Busy> {
        let arrivals = &self.arrivals;
        let (late, batch) = self.queue.take(self.now, |job| arrivals[*job].end.is_some(), false);
        for id in late {
            self.end(id, End::Late);
        }
        let Some(batch) = batch else {
            let waiting = self.open.len();
            assert_eq!(waiting, 0, "seed {}: the judge is idle while {waiting} wait", self.seed);
            return None;
        };
        let views = batch.parts.len();
        let lane = self.arrivals[batch.parts[0].0].lane;
        assert!((1..=self.config.batch_max).contains(&views), "seed {}: a batch of {views}", self.seed);
        for (id, view) in &batch.parts {
            let arrival = &mut self.arrivals[*id];
            assert_eq!(arrival.lane, lane, "seed {}", self.seed);
            assert!(self.now < arrival.deadline, "seed {}: begun after its deadline", self.seed);
            assert!(!std::mem::replace(&mut arrival.seen[*view], true), "seed {}: twice", self.seed);
        }
        let spread = 75 + self.random.below(50) as u32;
        let took = SPEED.takes(views) * spread / 100;
        let interactive_waits = self.queue.len(Lane::Interactive) > 0;
        self.batches.push((lane, views, took, interactive_waits));
        Some((self.now + took, batch.parts, took))
    }

    fn finish(&mut self, parts: &[(usize, usize)], took: Duration, load: &Load, again: bool) {
        self.queue.finished(Some(took));
        for (id, _) in parts {
            let arrival = &self.arrivals[*id];
            if arrival.end.is_none() && arrival.seen.iter().all(|seen| *seen) {
                let lane = arrival.lane;
                self.end(*id, End::Answered(self.now - self.arrivals[*id].at));
                if lane == Lane::Bulk && load.bulk_callers > 0 && again {
                    self.arrive(Lane::Bulk, load);
                }
            }
        }
    }

    /// Each ended once; an answer rests on every view, and came in time or as the deadline passed.
    fn check(&self) {
        for (id, arrival) in self.arrivals.iter().enumerate() {
            let seed = self.seed;
            let end = arrival.end.unwrap_or_else(|| panic!("seed {seed}: {id} was lost"));
            if matches!(end, End::Answered(_)) {
                let seen = arrival.seen.iter().filter(|seen| **seen).count();
                assert_eq!(seen, arrival.views, "seed {seed}: {id} was answered half seen");
            }
        }
    }

    fn answered(&self, lane: Lane) -> Vec<Duration> {
        let of_lane = self.arrivals.iter().filter(|arrival| arrival.lane == lane);
        let mut answered: Vec<Duration> = of_lane
            .filter_map(|arrival| match arrival.end {
                Some(End::Answered(after)) => Some(after),
                _ => None,
            })
            .collect();
        answered.sort_unstable();
        answered
    }

    fn share(&self, end: impl Fn(End) -> bool) -> f64 {
        let count = self.arrivals.iter().filter(|arrival| arrival.end.is_some_and(&end)).count();
        count as f64 / self.arrivals.len().max(1) as f64
    }
}

fn p95(sorted: &[Duration]) -> Duration {
    sorted.get(sorted.len() * 95 / 100).copied().unwrap_or_default()
}

const QUIET: Load = Load {
    interactive: None,
    bulk: None,
    bulk_callers: 0,
    views_max: 16,
    patience: Duration::from_secs(5),
    leaving_percent: 0,
};

#[test]
fn nothing_is_lost_and_nothing_answered_twice_whatever_comes() {
    let mut total = 0;
    for seed in 0..40 {
        let mut random = Random(seed);
        let apart = |random: &mut Random| Some(Duration::from_micros(2_000 + random.below(40_000)));
        let load = Load {
            interactive: apart(&mut random),
            bulk: apart(&mut random),
            bulk_callers: random.below(20) as usize,
            views_max: 1 + random.below(32),
            patience: Duration::from_millis(50 + random.below(3_000)),
            leaving_percent: random.below(30),
        };
        let config = QueueConfig {
            jobs_max: 1 + random.below(64) as usize,
            batch_max: 1 + random.below(16) as usize,
            batch_target: Duration::from_millis(random.below(300)),
            bulk_share: random.below(90) as f64 / 100.0,
        };
        let mut world = World::new(seed, config);
        world.run(&load, Duration::from_secs(20));
        world.check();
        total += world.arrivals.len();
    }
    println!("{total} arrivals");
    assert!(total > 40_000, "{total}");
}

#[test]
fn a_saturating_bulk_load_costs_interactive_work_a_bounded_share() {
    for seed in 100..110 {
        // The judge is half busy with interactive work; bulk would take all it can get.
        let load = Load { interactive: Some(Duration::from_millis(45)), views_max: 2, ..QUIET };
        let mut alone = World::new(seed, CONFIG);
        alone.run(&load, Duration::from_secs(600));
        alone.check();
        let mut beside = World::new(seed, CONFIG);
        beside.run(&Load { bulk_callers: 16, ..load }, Duration::from_secs(600));
        beside.check();
        let a_bulk_batch = beside.batches.iter().filter(|(lane, ..)| *lane == Lane::Bulk);
        let a_bulk_batch = a_bulk_batch.map(|(_, _, took, _)| *took).max().unwrap_or_default();
        let (before, after) =
            (p95(&alone.answered(Lane::Interactive)), p95(&beside.answered(Lane::Interactive)));
        let bound = before.mul_f64(1.25) + a_bulk_batch;
        println!("seed {seed}: p95 {before:?} alone, {after:?} beside bulk, bound {bound:?}");
        assert!(after <= bound, "seed {seed}: {after:?} instead of {bound:?}");
        // Bulk gets what interactive work leaves over.
        assert!(beside.answered(Lane::Bulk).len() > 1_000, "seed {seed}: bulk starves");
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
        let contested = world.batches.iter().filter(|(.., waits)| *waits);
        let time = |lane: Lane| -> Duration {
            contested.clone().filter(|(of, ..)| *of == lane).map(|(_, _, took, _)| *took).sum()
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
        world.queue.push(Lane::Interactive, id, views, deadline, now).expect("room");
        let seen = vec![false; views];
        let lane = Lane::Interactive;
        world.arrivals.push(Arrival { lane, at: now, views, deadline, leaves: None, seen, end: None });
        world.open.push(id);
        id
    };
    let (long, short) = (push(200), push(1));
    world.run(&QUIET, Duration::ZERO);
    // An empty load runs nothing by itself.
    while let Some((until, parts, took)) = world.begin() {
        world.now = until;
        world.finish(&parts, took, &QUIET, false);
    }
    let after = |id: usize| match world.arrivals[id].end {
        Some(End::Answered(after)) => after,
        other => panic!("{other:?}"),
    };
    assert!(after(short) < Duration::from_millis(300), "{:?}", after(short));
    assert!(after(long) > Duration::from_secs(2), "{:?}", after(long));
}
