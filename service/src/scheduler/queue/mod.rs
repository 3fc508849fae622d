//! What waits for one judge: two lanes, deadlines, batches. Pure: no threads, and time is an argument.
//!
//! A batch is formed only when the judge is free, so that it is as full as it can be and an interactive
//! submission can still overtake bulk ones. It is measured by its work, in the judge's own unit: a long text costs
//! more than a short one. Jobs of one lane take turns view by view: an animation does not hold up the still
//! pictures behind it, nor a long text the short ones. Where both lanes have work, bulk gets a bounded share of the
//! judge's time: at most `bulk_share` of it, and one batch. Interactive work interrupts a bulk batch beyond that
//! share: it is put back and done again.

mod line;

use std::time::{Duration, Instant};

use self::line::{Line, Part};
use super::Refused;

/// Who may wait: a person or a pipeline for this answer now, or nobody in particular.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    #[default]
    Interactive,
    Bulk,
}

impl Lane {
    pub const ALL: [Self; 2] = [Self::Interactive, Self::Bulk];

    pub fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Bulk => "bulk",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Interactive => Self::Bulk,
            Self::Bulk => Self::Interactive,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct QueueConfig {
    /// Jobs waiting in one lane.
    pub(super) jobs_max: usize,
    /// Views a batch.
    pub(super) batch_max: usize,
    /// How long a batch should take: a longer one delays whoever comes next.
    pub(super) batch_target: Duration,
    /// How long one may take where interactive work waits for it ([`WAITED_SHARE`]); nobody knows who comes next.
    pub(super) batch_longest: Duration,
    /// Of the judge's time, while both lanes have work; 0 to below 1.
    pub(super) bulk_share: f64,
}

/// Interruptions in a row; the bulk batch after them is left to end, so that bulk work gets on.
pub(super) const INTERRUPTIONS_MAX: u32 = 4;

/// Fuller batches do more in the same time, but each in them waits for all. Where interactive work waits for
/// longer than some targets, a batch may take this part of that wait: it costs nobody more than that, and the
/// wait gets shorter.
const WAITED_SHARE: u32 = 4;

/// Work done that is thrown away for interactive work that is not there yet.
const WASTE_MAX: Duration = Duration::from_millis(100);

/// A batch that ends within it is left to end.
const SOON: Duration = Duration::from_millis(3);

pub(super) struct Queue<T> {
    config: QueueConfig,
    interactive: Line<T>,
    bulk: Line<T>,
    /// None before the first batch.
    pace: Option<Pace>,
    /// Time that bulk may take before interactive work, saved up while that ran and bulk had to wait.
    credit: Duration,
    running: Option<Running<T>>,
    /// Bulk batches since the last that ended by itself.
    interruptions: u32,
    /// Since when bulk work is held back for interactive work that is still on its way here.
    held_since: Option<Instant>,
}

/// Smoothed times.
#[derive(Clone, Copy)]
struct Pace {
    a_view: Duration,
    /// Of work.
    a_unit: Duration,
}

struct Running<T> {
    lane: Lane,
    parts: Vec<Part<T>>,
    work: usize,
    began: Instant,
    /// Interactive work may end it: bulk's share does not pay for it.
    interruptible: bool,
}

/// What to run next.
#[derive(Debug)]
pub(super) struct Batch<T> {
    /// A job and one of its views, by number; all of one lane.
    pub(super) parts: Vec<(T, usize)>,
}

impl Pace {
    fn takes(self, work: usize) -> Duration {
        self.a_unit.saturating_mul(u32::try_from(work).unwrap_or(u32::MAX))
    }

    fn smoothed(self, found: Self) -> Self {
        let smoothed = |before: Duration, found: Duration| (before * 7 + found) / 8;
        Self { a_view: smoothed(self.a_view, found.a_view), a_unit: smoothed(self.a_unit, found.a_unit) }
    }
}

impl<T: Clone> Queue<T> {
    pub(super) fn new(config: QueueConfig) -> Self {
        Self {
            config,
            interactive: Line::default(),
            bulk: Line::default(),
            pace: None,
            credit: Duration::ZERO,
            running: None,
            interruptions: 0,
            held_since: None,
        }
    }

    fn lane(&self, lane: Lane) -> &Line<T> {
        match lane {
            Lane::Interactive => &self.interactive,
            Lane::Bulk => &self.bulk,
        }
    }

    fn lane_mut(&mut self, lane: Lane) -> &mut Line<T> {
        match lane {
            Lane::Interactive => &mut self.interactive,
            Lane::Bulk => &mut self.bulk,
        }
    }

    /// Refuses what [`Self::admits`] does not; `work`: each view's.
    pub(super) fn push(
        &mut self,
        lane: Lane,
        job: T,
        work: Vec<usize>,
        deadline: Instant,
        now: Instant,
    ) -> Result<(), Refused> {
        self.admits(lane, work.iter().sum(), deadline, now)?;
        self.lane_mut(lane).push(job, work, deadline);
        Ok(())
    }

    /// Refused is what finds no room, and what by all that was measured could not be done in time.
    pub(super) fn admits(
        &self,
        lane: Lane,
        work: usize,
        deadline: Instant,
        now: Instant,
    ) -> Result<(), Refused> {
        if self.lane(lane).len() >= self.config.jobs_max {
            return Err(Refused::Full);
        }
        // An idle judge is always tried: what was measured may be long past.
        let wait = self.expected_wait(lane);
        if now >= deadline || (!wait.is_zero() && now + wait + self.takes(work) > deadline) {
            return Err(Refused::Deadline);
        }
        Ok(())
    }

    /// Jobs that can't be done in time any more, and the next batch. `gone`: nobody waits for it. `coming`:
    /// interactive work is being prepared, which a bulk batch would rob of the cores and then keep waiting;
    /// bulk gets its share all the same.
    pub(super) fn take(
        &mut self,
        now: Instant,
        gone: impl Fn(&T) -> bool,
        coming: bool,
    ) -> (Vec<T>, Option<Batch<T>>) {
        let late = self.sort_out(now, gone);
        if coming && self.interactive.is_empty() && !self.bulk.is_empty() {
            let since = self.held_since.replace(now).unwrap_or(now);
            self.save_up(now.saturating_duration_since(since));
            if !self.owes_bulk() {
                return (late, None);
            }
        }
        self.held_since = None;
        let owed = self.owes_bulk();
        let bulk_first = !self.bulk.is_empty() && (self.interactive.is_empty() || owed);
        let lane = if bulk_first { Lane::Bulk } else { Lane::Interactive };
        let (room, most) = (self.room(lane), self.config.batch_max.max(1));
        let parts = self.lane_mut(lane).take(room, most);
        if parts.is_empty() {
            return (late, None);
        }
        let batch = Batch { parts: parts.iter().map(|part| (part.job.clone(), part.view)).collect() };
        let interruptible = bulk_first && !owed && self.interruptions < INTERRUPTIONS_MAX;
        let work = parts.iter().map(|part| part.work).sum();
        self.running = Some(Running { lane, parts, work, began: now, interruptible });
        (late, Some(batch))
    }

    /// Whether what runs is bulk work that interactive work needs gone, which waits or is `coming`. Said once
    /// of a batch; whoever hears it stops the batch and says later what came of it.
    pub(super) fn interrupts(&mut self, now: Instant, coming: bool) -> bool {
        let Some(running) = self.running.as_mut().filter(|running| running.interruptible) else {
            return false;
        };
        let done = now.saturating_duration_since(running.began);
        let ends_soon = self.pace.is_some_and(|pace| {
            let needs = pace.takes(running.work);
            done <= needs && needs - done < SOON
        });
        let wanted = !self.interactive.is_empty() || (coming && done < WASTE_MAX);
        let interrupts = wanted && !ends_soon;
        running.interruptible = !interrupts;
        interrupts
    }

    /// The batch was interrupted: those of which `undone` is true have had no turn.
    pub(super) fn interrupted(&mut self, undone: impl Fn(&T, usize) -> bool) {
        let Some(Running { lane, parts, .. }) = self.running.take() else { return };
        self.interruptions += 1;
        let undone = parts.into_iter().filter(|part| undone(&part.job, part.view)).collect();
        self.lane_mut(lane).put_back(undone);
    }

    /// The batch is done; `took` is None where it was stopped, which tells nothing of the judge's speed.
    pub(super) fn finished(&mut self, took: Option<Duration>) {
        let Some(Running { lane, parts, work, .. }) = self.running.take() else { return };
        let Some(took) = took else { return };
        let each = |count: usize| took / u32::try_from(count).unwrap_or(u32::MAX).max(1);
        let found = Pace { a_view: each(parts.len()), a_unit: each(work) };
        self.pace = Some(self.pace.map_or(found, |before| before.smoothed(found)));
        match lane {
            Lane::Interactive if !self.bulk.is_empty() => self.save_up(took),
            // Nobody had to wait, so nothing is owed.
            Lane::Interactive => self.credit = Duration::ZERO,
            Lane::Bulk => {
                self.credit = self.credit.saturating_sub(took);
                self.interruptions = 0;
            }
        }
    }

    /// Whether bulk's share pays for its next batch. Before anything was measured every batch seems to cost nothing.
    fn owes_bulk(&self) -> bool {
        !self.credit.is_zero() && self.credit >= self.batch_time(Lane::Bulk)
    }

    /// Bulk work had to stand back for so long.
    fn save_up(&mut self, stood_back: Duration) {
        let share = self.config.bulk_share.clamp(0.0, 0.99);
        let credit = self.credit + stood_back.mul_f64(share / (1.0 - share));
        // What was saved up in a long rush must not come back as one long delay.
        self.credit = credit.min(self.batch_time(Lane::Bulk).max(self.config.batch_target));
    }

    /// Takes a job out; false where no view of it waits any more.
    pub(super) fn remove(&mut self, is: impl Fn(&T) -> bool) -> bool {
        let before = self.len(Lane::Interactive) + self.len(Lane::Bulk);
        self.interactive.retain(|waiting| !is(&waiting.job));
        self.bulk.retain(|waiting| !is(&waiting.job));
        self.len(Lane::Interactive) + self.len(Lane::Bulk) < before
    }

    /// Everything that waits, taken out.
    pub(super) fn drain(&mut self) -> Vec<T> {
        self.interactive.drain().chain(self.bulk.drain()).collect()
    }

    /// Jobs with views that wait.
    pub(super) fn len(&self, lane: Lane) -> usize {
        self.lane(lane).len()
    }

    /// Smoothed time a view; zero before the first batch.
    pub(super) fn a_view(&self) -> Duration {
        self.pace.map_or(Duration::ZERO, |pace| pace.a_view)
    }

    /// Until one more job of this lane would begin, from what was measured.
    pub(super) fn expected_wait(&self, lane: Lane) -> Duration {
        let running = self.running.as_ref().map_or(0, |running| running.work);
        let (own, other) = (self.lane(lane).left(), self.lane(lane.other()).left());
        let share = self.config.bulk_share.clamp(0.0, 0.99);
        let own_time = self.takes(own);
        let beside = match lane {
            // Bulk takes its share of the time, as long as it lasts.
            Lane::Interactive => self.takes(other).min(own_time.mul_f64(share / (1.0 - share))),
            Lane::Bulk => self.takes(other),
        };
        self.takes(running) + own_time + beside
    }

    /// So much work, by what was measured; nothing before the first batch.
    fn takes(&self, work: usize) -> Duration {
        self.pace.map_or(Duration::ZERO, |pace| pace.takes(work))
    }

    /// Work of the lane's next batch; the least at first, to see how long it takes.
    fn room(&self, lane: Lane) -> usize {
        let target = self.config.batch_target;
        let target = match lane {
            Lane::Interactive => (self.takes(self.interactive.left()) / WAITED_SHARE)
                .min(self.config.batch_longest)
                .max(target),
            Lane::Bulk => target,
        };
        self.pace.map_or(0, |pace| {
            (target.as_nanos() / pace.a_unit.as_nanos().max(1)).min(usize::MAX as u128) as usize
        })
    }

    /// Of the lane's next batch.
    fn batch_time(&self, lane: Lane) -> Duration {
        let line = self.lane(lane);
        self.takes(line.left().min(self.room(lane).max(line.next_work())))
    }

    /// Drops those that nobody waits for and returns those that are too late.
    fn sort_out(&mut self, now: Instant, gone: impl Fn(&T) -> bool) -> Vec<T> {
        let pace = self.pace;
        let mut late = Vec::new();
        for waiting in [&mut self.interactive, &mut self.bulk] {
            waiting.retain(|one| !gone(&one.job));
            let mut others = waiting.len();
            waiting.retain(|one| {
                // Where nobody else needs the time, it is tried: what was measured may be long past.
                let needs = pace.map_or(Duration::ZERO, |pace| pace.takes(one.left()));
                let hopeless = others > 1 && now + needs > one.deadline;
                let keep = now < one.deadline && !hopeless;
                if !keep {
                    others -= 1;
                    late.push(one.job.clone());
                }
                keep
            });
        }
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bulk_work_stands_back_for_what_is_coming_and_still_gets_its_share() {
        let config = QueueConfig {
            jobs_max: 8,
            batch_max: 1,
            batch_target: Duration::from_millis(10),
            batch_longest: Duration::from_millis(80),
            bulk_share: 0.2,
        };
        let (mut queue, begin) = (Queue::new(config), Instant::now());
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let push = |queue: &mut Queue<u8>, lane, job| {
            queue.push(lane, job, vec![1], at(60_000), begin).expect("there is room");
        };
        let taken = |queue: &mut Queue<u8>, ms, coming| {
            let (late, batch) = queue.take(at(ms), |_| false, coming);
            assert!(late.is_empty());
            batch.map(|batch| batch.parts[0].0)
        };
        // The speed becomes known.
        push(&mut queue, Lane::Bulk, 0);
        assert_eq!(taken(&mut queue, 0, false), Some(0));
        queue.finished(Some(Duration::from_millis(10)));

        push(&mut queue, Lane::Bulk, 1);
        push(&mut queue, Lane::Bulk, 2);
        assert_eq!(taken(&mut queue, 100, true), None, "an interactive picture is being decoded");
        assert_eq!(taken(&mut queue, 120, true), None);
        // 10 ms of every 50 are bulk's.
        assert_eq!(taken(&mut queue, 141, true), Some(1));
        queue.finished(Some(Duration::from_millis(10)));
        assert_eq!(taken(&mut queue, 151, true), None);
        // What has come goes first.
        push(&mut queue, Lane::Interactive, 9);
        assert_eq!(taken(&mut queue, 160, true), Some(9));
        queue.finished(Some(Duration::from_millis(10)));
        assert_eq!(taken(&mut queue, 170, false), Some(2), "nothing is coming any more");
    }

    /// A queue whose judge takes 1 ms for a unit of work.
    fn measured(batch_max: usize) -> (Queue<u8>, Instant) {
        let (batch_target, batch_longest) = (Duration::from_millis(30), Duration::from_millis(120));
        let (jobs_max, bulk_share) = (99, 0.2);
        let mut queue =
            Queue::new(QueueConfig { jobs_max, batch_max, batch_target, batch_longest, bulk_share });
        let begin = Instant::now();
        queue.push(Lane::Bulk, 0, vec![50], begin + Duration::from_secs(60), begin).expect("there is room");
        assert!(queue.take(begin, |_| false, false).1.is_some());
        queue.finished(Some(Duration::from_millis(50)));
        (queue, begin)
    }

    fn work_of_next(queue: &mut Queue<u8>, now: Instant) -> Vec<usize> {
        drop(queue.take(now, |_| false, false));
        let parts = queue.running.as_ref().map_or(&[][..], |running| &running.parts);
        let work = parts.iter().map(|part| part.work).collect();
        queue.finished(None);
        work
    }

    #[test]
    fn batches_are_measured_by_work() {
        let (mut queue, now) = measured(9);
        for (job, work) in (0..).zip([20, 9, 2, 400, 25]) {
            let deadline = now + Duration::from_secs(60);
            queue.push(Lane::Bulk, job, vec![work], deadline, now).expect("there is room");
        }
        assert_eq!(queue.expected_wait(Lane::Bulk), Duration::from_millis(456));
        let batches: Vec<_> = (0..4).map(|_| work_of_next(&mut queue, now)).collect();
        assert_eq!(batches, [vec![20, 9], vec![2], vec![400], vec![25]]);
    }

    #[test]
    fn the_more_interactive_work_waits_the_fuller_are_its_batches() {
        for (waiting, expected) in [(1, 1), (3, 3), (12, 3), (16, 4), (32, 8), (90, 12)] {
            let (mut queue, now) = measured(20);
            for job in 0..waiting {
                let deadline = now + Duration::from_secs(60);
                queue.push(Lane::Interactive, job, vec![10], deadline, now).expect("there is room");
                queue.push(Lane::Bulk, job, vec![10], deadline, now).expect("there is room");
            }
            assert_eq!(work_of_next(&mut queue, now).len(), expected, "{waiting}");
            queue.interactive.drain().for_each(drop);
            // A longer bulk batch would keep interactive work waiting that is not there yet.
            assert_eq!(work_of_next(&mut queue, now).len(), usize::from(waiting).min(3), "{waiting}");
        }
    }
}
