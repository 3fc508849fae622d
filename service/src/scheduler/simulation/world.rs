//! Arrivals, a judge and the queue between them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::super::Refused;
use super::super::queue::{INTERRUPTIONS_MAX, Lane, Queue, QueueConfig};

/// SplitMix64 (Steele, Lea, Flood 2014): small, seeded, the same everywhere.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Exponential with this mean: arrivals that know nothing of each other.
    fn apart(&mut self, mean: Duration) -> Duration {
        let u = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        mean.mul_f64(-(1.0 - u).ln())
    }
}

/// A judge of which a batch costs a fixed part and a part a unit of work.
#[derive(Clone, Copy)]
pub(super) struct Speed {
    a_batch: Duration,
    a_unit: Duration,
}

impl Speed {
    fn takes(self, work: usize) -> Duration {
        self.a_batch + self.a_unit * work as u32
    }
}

pub(super) const SPEED: Speed =
    Speed { a_batch: Duration::from_millis(4), a_unit: Duration::from_millis(10) };

/// A judge that is told to stop does so within it.
const STOPS_WITHIN: Duration = Duration::from_millis(3);

/// How often the service looks whether bulk work that is held back may begin.
const HELD_BACK: Duration = Duration::from_millis(2);

#[derive(Clone, Copy)]
pub(super) struct Load {
    /// Between two arrivals; none: nobody comes.
    pub(super) interactive: Option<Duration>,
    pub(super) bulk: Option<Duration>,
    /// Bulk callers that ask again as soon as they are answered.
    pub(super) bulk_callers: usize,
    pub(super) views_max: u64,
    /// A tenth of the views have up to so much work, the others 1.
    pub(super) work_max: u64,
    pub(super) patience: Duration,
    pub(super) leaving_percent: u64,
    /// Interactive work is announced so long before it comes, on the mean.
    pub(super) prepared_in: Duration,
    /// The judge does one view after the other: those that are done when it is interrupted stay done.
    pub(super) one_by_one: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Answered(Duration),
    Late,
    Left,
    Refused(Refused),
}

pub(super) struct Arrival {
    pub(super) lane: Lane,
    /// When it was announced, if it was.
    pub(super) at: Instant,
    /// Each view's.
    pub(super) work: Vec<usize>,
    pub(super) deadline: Instant,
    /// When the client leaves, if it does.
    pub(super) leaves: Option<Instant>,
    pub(super) seen: Vec<bool>,
    pub(super) end: Option<End>,
}

/// What the judge is at.
pub(super) struct Busy {
    pub(super) until: Instant,
    /// Views of jobs.
    pub(super) parts: Vec<(usize, usize)>,
    began: Instant,
    /// Undisturbed.
    pub(super) took: Duration,
    /// It hears that it is interrupted.
    hears: bool,
    interrupted: bool,
}

/// A batch that was done.
pub(super) struct Ran {
    pub(super) lane: Lane,
    pub(super) took: Duration,
    /// Interactive work waited when it began.
    pub(super) contested: bool,
}

pub(super) struct World {
    seed: u64,
    random: Random,
    pub(super) queue: Queue<usize>,
    config: QueueConfig,
    pub(super) now: Instant,
    pub(super) arrivals: Vec<Arrival>,
    /// Those that have not ended.
    pub(super) open: Vec<usize>,
    /// Interactive ones on their way: when they come, and since when.
    coming: Vec<(Instant, Instant)>,
    pub(super) ran: Vec<Ran>,
    pub(super) interruptions: usize,
    /// Since the last bulk batch that was done.
    in_a_row: u32,
}

impl World {
    pub(super) fn new(seed: u64, config: QueueConfig) -> Self {
        Self {
            seed,
            random: Random(seed),
            queue: Queue::new(config),
            config,
            now: Instant::now(),
            arrivals: Vec::new(),
            open: Vec::new(),
            coming: Vec::new(),
            ran: Vec::new(),
            interruptions: 0,
            in_a_row: 0,
        }
    }

    fn arrive(&mut self, lane: Lane, at: Instant, load: &Load) {
        let views = 1 + if self.random.chance(20) { self.random.below(load.views_max) as usize } else { 0 };
        let random = &mut self.random;
        let work =
            (0..views).map(|_| 1 + if random.chance(10) { random.below(load.work_max) as usize } else { 0 });
        let work: Vec<usize> = work.collect();
        let leaves = self.random.chance(load.leaving_percent).then(|| {
            self.now + Duration::from_micros(self.random.below(2 * load.patience.as_micros() as u64))
        });
        let deadline = at + load.patience;
        let id = self.arrivals.len();
        let refused = self.queue.push(lane, id, work.clone(), deadline, self.now).err();
        let end = refused.map(End::Refused);
        let seen = vec![false; views];
        if end.is_none() {
            self.open.push(id);
        }
        self.arrivals.push(Arrival { lane, at, work, deadline, leaves, seen, end });
        let (jobs_max, seed) = (self.config.jobs_max, self.seed);
        assert!(self.queue.len(Lane::Interactive) <= jobs_max, "seed {seed}: a bound is broken");
        // What was put back had left room for others.
        assert!(
            self.queue.len(Lane::Bulk) <= jobs_max + self.config.batch_max,
            "seed {seed}: a bound is broken"
        );
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
    pub(super) fn run(&mut self, load: &Load, arriving: Duration) {
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
            self.arrive(Lane::Bulk, begin, load);
        }
        let mut busy: Option<Busy> = None;
        loop {
            let arrival = next.iter().map(|(at, (_, _, when))| (*when, *at)).min();
            let arrival = arrival.filter(|(when, _)| *when - begin < arriving);
            let comes = self.coming.iter().min().copied();
            let done = busy.as_ref().map(|busy| busy.until);
            let looks = (busy.is_none() && !self.open.is_empty()).then(|| self.now + HELD_BACK);
            let times = [arrival.map(|(when, _)| when), comes.map(|(when, _)| when), done, looks];
            let Some(now) = times.into_iter().flatten().min() else { break };
            self.now = now;
            self.leave();
            if let Some((when, at)) = arrival.filter(|(when, _)| *when == now)
                && let Some((lane, mean, _)) = next.get(&at).copied()
            {
                if lane == Lane::Interactive && !load.prepared_in.is_zero() {
                    self.coming.push((when + self.random.apart(load.prepared_in), when));
                    self.make_way(busy.as_mut(), true);
                } else {
                    self.arrive(lane, when, load);
                    self.make_way(busy.as_mut(), false);
                }
                let again = now + self.random.apart(mean);
                next.insert(at, (lane, mean, again));
            } else if let Some(came) = comes.filter(|(when, _)| *when == now) {
                self.coming.retain(|coming| *coming != came);
                self.arrive(Lane::Interactive, came.1, load);
                self.make_way(busy.as_mut(), false);
            } else if let Some(ended) = busy.take_if(|busy| busy.until == now) {
                self.finish(ended, load, now - begin < arriving);
            }
            if busy.is_none() {
                busy = self.begin();
            }
        }
    }

    fn make_way(&mut self, busy: Option<&mut Busy>, coming: bool) {
        if let Some(busy) = busy
            && self.queue.interrupts(self.now, coming)
        {
            assert!(!busy.interrupted, "seed {}: interrupted twice", self.seed);
            busy.interrupted = true;
            if busy.hears {
                let latency = Duration::from_micros(self.random.below(STOPS_WITHIN.as_micros() as u64));
                busy.until = busy.until.min(self.now + latency);
            }
        }
    }

    pub(super) fn begin(&mut self) -> Option<Busy> {
        let (arrivals, coming) = (&self.arrivals, !self.coming.is_empty());
        let (late, batch) = self.queue.take(self.now, |job| arrivals[*job].end.is_some(), coming);
        for id in late {
            self.end(id, End::Late);
        }
        let Some(batch) = batch else {
            let waits = |id: &&usize| !coming || self.arrivals[**id].lane == Lane::Interactive;
            let waiting = self.open.iter().filter(waits).count();
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
        let work = batch.parts.iter().map(|(id, view)| self.arrivals[*id].work[*view]).sum();
        let took = SPEED.takes(work) * spread / 100;
        let contested = self.queue.len(Lane::Interactive) > 0;
        self.ran.push(Ran { lane, took, contested });
        let hears = self.random.chance(90);
        Some(Busy {
            until: self.now + took,
            parts: batch.parts,
            began: self.now,
            took,
            hears,
            interrupted: false,
        })
    }

    pub(super) fn finish(&mut self, busy: Busy, load: &Load, again: bool) {
        let Busy { parts, began, took, interrupted, .. } = busy;
        let lane = self.arrivals[parts[0].0].lane;
        let ran = self.now - began;
        if interrupted && ran < took {
            assert_eq!(lane, Lane::Bulk, "seed {}: interactive work was interrupted", self.seed);
            self.ran.pop();
            self.interruptions += 1;
            self.in_a_row += 1;
            assert!(self.in_a_row <= INTERRUPTIONS_MAX, "seed {}: bulk does not get on", self.seed);
            let share = if load.one_by_one { ran.as_secs_f64() / took.as_secs_f64() } else { 0.0 };
            let undone = &parts[(parts.len() as f64 * share) as usize..];
            for (id, view) in undone {
                self.arrivals[*id].seen[*view] = false;
            }
            let arrivals = &self.arrivals;
            let again = |job: &usize, view| undone.contains(&(*job, view)) && arrivals[*job].end.is_none();
            self.queue.interrupted(again);
        } else {
            self.queue.finished(Some(took));
            if lane == Lane::Bulk {
                self.in_a_row = 0;
            }
        }
        for (id, _) in &parts {
            let arrival = &self.arrivals[*id];
            if arrival.end.is_none() && arrival.seen.iter().all(|seen| *seen) {
                self.end(*id, End::Answered(self.now - self.arrivals[*id].at));
                if lane == Lane::Bulk && load.bulk_callers > 0 && again {
                    self.arrive(Lane::Bulk, self.now, load);
                }
            }
        }
    }

    /// Each ended once; an answer rests on every view, and came in time or as the deadline passed.
    pub(super) fn check(&self) {
        for (id, arrival) in self.arrivals.iter().enumerate() {
            let seed = self.seed;
            let end = arrival.end.unwrap_or_else(|| panic!("seed {seed}: {id} was lost"));
            if matches!(end, End::Answered(_)) {
                let seen = arrival.seen.iter().filter(|seen| **seen).count();
                assert_eq!(seen, arrival.work.len(), "seed {seed}: {id} was answered half seen");
            }
        }
    }

    pub(super) fn answered(&self, lane: Lane) -> Vec<Duration> {
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

    pub(super) fn share(&self, end: impl Fn(End) -> bool) -> f64 {
        let count = self.arrivals.iter().filter(|arrival| arrival.end.is_some_and(&end)).count();
        count as f64 / self.arrivals.len().max(1) as f64
    }
}
