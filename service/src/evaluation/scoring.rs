//! A row through what an upload goes through: looked at, judged in batches with other rows, decided.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shieldgate_models::{Digest, Failure, Judge, JudgeCard, Question};

use super::Content;
use crate::decoders::{DecodeError, Decoders, Place, Program};
use crate::media::{Limits, MediaError};
use crate::moderate::decide::{self, Answered};
use crate::moderate::views;
use crate::policy::Modality;
use crate::policy::active::ActivePolicy;
use crate::scheduler::{Lane, Refused, Scheduler, SchedulerConfig, Scored, Views};
use crate::text::{self, TextError};
use crate::verdict::PolicyAnswer;

/// As `serve` has it where nothing else is said.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// Texts under way at once: two full batches.
const TEXTS_AT_ONCE: usize = 64;

/// Pictures under way at once; each may hold as much memory as a decoder may take.
const PICTURES_AT_ONCE: usize = 8;

/// Nobody waits for a single row: only what never ends is given up.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// A batch of a large model on a slow machine takes minutes.
const RUN_TIME_MAX: Duration = Duration::from_secs(3600);

/// Judges that answer rows, and the policies they are asked for.
pub struct Judging {
    scheduler: Scheduler,
    policies: Vec<ActivePolicy>,
    /// By judge.
    questions: BTreeMap<String, Vec<Question>>,
    /// For pictures.
    decoders: Option<Decoders>,
    limits: Limits,
}

/// What became of one row.
#[derive(Debug, Clone, PartialEq)]
pub enum RowAnswer {
    /// Of each policy the answer, or why there is none.
    Judged(Vec<Result<PolicyAnswer, String>>),
    /// The gate would refuse it.
    Refused(String),
}

/// Nothing can be evaluated any more.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    #[error("the judges' threads can't be started")]
    Threads(#[source] io::Error),
    #[error("no decoder could be started; `shieldgate doctor` tries it too")]
    Decoders(#[source] io::Error),
    #[error("a row could not be judged")]
    Refused(#[from] Refused),
    #[error("`{}` can't be read", path.display())]
    Read {
        path: std::path::PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("a task of the evaluation ended before its time")]
    TaskGone,
}

impl Judging {
    /// `policies` are all of one modality.
    pub async fn start(
        judges: Vec<Box<dyn Judge>>,
        policies: Vec<ActivePolicy>,
        modality: Modality,
    ) -> Result<Self, ScoreError> {
        let config = SchedulerConfig {
            queue_max: TEXTS_AT_ONCE,
            judge_timeout: RUN_TIME_MAX,
            stop_grace: Duration::from_secs(60),
            batch_target: Duration::from_secs(10),
            bulk_share: 0.0,
        };
        let scheduler = Scheduler::start(judges, config).map_err(ScoreError::Threads)?;
        let mut questions: BTreeMap<String, Vec<Question>> = BTreeMap::new();
        for asked in policies.iter().flat_map(|active| &active.asked) {
            let of_judge = questions.entry(asked.judge.name.clone()).or_default();
            if !of_judge.iter().any(|other| other.hash == asked.question.hash) {
                of_judge.push(asked.question.clone());
            }
        }
        let limits = Limits::default();
        let decoders = match modality {
            Modality::Text => None,
            Modality::Image => {
                let started = async { Decoders::start(Program::own()?, PICTURES_AT_ONCE, limits).await };
                Some(started.await.map_err(ScoreError::Decoders)?.0)
            }
        };
        Ok(Self { scheduler, policies, questions, decoders, limits })
    }

    pub fn policies(&self) -> &[ActivePolicy] {
        &self.policies
    }

    pub fn card(&self, judge: &str) -> Option<&JudgeCard> {
        self.scheduler.judge(judge).map(|judge| judge.card())
    }

    /// How many rows are to be under way, so that batches are full and memory is bounded.
    pub fn at_once(&self) -> usize {
        if self.decoders.is_some() { PICTURES_AT_ONCE } else { TEXTS_AT_ONCE }
    }

    pub async fn answer(&self, content: &Content) -> Result<RowAnswer, ScoreError> {
        let deadline = Instant::now() + PATIENCE;
        // A decoder's place is held until the picture is judged, and with it the memory.
        let (views, _place) = match self.look(content, deadline).await? {
            Ok(found) => found,
            Err(reason) => return Ok(RowAnswer::Refused(reason)),
        };
        let asking = self.questions.iter().map(|(judge, questions)| {
            let views = Arc::clone(&views);
            async move {
                let asked = self.scheduler.ask(judge, Lane::Interactive, views, questions.clone(), deadline);
                let answers = asked.await?;
                let found = questions.iter().map(|question| question.hash).zip(answers);
                Ok::<_, Refused>(found.map(move |(hash, answer)| ((judge.as_str(), hash), answer)))
            }
        });
        let found: HashMap<(&str, Digest), Result<Scored, Failure>> =
            futures_util::future::try_join_all(asking).await?.into_iter().flatten().collect();
        Ok(RowAnswer::Judged(self.policies.iter().map(|active| self.decide(active, &found)).collect()))
    }

    /// What judges are shown, or why the gate would show them nothing.
    async fn look(
        &self,
        content: &Content,
        deadline: Instant,
    ) -> Result<Result<(Arc<Views>, Option<Place>), String>, ScoreError> {
        let file = match content {
            Content::Text(text) => {
                let looked = text::look(text.as_bytes(), TEXT_BYTES_MAX);
                let shown = looked.map(|looked| (Arc::new(views::of_text(looked.views)), None));
                return Ok(shown.map_err(|error: TextError| error.to_string()));
            }
            Content::Picture(file) => file,
        };
        let decoders = self.decoders.as_ref().ok_or(ScoreError::TaskGone)?;
        let (path, bytes_max) = (file.clone(), self.limits.bytes_max);
        let bytes = tokio::task::spawn_blocking(move || read(&path, bytes_max))
            .await
            .map_err(|_| ScoreError::TaskGone)?
            .map_err(|source| ScoreError::Read { path: file.clone(), source })?;
        match decoders.look(bytes, Lane::Interactive, deadline).await {
            Ok((looked, place)) => Ok(Ok((Arc::new(views::of_picture(looked.views, None)), Some(place)))),
            Err(DecodeError::Media(error)) => Ok(Err(MediaError::to_string(&error))),
            Err(DecodeError::Deadline) => Err(Refused::Deadline.into()),
            Err(DecodeError::Unavailable(error)) => Err(ScoreError::Decoders(error)),
        }
    }

    /// As the gate decides, but that a judge which failed is no answer, whatever `on_error` makes of it.
    fn decide(
        &self,
        active: &ActivePolicy,
        found: &HashMap<(&str, Digest), Result<Scored, Failure>>,
    ) -> Result<PolicyAnswer, String> {
        let mut answered = Vec::with_capacity(active.asked.len());
        for asked in &active.asked {
            let judge = asked.judge.name.as_str();
            let unasked = || Failure::Runtime("the judge was not asked".to_owned());
            let result = found.get(&(judge, asked.question.hash)).cloned().unwrap_or_else(|| Err(unasked()));
            let card = self.card(judge).ok_or_else(|| format!("judge `{judge}` is not installed"))?;
            if let Err(failure) = &result {
                return Err(format!("judge `{judge}`: {failure}"));
            }
            answered.push(Answered { card, result, recalled: false, computed_on: None });
        }
        decide::decide(active, answered).map_err(|undecided| undecided.to_string())
    }

    pub async fn shut_down(&self) {
        self.scheduler.shut_down(Duration::from_secs(5)).await;
    }
}

/// One byte more than is taken says enough of what is too long.
fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}
