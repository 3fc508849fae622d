//! Bulk runs that make way: with judges that hear it, half hear it or do not, and with those that fail meanwhile.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use shieldgate_models::{
    Answer, Asked, Content, Digest, Failure, Judge, JudgeCard, Modality, Picture, PolicyText, Probability,
    Question, QuestionError, Stop,
};

use super::{Answers, Lane, Refused, Scheduler, SchedulerConfig, Shown, View, Views};
use crate::verdict::{Form, WindowAt, Worst};

/// What the judge does with bulk texts, each of which takes it [`A_TEXT`]; others are answered at once.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Hears,
    Deaf,
    /// Told to stop, it fails for another reason.
    Breaks,
    /// Told to stop, it gives NaN.
    Nan,
    /// Does not end before the second is over, and hears nothing.
    Hangs,
}

const A_TEXT: Duration = Duration::from_millis(400);

struct Acting {
    card: JudgeCard,
    way: Way,
    /// The texts of every run, in order.
    runs: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Judge for Acting {
    fn card(&self) -> &JudgeCard {
        &self.card
    }

    fn question(&self, _: &PolicyText<'_>) -> Result<Question, QuestionError> {
        Ok(Question::new("bulk?".to_owned(), 1.0, 0.0))
    }

    fn batch_max(&self) -> usize {
        4
    }

    fn work(&self, _: Content<'_>) -> usize {
        1
    }

    fn reduced(&self, _: &Picture) -> Option<Picture> {
        None
    }

    fn judge_batch(&self, batch: &[Asked<'_>], stop: &Stop) -> Vec<Vec<Answer>> {
        let texts: Vec<&str> = batch
            .iter()
            .map(|asked| match asked.content {
                Content::Text(text) => text,
                Content::Picture(_) => "a picture",
            })
            .collect();
        let texts_of_run = texts.iter().map(|text| (*text).to_owned()).collect();
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).push(texts_of_run);
        let good = || Ok(Probability::try_from(0.25).expect("it is one"));
        texts
            .iter()
            .map(|text| vec![if text.starts_with("bulk") { self.bulk(stop) } else { good() }])
            .collect()
    }
}

impl Acting {
    fn bulk(&self, stop: &Stop) -> Answer {
        let began = Instant::now();
        let takes = if self.way == Way::Hangs { A_TEXT * 10 } else { A_TEXT };
        while began.elapsed() < takes {
            std::thread::sleep(Duration::from_millis(1));
            match self.way {
                Way::Deaf | Way::Hangs => {}
                _ if !stop.is_raised() => {}
                Way::Hears => return Err(Failure::TimedOut),
                Way::Breaks => return Err(Failure::Runtime("out of memory".to_owned())),
                Way::Nan => return Err(Failure::NotAProbability("NaN".to_owned())),
            }
        }
        Ok(Probability::try_from(0.75).expect("it is one"))
    }
}

struct Stage {
    scheduler: Arc<Scheduler>,
    runs: Arc<Mutex<Vec<Vec<String>>>>,
}

const CONFIG: SchedulerConfig = SchedulerConfig {
    queue_max: 8,
    judge_timeout: Duration::from_secs(2),
    stop_grace: Duration::from_millis(200),
    batch_target: Duration::from_secs(2),
    bulk_share: 0.0,
};

impl Stage {
    fn set(way: Way) -> Self {
        let card = JudgeCard {
            name: "acting".to_owned(),
            kind: "acting",
            modality: Modality::Text,
            digest: Digest::of(b"acting"),
            demo: true,
        };
        let runs = Arc::default();
        let judge = Acting { card, way, runs: Arc::clone(&runs) };
        let scheduler = Scheduler::start(vec![Box::new(judge)], CONFIG).expect("threads start");
        Self { scheduler: Arc::new(scheduler), runs }
    }

    /// On its way to the judge from here on.
    fn ask(
        &self,
        lane: Lane,
        texts: &[&str],
        patience: Duration,
    ) -> tokio::task::JoinHandle<Result<Answers, Refused>> {
        let view = |text: &&str| View {
            shown: Shown::Text((*text).into()),
            place: Worst::Window(WindowAt { start: 0, end: 1, form: Form::Written }),
        };
        let views = Arc::new(Views { views: texts.iter().map(view).collect(), memory: None });
        let (scheduler, deadline) = (Arc::clone(&self.scheduler), Instant::now() + patience);
        let questions = vec![Question::new("bulk?".to_owned(), 1.0, 0.0)];
        tokio::spawn(async move { scheduler.ask("acting", lane, views, questions, deadline).await })
    }

    fn runs(&self) -> Vec<Vec<String>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Until so many runs have begun.
    async fn begun(&self, runs: usize) {
        let until = Instant::now() + LONG;
        while self.runs().len() < runs {
            assert!(Instant::now() < until, "{runs} runs never began");
            a_moment().await;
        }
    }

    /// Since the last look.
    fn interrupted(&self) -> u64 {
        self.scheduler.seats().map(|seat| seat.interrupted).sum()
    }
}

const LONG: Duration = Duration::from_secs(30);

async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

/// The one question's answer.
async fn answer(asked: tokio::task::JoinHandle<Result<Answers, Refused>>) -> Result<f32, Failure> {
    let answers = asked.await.expect("it ends").expect("it is not refused");
    assert_eq!(answers.len(), 1);
    answers.into_iter().next().expect("there is one").map(|scored| scored.probability.get())
}

#[tokio::test]
async fn an_interrupted_job_is_done_again_and_nobody_sees_it() {
    let stage = Stage::set(Way::Hears);
    let bulk = stage.ask(Lane::Bulk, &["bulk 1"], LONG);
    stage.begun(1).await;
    let since = Instant::now();
    let interactive = stage.ask(Lane::Interactive, &["now"], LONG);
    assert_eq!(answer(interactive).await, Ok(0.25));
    assert!(since.elapsed() < A_TEXT / 2, "it waited for bulk work: {:?}", since.elapsed());
    assert_eq!(answer(bulk).await, Ok(0.75), "an interruption is no failure");
    assert_eq!(stage.runs(), [["bulk 1"], ["now"], ["bulk 1"]]);
    assert_eq!(stage.interrupted(), 1);
    let runs = stage.scheduler.seats().map(|seat| seat.run).max().expect("there is one");
    // An eighth of what the whole bulk run took on top of the interactive one's nothing.
    assert!(runs > A_TEXT / 16 && runs < A_TEXT, "the interrupted run was measured: {runs:?}");
}

#[tokio::test]
async fn bulk_work_makes_way_when_interactive_work_is_only_coming() {
    let stage = Stage::set(Way::Hears);
    let bulk = stage.ask(Lane::Bulk, &["bulk 1"], LONG);
    stage.begun(1).await;
    let announced = stage.scheduler.announce();
    stage.scheduler.make_way(["acting", "another"].into_iter());
    while stage.interrupted() == 0 {
        a_moment().await;
    }
    let since = Instant::now();
    assert_eq!(answer(stage.ask(Lane::Interactive, &["now"], LONG)).await, Ok(0.25));
    assert!(since.elapsed() < A_TEXT / 2, "it waited for bulk work: {:?}", since.elapsed());
    drop(announced);
    assert_eq!(answer(bulk).await, Ok(0.75));
}

#[tokio::test]
async fn bulk_work_gets_on_however_much_interactive_work_comes() {
    let stage = Stage::set(Way::Hears);
    let bulk = stage.ask(Lane::Bulk, &["bulk 1"], LONG);
    for asked in 0..5 {
        stage.begun(2 * asked + 1).await;
        assert_eq!(answer(stage.ask(Lane::Interactive, &["now"], LONG)).await, Ok(0.25));
    }
    assert_eq!(answer(bulk).await, Ok(0.75));
    assert_eq!(stage.interrupted(), 4);
    assert_eq!(stage.runs().iter().filter(|run| run[0] == "bulk 1").count(), 5);
}

#[tokio::test]
async fn what_fails_while_it_is_interrupted_has_failed() {
    for (way, failure) in [
        (Way::Breaks, Failure::Runtime("out of memory".to_owned())),
        (Way::Nan, Failure::NotAProbability("NaN".to_owned())),
    ] {
        let stage = Stage::set(way);
        let bulk = stage.ask(Lane::Bulk, &["bulk 1"], LONG);
        stage.begun(1).await;
        assert_eq!(answer(stage.ask(Lane::Interactive, &["now"], LONG)).await, Ok(0.25));
        assert_eq!(answer(bulk).await, Err(failure));
        assert_eq!(stage.interrupted(), 0);
    }
}

#[tokio::test]
async fn a_judge_that_does_not_hear_it_has_done_its_work() {
    let stage = Stage::set(Way::Deaf);
    let bulk = stage.ask(Lane::Bulk, &["bulk 1"], LONG);
    stage.begun(1).await;
    assert_eq!(answer(stage.ask(Lane::Interactive, &["now"], LONG)).await, Ok(0.25));
    assert_eq!(answer(bulk).await, Ok(0.75));
    assert_eq!(stage.runs(), [["bulk 1"], ["now"]]);
    assert_eq!((stage.interrupted(), stage.scheduler.stuck().len()), (0, 0));
}

#[tokio::test]
async fn an_interrupted_run_that_hangs_is_a_judge_that_hangs() {
    let stage = Stage::set(Way::Hangs);
    let bulk = stage.ask(Lane::Bulk, &["bulk 1"], LONG);
    stage.begun(1).await;
    let since = Instant::now();
    let interactive = stage.ask(Lane::Interactive, &["now"], LONG);
    assert_eq!(answer(bulk).await, Err(Failure::TimedOut));
    assert_eq!(answer(interactive).await, Err(Failure::TimedOut));
    assert!(since.elapsed() < CONFIG.judge_timeout * 2, "{:?}", since.elapsed());
    assert_eq!(stage.scheduler.stuck(), ["acting"]);
    // It comes back, and what it was at is not done again.
    while !stage.scheduler.stuck().is_empty() {
        a_moment().await;
    }
    assert_eq!(answer(stage.ask(Lane::Interactive, &["then"], LONG)).await, Ok(0.25));
    assert_eq!(stage.runs(), [["bulk 1"], ["then"]]);
    assert_eq!(stage.interrupted(), 0);
}

#[tokio::test]
async fn an_interrupted_job_is_too_late_when_its_time_is_up_and_not_failed() {
    let stage = Stage::set(Way::Hears);
    let bulk = stage.ask(Lane::Bulk, &["bulk 1"], A_TEXT / 2);
    stage.begun(1).await;
    let announced = stage.scheduler.announce();
    stage.scheduler.make_way(["acting"].into_iter());
    assert_eq!(bulk.await.expect("it ends"), Err(Refused::Deadline));
    drop(announced);
    assert_eq!(stage.runs().len(), 1);
}

#[tokio::test]
async fn of_an_interrupted_batch_only_what_was_not_done_is_done_again() {
    let stage = Stage::set(Way::Hears);
    // The speed is known from here on, so that texts share a run.
    assert_eq!(answer(stage.ask(Lane::Interactive, &["first"], LONG)).await, Ok(0.25));
    let bulk = stage.ask(Lane::Bulk, &["quick", "bulk 1", "bulk 2"], LONG);
    stage.begun(2).await;
    assert_eq!(answer(stage.ask(Lane::Interactive, &["now"], LONG)).await, Ok(0.25));
    assert_eq!(answer(bulk).await, Ok(0.75));
    let runs = stage.runs();
    assert_eq!(runs[1], ["quick", "bulk 1", "bulk 2"]);
    assert_eq!(runs[2], ["now"]);
    assert_eq!(runs[3..].concat(), ["bulk 1", "bulk 2"], "{runs:?}");
}

#[tokio::test]
async fn who_leaves_while_it_is_interrupted_is_not_done_again() {
    let stage = Stage::set(Way::Hears);
    let bulk = stage.ask(Lane::Bulk, &["bulk 1"], LONG);
    stage.begun(1).await;
    let announced = stage.scheduler.announce();
    stage.scheduler.make_way(["acting"].into_iter());
    bulk.abort();
    assert!(bulk.await.is_err_and(|error| error.is_cancelled()));
    drop(announced);
    assert_eq!(answer(stage.ask(Lane::Interactive, &["now"], LONG)).await, Ok(0.25));
    assert_eq!(answer(stage.ask(Lane::Bulk, &["bulk 2"], LONG)).await, Ok(0.75));
    assert_eq!(stage.runs(), [["bulk 1"], ["now"], ["bulk 2"]]);
}
