//! Between requests and judges: one thread and one bounded queue a judge, deadlines, and a watch on hung runs.
//!
//! A judge's time is bounded twice. The request's deadline covers waiting: a request that is still in the
//! queue when its deadline passes is answered [`Refused::Deadline`] (503), for the service is too slow,
//! not the judge. The judge's own time covers the run: past it the run is told to stop and the answer is
//! [`Failure::TimedOut`], which is for the policy's `on_error`. A run that does not end even then is left
//! alone, and the judge answers [`Failure::TimedOut`] at once until its thread comes back. It is all the
//! same why the run was told to stop: a client that left counts like a judge's time that was up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use shieldgate_models::{Answer, Failure, Judge, JudgeCard, Probability, Question, Stop};
use tokio::sync::{mpsc, oneshot};

use crate::media::View;
use crate::verdict::Worst;

#[derive(Debug, Clone, Copy)]
pub struct SchedulerConfig {
    /// Requests waiting for one judge; more are refused with [`Refused::Full`].
    pub queue_max: usize,
    /// How long one judge may take for one content.
    pub judge_timeout: Duration,
    /// How long a run may go on after it was told to stop before its judge counts as stuck.
    pub stop_grace: Duration,
}

/// Why a judge was not even asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the queue of a judge is full")]
    Full,
    #[error("the deadline passed before a judge was free")]
    Deadline,
    #[error("the service is shutting down")]
    ShuttingDown,
}

/// One judge's answer to one question about all views of a content.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    pub probability: Probability,
    pub worst: Worst,
}

/// In the order of the questions.
pub type Answers = Vec<Result<Scored, Failure>>;

struct Job {
    views: Arc<[View]>,
    questions: Vec<Question>,
    deadline: Instant,
    stop: Stop,
    told: Told,
    /// Told when the run begins, so that waiting and running are timed apart.
    began: oneshot::Sender<()>,
    answer: oneshot::Sender<Result<Answers, Refused>>,
}

struct Seat {
    judge: Arc<dyn Judge>,
    queue: Mutex<Option<mpsc::Sender<Job>>>,
    running: Running,
    /// Smoothed duration of a run in microseconds; 0 before the first.
    run_us: Arc<AtomicU64>,
}

/// When a run was told to stop.
type Told = Arc<OnceLock<Instant>>;

/// The run under way on a judge's thread.
#[derive(Clone, Default)]
struct Running(Arc<Mutex<Option<Told>>>);

impl Running {
    fn set(&self, run: Option<Told>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = run;
    }

    /// For how long it has been going on after it was told to stop.
    fn overdue(&self) -> Option<Duration> {
        let run = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        run.as_ref()?.get().map(Instant::elapsed)
    }
}

/// How often those who wait for a judge look whether it is stuck.
const LOOK: Duration = Duration::from_millis(250);

/// All judges of this process.
pub struct Scheduler {
    seats: BTreeMap<String, Seat>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    config: SchedulerConfig,
}

impl Scheduler {
    pub fn start(judges: Vec<Box<dyn Judge>>, config: SchedulerConfig) -> std::io::Result<Self> {
        let mut seats = BTreeMap::new();
        let mut threads = Vec::new();
        for judge in judges {
            let judge: Arc<dyn Judge> = judge.into();
            let (sender, receiver) = mpsc::channel(config.queue_max.max(1));
            let running = Running::default();
            let run_us = Arc::new(AtomicU64::new(0));
            let (name, at, us) = (judge.card().name.clone(), Arc::clone(&judge), Arc::clone(&run_us));
            let run = running.clone();
            threads.push(
                std::thread::Builder::new()
                    .name(format!("judge {name}"))
                    .spawn(move || work(&*at, receiver, &run, &us))?,
            );
            seats.insert(name, Seat { judge, queue: Mutex::new(Some(sender)), running, run_us });
        }
        Ok(Self { seats, threads: Mutex::new(threads), config })
    }

    pub fn judge(&self, name: &str) -> Option<&dyn Judge> {
        self.seats.get(name).map(|seat| &*seat.judge)
    }

    pub fn cards(&self) -> impl Iterator<Item = &JudgeCard> {
        self.seats.values().map(|seat| seat.judge.card())
    }

    /// Names of the judges whose run was told to stop and has not ended.
    pub fn stuck(&self) -> Vec<&str> {
        self.seats.iter().filter(|(_, seat)| self.is_stuck(seat)).map(|(name, _)| name.as_str()).collect()
    }

    fn is_stuck(&self, seat: &Seat) -> bool {
        seat.running.overdue().is_some_and(|overdue| overdue >= self.config.stop_grace)
    }

    /// How long one more request would wait and run, from what was measured; at least a second.
    pub fn expected_wait(&self) -> Duration {
        let waits = self.seats.values().map(|seat| {
            let queued = seat
                .queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .as_ref()
                .map_or(0, |queue| queue.max_capacity() - queue.capacity());
            Duration::from_micros(seat.run_us.load(Ordering::Relaxed)).saturating_mul(queued as u32 + 1)
        });
        waits.max().unwrap_or_default().clamp(Duration::from_secs(1), Duration::from_secs(120))
    }

    /// Asks `name` all `questions` about all `views`.
    pub async fn ask(
        &self,
        name: &str,
        views: Arc<[View]>,
        questions: Vec<Question>,
        deadline: Instant,
    ) -> Result<Answers, Refused> {
        let timed_out = |count: usize| Ok(vec![Err(Failure::TimedOut); count]);
        let count = questions.len();
        let Some(seat) = self.seats.get(name) else {
            let gone = Failure::Runtime(format!("judge `{name}` is not installed"));
            return Ok(vec![Err(gone); count]);
        };
        if self.is_stuck(seat) {
            return timed_out(count);
        }
        let (began, mut has_begun) = oneshot::channel();
        let (answer, mut answered) = oneshot::channel();
        // Raised when this future is dropped as well: nobody waits for the run any more.
        let stop = RaiseOnDrop { stop: Stop::default(), told: Told::default() };
        let (raised, told) = (stop.stop.clone(), Arc::clone(&stop.told));
        let job = Job { views, questions, deadline, stop: raised, told, began, answer };
        let queue = seat.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match queue.ok_or(Refused::ShuttingDown)?.try_send(job) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(Refused::Full),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Refused::ShuttingDown),
        }
        loop {
            tokio::select! {
                begun = &mut has_begun => match begun {
                    Ok(()) => break,
                    // The thread dropped the job without beginning it: its answer says why.
                    Err(_) => return answered.await.unwrap_or(Err(Refused::Deadline)),
                },
                () = tokio::time::sleep_until(deadline.into()) => return Err(Refused::Deadline),
                // The run before it may turn out to be stuck.
                () = tokio::time::sleep(LOOK) => if self.is_stuck(seat) { return timed_out(count) },
            }
        }
        if let Ok(answer) = tokio::time::timeout(self.config.judge_timeout, &mut answered).await {
            return answer.unwrap_or_else(|_| Ok(vec![Err(panicked()); count]));
        }
        stop.raise();
        if tokio::time::timeout(self.config.stop_grace, &mut answered).await.is_err() {
            tracing::error!(judge = name, "a run did not end when told to stop; the judge counts as stuck");
        }
        timed_out(count)
    }

    /// Lets every queued job finish, then ends the threads; a stuck one is left behind.
    pub async fn shut_down(&self, grace: Duration) {
        for seat in self.seats.values() {
            seat.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let until = Instant::now() + grace;
        for thread in threads {
            while !thread.is_finished() && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

fn panicked() -> Failure {
    Failure::Runtime("the judge panicked".to_owned())
}

struct RaiseOnDrop {
    stop: Stop,
    told: Told,
}

impl RaiseOnDrop {
    fn raise(&self) {
        self.told.get_or_init(Instant::now);
        self.stop.raise();
    }
}

impl Drop for RaiseOnDrop {
    fn drop(&mut self) {
        self.raise();
    }
}

/// The judge's thread.
fn work(judge: &dyn Judge, mut queue: mpsc::Receiver<Job>, running: &Running, run_us: &AtomicU64) {
    while let Some(job) = queue.blocking_recv() {
        if job.answer.is_closed() || job.stop.is_raised() {
            continue;
        }
        if Instant::now() >= job.deadline {
            // The receiver may have gone in the meantime; then nobody needs the answer.
            drop(job.answer.send(Err(Refused::Deadline)));
            continue;
        }
        running.set(Some(job.told));
        if job.began.send(()).is_err() {
            running.set(None);
            continue;
        }
        let began = Instant::now();
        let run = || views_judged(judge, &job.views, &job.questions, &job.stop);
        let answers = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|_| {
            tracing::error!(judge = judge.card().name, "the judge panicked");
            vec![Err(panicked()); job.questions.len()]
        });
        let took = began.elapsed().as_micros().min(u128::from(u64::MAX)) as u64;
        let before = run_us.load(Ordering::Relaxed);
        run_us.store(if before == 0 { took } else { (before * 7 + took) / 8 }, Ordering::Relaxed);
        running.set(None);
        drop(job.answer.send(Ok(answers)));
    }
}

/// The worst view decides; a failure in any view fails the question, for an unscored view is never safe.
fn views_judged(judge: &dyn Judge, views: &[View], questions: &[Question], stop: &Stop) -> Answers {
    let mut worst: Vec<Option<Result<Scored, Failure>>> = vec![None; questions.len()];
    for view in views {
        let mut answers: Vec<Answer> = judge.judge(&view.picture, questions, stop);
        if answers.len() != questions.len() {
            let short = format!("{} answers to {} questions", answers.len(), questions.len());
            answers = vec![Err(Failure::Runtime(short)); questions.len()];
        }
        let at = Worst { frame: view.frame, at_ms: view.at_ms, background: view.background };
        for (worst, answer) in worst.iter_mut().zip(answers) {
            *worst = Some(match (worst.take(), answer) {
                (Some(Err(failure)), _) | (_, Err(failure)) => Err(failure),
                (Some(Ok(before)), Ok(probability)) if before.probability >= probability => Ok(before),
                (_, Ok(probability)) => Ok(Scored { probability, worst: at.clone() }),
            });
        }
    }
    let unseen = || Err(Failure::Runtime("there was nothing to look at".to_owned()));
    worst.into_iter().map(|worst| worst.unwrap_or_else(unseen)).collect()
}
