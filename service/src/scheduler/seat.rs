//! One judge at work: its thread, what waits for it, and the watch on runs that do not end.
//!
//! A run's time is bounded: past `judge_timeout` it is told to stop and its jobs get
//! [`Failure::TimedOut`], which is for the policies' `on_error`. A run that goes on all the same after
//! `stop_grace` makes the judge stuck: whatever waits for it, and whatever comes, fails at once until the
//! thread is back. A run that nobody waits for any more is told to stop likewise.
//!
//! A bulk run is interrupted where interactive work needs the judge. That is no failure: its jobs go back into the
//! queue and their clients see nothing of it. It stays under the watch until it has ended.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shieldgate_models::priority::stand_back;
use shieldgate_models::{Answer, Asked, Failure, Judge, Stop};
use tokio::sync::Notify;

use super::job::{Answers, Job};
use super::prepared::{Places, prepare};
use super::queue::{Batch, Lane, Queue, QueueConfig};
use super::{Refused, SchedulerConfig};

/// How often bulk work that is held back looks whether its time has come.
const HELD_BACK: Duration = Duration::from_millis(2);

/// Targets that a batch may take where much waits for it; far from the time in which a run must end.
const TARGETS_MAX: u32 = 8;

pub(super) struct Seat {
    pub(super) judge: Arc<dyn Judge>,
    state: Mutex<State>,
    /// There is work, or none will come any more.
    work: Condvar,
    /// A run began, ended or was told to stop.
    turn: Notify,
    /// Interactive submissions on their way to any judge.
    coming: Arc<AtomicUsize>,
    places: Places,
}

struct State {
    queue: Queue<Arc<Job>>,
    run: Option<Run>,
    stuck: bool,
    /// Shutting down: what waits is done, nothing new is taken.
    closed: bool,
    batches: u64,
    pictures: u64,
    interrupted: u64,
}

struct Run {
    jobs: Vec<Arc<Job>>,
    stop: Stop,
    began: Instant,
    /// When it was told to stop.
    told: Option<Instant>,
    /// Told to make room for interactive work: what it has not done is done again.
    interrupted: bool,
}

impl Run {
    fn tell_to_stop(&mut self) {
        if self.told.is_none() {
            self.told = Some(Instant::now());
            self.stop.raise();
        }
    }
}

impl State {
    /// The answer to so many questions while the judge takes none.
    fn takes_nothing(&self, questions: usize) -> Option<Result<Answers, Refused>> {
        match (self.closed, self.stuck) {
            (true, _) => Some(Err(Refused::ShuttingDown)),
            (_, true) => Some(Ok(vec![Err(Failure::TimedOut); questions])),
            _ => None,
        }
    }

    /// Stops bulk work where interactive work needs the judge, which waits or is `coming`.
    fn make_way(&mut self, coming: bool) {
        if let Some(run) = self.run.as_mut().filter(|run| run.told.is_none())
            && self.queue.interrupts(Instant::now(), coming)
        {
            run.interrupted = true;
            run.stop.raise();
        }
    }
}

/// A seat at one moment, for metrics.
#[derive(Debug, Clone, Copy)]
pub(super) struct SeatState {
    /// Jobs that wait, by lane.
    pub(super) queued: [usize; 2],
    pub(super) a_view: Duration,
    pub(super) stuck: bool,
    /// Since it was last asked.
    pub(super) batches: u64,
    pub(super) pictures: u64,
    pub(super) interrupted: u64,
}

impl Seat {
    pub(super) fn new(
        judge: Arc<dyn Judge>,
        config: &SchedulerConfig,
        coming: Arc<AtomicUsize>,
        places: Places,
    ) -> Arc<Self> {
        let queue = Queue::new(QueueConfig {
            jobs_max: config.queue_max.max(1),
            batch_max: judge.batch_max(),
            batch_target: config.batch_target,
            batch_longest: config.batch_target.saturating_mul(TARGETS_MAX).min(config.judge_timeout / 4),
            bulk_share: config.bulk_share,
        });
        let (batches, pictures, interrupted) = (0, 0, 0);
        let state = State { queue, run: None, stuck: false, closed: false, batches, pictures, interrupted };
        Arc::new(Self {
            judge,
            state: Mutex::new(state),
            work: Condvar::new(),
            turn: Notify::new(),
            coming,
            places,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn and for its end.
    pub(super) async fn ask(
        &self,
        lane: Lane,
        views: Arc<super::Views>,
        questions: Vec<shieldgate_models::Question>,
        deadline: Instant,
    ) -> Result<Answers, Refused> {
        let count = questions.len();
        let ended = || Ok(vec![Err(panicked()); count]);
        // What would be turned away below anyway is so before work is put into it.
        {
            let state = self.state();
            if let Some(answer) = state.takes_nothing(count) {
                return answer;
            }
            state.queue.admits(lane, 0, deadline, Instant::now())?;
        }
        let (judge, of) = (Arc::clone(&self.judge), Arc::clone(&views));
        let place = tokio::time::timeout_at(deadline.into(), self.places.of(lane).acquire_owned()).await;
        let Ok(place) = place else { return Err(Refused::Deadline) };
        let span = tracing::info_span!("prepare");
        let prepared = move || {
            // Held to the end, also where nobody waits for it any more.
            let _place = place;
            span.in_scope(|| prepare(&*judge, &of.views))
        };
        let prepared = match tokio::task::spawn_blocking(prepared).await {
            Ok(prepared) => prepared,
            Err(error) if error.is_cancelled() => return Err(Refused::ShuttingDown),
            Err(_) => {
                tracing::error!(judge = self.judge.card().name, "the judge panicked before its turn");
                return ended();
            }
        };
        let work = prepared.iter().map(|view| view.work).collect();
        let (job, mut told) = Job::new(views, prepared, questions);
        {
            let mut state = self.state();
            if let Some(answer) = state.takes_nothing(count) {
                return answer;
            }
            state.queue.push(lane, Arc::clone(&job), work, deadline, Instant::now())?;
            state.make_way(false);
        }
        self.work.notify_one();
        // Dropped with this future: whoever asked has left.
        let _waits = Waits { seat: self, job: &job };
        tokio::select! {
            answer = &mut told => return answer.unwrap_or_else(|_| ended()),
            () = tokio::time::sleep_until(deadline.into()) => {}
        }
        // What is in the queue is too late; what the judge is at already ends in bounded time.
        if self.state().queue.remove(|other| Arc::ptr_eq(other, &job)) {
            return Err(Refused::Deadline);
        }
        told.await.unwrap_or_else(|_| ended())
    }

    pub(super) fn now(&self) -> SeatState {
        let mut state = self.state();
        SeatState {
            queued: Lane::ALL.map(|lane| state.queue.len(lane)),
            a_view: state.queue.a_view(),
            stuck: state.stuck,
            batches: std::mem::take(&mut state.batches),
            pictures: std::mem::take(&mut state.pictures),
            interrupted: std::mem::take(&mut state.interrupted),
        }
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.state().stuck
    }

    pub(super) fn expected_wait(&self, lane: Lane) -> Duration {
        let state = self.state();
        state.queue.expected_wait(lane) + state.queue.a_view()
    }

    /// Interactive work is on its way to this judge.
    pub(super) fn make_way(&self) {
        self.state().make_way(true);
    }

    pub(super) fn close(&self) {
        self.state().closed = true;
        self.work.notify_all();
    }

    /// The judge's thread, until it is closed and nothing waits.
    pub(super) fn work(&self) {
        stand_back();
        while let Some((batch, stop)) = self.next() {
            let asked: Vec<Asked<'_>> = batch.parts.iter().filter_map(asked).collect();
            let span = self.span(&batch);
            let began = Instant::now();
            let run = || self.judge.judge_batch(&asked, &stop);
            let answers = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|_| {
                tracing::error!(judge = self.judge.card().name, "the judge panicked");
                asked.iter().map(|asked| vec![Err(panicked()); asked.questions.len()]).collect()
            });
            drop(span);
            self.done(batch, answers, began.elapsed());
        }
    }

    /// Of the first job's trace; the others, whose pictures share the run, are linked to it.
    fn span(&self, batch: &Batch<Arc<Job>>) -> tracing::span::EnteredSpan {
        let parent = batch.parts.first().and_then(|(job, _)| job.span.id());
        let (judge, pictures) = (self.judge.card().name.as_str(), batch.parts.len());
        let span = tracing::info_span!(parent: parent.clone(), "judge", judge, pictures);
        for (job, _) in &batch.parts {
            job.begins();
            if job.span.id() != parent {
                span.follows_from(job.span.id());
            }
        }
        span.entered()
    }

    /// Blocks until there is a batch; none where the thread is to end.
    fn next(&self) -> Option<(Batch<Arc<Job>>, Stop)> {
        let mut state = self.state();
        loop {
            let coming = self.coming.load(Ordering::Relaxed) > 0;
            let (late, batch) = state.queue.take(Instant::now(), |job| job.is_over(), coming);
            for job in late {
                job.refuse(Refused::Deadline);
            }
            if let Some(batch) = batch {
                let stop = Stop::default();
                let jobs = batch.parts.iter().map(|(job, _)| Arc::clone(job)).collect();
                let (began, told, interrupted) = (Instant::now(), None, false);
                state.run = Some(Run { jobs, stop: stop.clone(), began, told, interrupted });
                self.turn.notify_one();
                return Some((batch, stop));
            }
            // Shutting down, what is held back is done at once.
            let held = state.queue.len(Lane::Bulk) > 0;
            if state.closed && !held {
                return None;
            }
            state = if held {
                let waited = self.work.wait_timeout(state, HELD_BACK);
                waited.unwrap_or_else(PoisonError::into_inner).0
            } else {
                self.work.wait(state).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }

    fn done(&self, batch: Batch<Arc<Job>>, answers: Vec<Vec<Answer>>, took: Duration) {
        let short = answers.len() < batch.parts.len();
        let done = {
            let mut state = self.state();
            let run = state.run.take();
            let interrupted = run.as_ref().is_some_and(|run| run.interrupted);
            let told = run.is_some_and(|run| run.told.is_some());
            // An interrupted run fails nothing by that; what it did and what else went wrong in it counts.
            let answered = batch.parts.iter().zip(answers);
            let (undone, done): (Vec<_>, Vec<_>) =
                answered.partition(|(_, answers)| interrupted && answers.contains(&Err(Failure::TimedOut)));
            state.stuck = false;
            if undone.is_empty() {
                state.queue.finished((!told).then_some(took));
            } else {
                let undone: Vec<_> = undone.iter().filter(|((job, _), _)| !job.is_over()).collect();
                state.queue.interrupted(|job, view| {
                    undone.iter().any(|((other, at), _)| Arc::ptr_eq(other, job) && *at == view)
                });
                state.interrupted += 1;
            }
            state.batches += u64::from(undone.is_empty() || !done.is_empty());
            state.pictures += done.len() as u64;
            done
        };
        self.turn.notify_one();
        for ((job, view), answers) in done {
            job.found(*view, answers);
        }
        if short {
            let failure = Failure::Runtime("there were fewer answers than pictures".to_owned());
            batch.parts.iter().for_each(|(job, _)| job.fail(&failure));
        }
    }

    /// Never returns; to be aborted when the thread has ended.
    pub(super) async fn watch(self: Arc<Self>, config: SchedulerConfig) {
        loop {
            let until = self.state().run.as_ref().map(|run| match run.told {
                None => run.began + config.judge_timeout,
                Some(told) => told + config.stop_grace,
            });
            match until.filter(|_| !self.is_stuck()) {
                None => self.turn.notified().await,
                Some(until) => tokio::select! {
                    () = self.turn.notified() => {}
                    () = tokio::time::sleep_until(until.into()) => self.overdue(&config),
                },
            }
        }
    }

    fn overdue(&self, config: &SchedulerConfig) {
        let mut state = self.state();
        let Some(run) = &mut state.run else { return };
        match run.told {
            // Another run than the one that was waited for.
            None if run.began.elapsed() < config.judge_timeout => {}
            None => {
                run.tell_to_stop();
                run.jobs.iter().for_each(|job| job.fail(&Failure::TimedOut));
            }
            Some(told) if told.elapsed() < config.stop_grace => {}
            Some(_) => {
                let judge = &self.judge.card().name;
                tracing::error!(judge, "a run did not end when told to stop; the judge counts as stuck");
                run.jobs.iter().for_each(|job| job.fail(&Failure::TimedOut));
                state.stuck = true;
                state.queue.drain().iter().for_each(|job| job.fail(&Failure::TimedOut));
            }
        }
    }
}

fn asked((job, view): &(Arc<Job>, usize)) -> Option<Asked<'_>> {
    let content = job.prepared.get(*view)?.shown.content();
    Some(Asked { content, questions: &job.questions })
}

fn panicked() -> Failure {
    Failure::Runtime("the judge panicked".to_owned())
}

/// Somebody waits for a job, as long as this lives.
struct Waits<'a> {
    seat: &'a Seat,
    job: &'a Arc<Job>,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.job.leave();
        let mut state = self.seat.state();
        state.queue.remove(|other| Arc::ptr_eq(other, self.job));
        if let Some(run) = &mut state.run
            && run.told.is_none()
            && run.jobs.iter().all(|job| job.is_over())
        {
            run.tell_to_stop();
            self.seat.turn.notify_one();
        }
    }
}
