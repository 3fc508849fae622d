//! Between requests and judges: one thread and one bounded queue a judge, batches, lanes and deadlines. What of a
//! judge's work needs no turn is done before a content waits, on other threads ([`prepared`]).
//!
//! A job's time is bounded twice. The request's deadline covers waiting: a job that is still in the queue
//! when it passes, or that by all that was measured can't be done before it, is refused with
//! [`Refused::Deadline`] (503), for the service is too slow, not the judge. The judge's own time covers
//! each of its runs ([`seat`]).

#[cfg(test)]
mod interruptions;
mod job;
mod prepared;
mod queue;
mod seat;
#[cfg(test)]
mod simulation;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use shieldgate_models::{Failure, Judge, JudgeCard, Question};

pub use self::job::{Answers, Scored, Shown, View, Views};
use self::prepared::Places;
pub use self::queue::Lane;
use self::seat::Seat;

#[derive(Debug, Clone, Copy)]
pub struct SchedulerConfig {
    /// Jobs waiting in one lane of one judge; more are refused with [`Refused::Full`].
    pub queue_max: usize,
    /// How long one run of a judge may take.
    pub judge_timeout: Duration,
    /// How long a run may go on after it was told to stop before its judge counts as stuck.
    pub stop_grace: Duration,
    /// How long a batch should take: what does not fit into it waits for the next.
    pub batch_target: Duration,
    /// Of a judge's time that bulk work gets while interactive work waits; 0 to below 1.
    pub bulk_share: f64,
}

/// Why a judge was not even asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the queue of a judge is full")]
    Full,
    #[error("the deadline passed before a judge was free, or would have")]
    Deadline,
    #[error("the service is shutting down")]
    ShuttingDown,
}

/// One judge as it is now, for metrics.
#[derive(Debug, Clone, Copy)]
pub struct SeatNow<'a> {
    pub name: &'a str,
    /// Jobs that wait, by lane as in [`Lane::ALL`].
    pub queued: [usize; 2],
    /// Smoothed time a picture or window.
    pub run: Duration,
    pub stuck: bool,
    /// Batches, and pictures or windows in them, since the last look.
    pub batches: u64,
    pub pictures: u64,
    /// Batches that were interrupted and are done again, since the last look.
    pub interrupted: u64,
}

/// All judges of this process.
pub struct Scheduler {
    seats: BTreeMap<String, Arc<Seat>>,
    threads: Mutex<Vec<Working>>,
    coming: Arc<AtomicUsize>,
}

/// An interactive submission under way.
pub struct Announced(Arc<AtomicUsize>);

impl Drop for Announced {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Working {
    seat: Arc<Seat>,
    thread: std::thread::JoinHandle<()>,
    watch: tokio::task::JoinHandle<()>,
}

impl Scheduler {
    /// To be called on an async runtime: the watch on hung runs lives there.
    pub fn start(judges: Vec<Box<dyn Judge>>, config: SchedulerConfig) -> std::io::Result<Self> {
        let coming = Arc::new(AtomicUsize::new(0));
        let places = Places::new(std::thread::available_parallelism().map_or(1, usize::from));
        let mut seats = BTreeMap::new();
        let mut threads = Vec::new();
        for judge in judges {
            let seat = Seat::new(judge.into(), &config, Arc::clone(&coming), places.clone());
            let name = seat.judge.card().name.clone();
            let working = Arc::clone(&seat);
            let thread =
                std::thread::Builder::new().name(format!("judge {name}")).spawn(move || working.work())?;
            let watch = tokio::spawn(Arc::clone(&seat).watch(config));
            threads.push(Working { seat: Arc::clone(&seat), thread, watch });
            seats.insert(name, seat);
        }
        Ok(Self { seats, threads: Mutex::new(threads), coming })
    }

    /// Says that an interactive submission is on its way, until what is returned is dropped: bulk work
    /// stands back meanwhile.
    pub fn announce(&self) -> Announced {
        self.coming.fetch_add(1, Ordering::Relaxed);
        Announced(Arc::clone(&self.coming))
    }

    /// Says that these judges are about to be asked something interactive, so that a bulk run ends now and
    /// not when that has been decoded.
    pub fn make_way<'a>(&self, names: impl Iterator<Item = &'a str>) {
        names.filter_map(|name| self.seats.get(name)).for_each(|seat| seat.make_way());
    }

    pub fn judge(&self, name: &str) -> Option<&dyn Judge> {
        self.seats.get(name).map(|seat| &*seat.judge)
    }

    pub fn cards(&self) -> impl Iterator<Item = &JudgeCard> {
        self.seats.values().map(|seat| seat.judge.card())
    }

    /// Names of the judges whose run was told to stop and has not ended.
    pub fn stuck(&self) -> Vec<&str> {
        let stuck = self.seats.iter().filter(|(_, seat)| seat.is_stuck());
        stuck.map(|(name, _)| name.as_str()).collect()
    }

    pub fn seats(&self) -> impl Iterator<Item = SeatNow<'_>> {
        self.seats.iter().map(|(name, seat)| {
            let now = seat.now();
            SeatNow {
                name,
                queued: now.queued,
                run: now.a_view,
                stuck: now.stuck,
                batches: now.batches,
                pictures: now.pictures,
                interrupted: now.interrupted,
            }
        })
    }

    /// How long one more job would wait and run, from what was measured; at least a second.
    pub fn expected_wait(&self, lane: Lane) -> Duration {
        let waits = self.seats.values().map(|seat| seat.expected_wait(lane));
        waits.max().unwrap_or_default().clamp(Duration::from_secs(1), Duration::from_secs(120))
    }

    /// Asks `name` all `questions` about all `views`.
    pub async fn ask(
        &self,
        name: &str,
        lane: Lane,
        views: Arc<Views>,
        questions: Vec<Question>,
        deadline: Instant,
    ) -> Result<Answers, Refused> {
        match self.seats.get(name) {
            Some(seat) => seat.ask(lane, views, questions, deadline).await,
            None => {
                let gone = Failure::Runtime(format!("judge `{name}` is not installed"));
                Ok(vec![Err(gone); questions.len()])
            }
        }
    }

    /// Lets every queued job finish, then ends the threads; a stuck one is left behind.
    pub async fn shut_down(&self, grace: Duration) {
        self.seats.values().for_each(|seat| seat.close());
        let working = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let until = Instant::now() + grace;
        for Working { seat, thread, watch } in working {
            while !thread.is_finished() && !seat.is_stuck() && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            watch.abort();
        }
    }
}
