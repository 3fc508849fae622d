//! The one path from bytes to a recorded verdict: bytes in; a recorded verdict out, or an error that
//! recorded no verdict.
//!
//! 1. *identify*: hash the bytes, bind id and time.
//! 2. *admit*: one look at the store for a replay, overrides and whether the policies at hand are stale.
//! 3. *look*: decode within the limits, off the async threads; what will be scanned is stated.
//! 4. *recall or judge*: judgements on record are taken, the rest is asked, one job a judge.
//! 5. *decide*: pure ([`decide`]); failures meet `on_error` there and nowhere else.
//! 6. *keep*: the original is stored before the verdict commits, if it is to be kept at all.
//! 7. *record*: one transaction ([`record`]); Postgres away → an error, never a verdict.
//! 8. *answer* with what was read back from the record.
//!
//! Every `.await` may be the last (the client leaves). Before 7 that costs nothing; in 7 the transaction
//! rolls back; if the connection dies during commit the answer is an error, and a retry under the same
//! idempotency key finds out. No database connection is held while a judge works.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use shieldgate_models::{Failure, Probability, Question};
use time::OffsetDateTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

use self::decide::{Answered, Breach, Undecided};
use self::record::Recording;
use crate::media::{self, Limits, Looked, MediaError};
use crate::policy::Modality;
use crate::policy::active::ActivePolicy;
use crate::scheduler::{Refused, Scheduler, Scored, Views};
use crate::store::idempotency::Recorded;
use crate::store::judgements::{self, Judgement};
use crate::store::overrides::Override;
use crate::store::{self, Store, StoreError, admission, verdicts};
use crate::timestamp;
use crate::verdict::{
    Action, ComputedOn, Content, Outcome, PolicyAnswer, PolicyNotRun, Status, Verdict, Worst,
};

pub mod decide;
pub mod policies;
mod record;

pub use policies::PolicyCache;

/// What is submitted; uploads, rescans and the OpenAI endpoint differ only in the values they fill in.
#[derive(Debug)]
pub struct Submission {
    pub original: Original,
    pub project: String,
    /// Where idempotency keys are scoped: `POST /v1/images`.
    pub route: &'static str,
    /// `upload`.
    pub source: &'static str,
    pub key_id: Option<Uuid>,
    /// Who is on record as having submitted: `key:<name>`.
    pub actor: String,
    /// Only these policies; all active ones where absent.
    pub policies: Option<Vec<String>>,
    pub reference: Option<String>,
    pub subject: Option<String>,
    /// A JSON object.
    pub metadata: Value,
    pub idempotency_key: Option<String>,
    pub request_id: String,
    pub deadline: Instant,
}

/// The submitted bytes, and their share of the memory that all bodies together may hold; both live until
/// the last one that works on them is done, also where nobody waits for the answer any more.
#[derive(Debug, Clone)]
pub struct Original(Arc<(Vec<u8>, Option<OwnedSemaphorePermit>)>);

impl Original {
    pub fn new(bytes: Vec<u8>, budget: Option<OwnedSemaphorePermit>) -> Self {
        Self(Arc::new((bytes, budget)))
    }
}

impl AsRef<[u8]> for Original {
    fn as_ref(&self) -> &[u8] {
        &self.0.0
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ModerateError {
    #[error(transparent)]
    Media(#[from] MediaError),
    #[error("policy `{0}` is not active; `GET /v1/policies` lists those that are")]
    UnknownPolicy(String),
    #[error("no policy could be judged: {reasons}")]
    NothingJudged { reasons: String },
    #[error(transparent)]
    Undecided(#[from] Undecided),
    #[error("the service is busy: {refused}; try again in {} s", retry_after.as_secs())]
    Busy { refused: Refused, retry_after: Duration },
    #[error("this idempotency key was used with another request; use a new key for a new request")]
    IdempotencyConflict,
    #[error("the verdict could not be recorded, so there is none")]
    Store(#[from] StoreError),
    #[error("the original could not be kept, so there is no verdict")]
    Keep(#[source] std::io::Error),
    #[error("the policies in force need something this process lacks")]
    Policies(#[from] crate::policy::active::ResolveError),
    #[error("an internal check failed, so there is no verdict")]
    Breach(#[from] Breach),
    #[error("the decoder's thread ended; there is no verdict")]
    DecoderGone,
}

impl ModerateError {
    /// A word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Media(error) => error.code(),
            Self::UnknownPolicy(_) => "policy_not_active",
            Self::NothingJudged { .. } => "nothing_judged",
            Self::Undecided(undecided) => undecided.failure.code(),
            Self::Busy { .. } => "busy",
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::Store(_) => "unrecorded",
            Self::Keep(_) => "not_kept",
            Self::Policies(_) => "judge_missing",
            Self::Breach(_) | Self::DecoderGone => "internal",
        }
    }
}

/// Which originals are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepWhich {
    None,
    /// Those whose action is not allow.
    Flagged,
    All,
}

impl std::str::FromStr for KeepWhich {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "flagged" => Ok(Self::Flagged),
            "all" => Ok(Self::All),
            _ => Err(format!("`{text}` keeps nothing known: expected `none`, `flagged` or `all`")),
        }
    }
}

#[derive(Debug, Clone)]
pub struct ModerateConfig {
    pub limits: Limits,
    pub keep: KeepWhich,
    pub keep_for: Duration,
    /// Decodes at once.
    pub decoders: usize,
    /// Memory that all decoded pictures which wait for judges may hold together.
    pub pictures_budget_bytes: u64,
    /// `onnxruntime 1.32.0`.
    pub runtime: String,
    /// `cpu`.
    pub device: String,
    /// Keys the HMAC of `subject`.
    pub subject_key: [u8; 32],
}

pub struct Moderator {
    pub store: Store,
    pub scheduler: Arc<Scheduler>,
    /// The policy sets in force, shared with the routes that change them.
    pub policies: Arc<PolicyCache>,
    originals: media::keep::Keep,
    decoders: Arc<Semaphore>,
    /// In [`UNIT_BYTES`].
    pictures: Arc<Semaphore>,
    config: ModerateConfig,
}

/// What step 4 found for one (judge, question).
#[derive(Debug, Clone)]
struct Found {
    result: Result<Scored, Failure>,
    recalled: bool,
    computed_on: Option<ComputedOn>,
}

type Findings = HashMap<(String, store::Sha256), Found>;

impl Moderator {
    pub fn new(
        store: Store,
        scheduler: Arc<Scheduler>,
        policies: Arc<PolicyCache>,
        originals: media::keep::Keep,
        config: ModerateConfig,
    ) -> Self {
        let decoders = Arc::new(Semaphore::new(config.decoders.max(1)));
        let pictures = Arc::new(Semaphore::new(units(config.pictures_budget_bytes)));
        Self { store, scheduler, policies, originals, decoders, pictures, config }
    }

    #[tracing::instrument(name = "moderate", skip_all, fields(project = submission.project, source = submission.source))]
    pub async fn moderate(&self, submission: Submission) -> Result<Verdict, ModerateError> {
        let now = timestamp::now();
        let sha256 = self.hash(&submission.original).await?;
        let fingerprint = submission.fingerprint(&sha256);

        let look = async {
            let mut conn = self.store.acquire().await?;
            let key = submission.idempotency_key.as_deref();
            admission::look(&mut conn, &submission.project, submission.route, key, &sha256, now).await
        };
        let admission = self.store.in_time(look).await?;
        if let Some(earlier) = admission.replay {
            return self.replay(&submission, earlier, fingerprint).await;
        }
        let set =
            self.policies.get(&self.store, &self.scheduler, &submission.project, admission.policy_generation);
        let set = self.store.in_time(set).await?;
        let selected = set
            .select(Modality::Image, submission.policies.as_deref())
            .map_err(ModerateError::UnknownPolicy)?;
        let plan = Plan::new(&selected, &admission.overrides);
        if plan.overridden.is_empty() && plan.asked.is_empty() {
            let reasons: Vec<String> =
                plan.not_run.iter().map(|policy| format!("`{}`: {}", policy.policy, policy.reason)).collect();
            let reasons =
                if reasons.is_empty() { "no policy is active".to_owned() } else { reasons.join("; ") };
            return Err(ModerateError::NothingJudged { reasons });
        }

        let (looked, views) = self.look(&submission).await?;
        let findings = self.recall_or_judge(&submission, &sha256, &plan, views).await?;
        let judged = self.decide(&plan, &findings);
        let answers = match judged {
            Ok(answers) => answers,
            Err(undecided) => {
                let attempt = record::attempt(&self.store, &submission, &sha256, &undecided, now);
                self.store.in_time(attempt).await?;
                return Err(undecided.into());
            }
        };

        let verdict = self.conclude(&submission, &sha256, &looked, answers, plan.not_run.clone(), now);
        let requested: Vec<&str> = selected.iter().map(|active| active.policy.id.as_str()).collect();
        decide::check(&verdict, &requested)?;
        let kept = self.keep(&submission, &sha256, verdict.action, now).await?;
        let recording = Recording {
            verdict: &verdict,
            requested: &requested,
            sha256,
            fingerprint,
            kept,
            judgements: self.fresh(&findings, now),
            policy_generation: set.generation,
            subject: submission.subject.as_deref().map(|s| self.pseudonym(&submission.project, s)),
        };
        match self.store.in_time(recording.commit(&self.store, &submission)).await? {
            Ok(recorded) => Ok(recorded),
            Err(earlier) => self.replay(&submission, earlier, fingerprint).await,
        }
    }

    async fn hash(&self, original: &Original) -> Result<store::Sha256, ModerateError> {
        // 20 MB take some 15 ms: too long for an async thread.
        let original = original.clone();
        tokio::task::spawn_blocking(move || Sha256::digest(original.as_ref()).into())
            .await
            .map_err(|_| ModerateError::DecoderGone)
    }

    /// The same request again: the answer it had.
    async fn replay(
        &self,
        submission: &Submission,
        earlier: Recorded,
        fingerprint: store::Sha256,
    ) -> Result<Verdict, ModerateError> {
        if earlier.fingerprint != fingerprint {
            return Err(ModerateError::IdempotencyConflict);
        }
        let read = async {
            let mut conn = self.store.acquire().await?;
            verdicts::by_id(&mut conn, &submission.project, earlier.verdict_id).await
        };
        let verdict = self.store.in_time(read).await?;
        verdict.ok_or(ModerateError::IdempotencyConflict)
    }

    /// What was found, and the pictures apart from it.
    async fn look(&self, submission: &Submission) -> Result<(Looked, Arc<Views>), ModerateError> {
        let deadline = submission.deadline.into();
        let permit = tokio::time::timeout_at(deadline, Arc::clone(&self.decoders).acquire_owned())
            .await
            .map_err(|_| self.busy(Refused::Deadline))?
            .map_err(|_| ModerateError::DecoderGone)?;
        let (original, limits) = (submission.original.clone(), self.config.limits);
        // The permit goes with the work, which goes on where the client has left.
        let decode = move || (media::look(original.as_ref(), &limits), permit);
        let (looked, permit) =
            tokio::task::spawn_blocking(decode).await.map_err(|_| ModerateError::DecoderGone)?;
        let mut looked = looked?;
        let views = std::mem::take(&mut looked.views);
        let bytes: usize = views.iter().map(|view| view.picture.rgb().len()).sum();
        // Nobody else decodes on this permit until there is room for what it made.
        let room = units(bytes as u64).min(units(self.config.pictures_budget_bytes));
        let room = Arc::clone(&self.pictures).acquire_many_owned(u32::try_from(room).unwrap_or(u32::MAX));
        let memory = tokio::time::timeout_at(deadline, room)
            .await
            .map_err(|_| self.busy(Refused::Deadline))?
            .map_err(|_| ModerateError::DecoderGone)?;
        drop(permit);
        Ok((looked, Arc::new(Views { views, memory: Some(memory) })))
    }

    async fn recall_or_judge(
        &self,
        submission: &Submission,
        sha256: &store::Sha256,
        plan: &Plan<'_>,
        views: Arc<Views>,
    ) -> Result<Findings, ModerateError> {
        let mut findings = Findings::new();
        let wanted: Vec<(&str, store::Sha256, &Question)> = plan
            .asked
            .iter()
            .flat_map(|active| &active.asked)
            .filter_map(|asked| {
                let card = self.scheduler.judge(&asked.judge.name)?.card();
                Some((asked.judge.name.as_str(), *card.digest.as_bytes(), &asked.question))
            })
            .collect();
        if wanted.is_empty() {
            return Ok(findings);
        }
        let pairs: Vec<_> =
            wanted.iter().map(|(_, digest, question)| (*digest, *question.hash.as_bytes())).collect();
        let recall = async {
            let mut conn = self.store.acquire().await?;
            judgements::recall(&mut conn, &submission.project, sha256, &pairs).await
        };
        let on_record = self.store.in_time(recall).await?;
        let mut missing: HashMap<&str, Vec<Question>> = HashMap::new();
        for (name, digest, question) in wanted {
            let hash = *question.hash.as_bytes();
            let found = on_record.iter().find(|j| j.judge_digest == digest && j.question_hash == hash);
            match found.and_then(|judgement| Some((scored(judgement)?, self.elsewhere(judgement)))) {
                Some((scored, computed_on)) => {
                    let found = Found { result: Ok(scored), recalled: true, computed_on };
                    findings.insert((name.to_owned(), hash), found);
                }
                None => {
                    let questions = missing.entry(name).or_default();
                    if !questions.iter().any(|other| other.hash == question.hash) {
                        questions.push(question.clone());
                    }
                }
            }
        }
        let asking = missing.into_iter().map(|(name, questions)| {
            let views = Arc::clone(&views);
            async move {
                let answers = self.scheduler.ask(name, views, questions.clone(), submission.deadline).await?;
                Ok::<_, Refused>((name, questions, answers))
            }
        });
        let answered =
            futures_util::future::try_join_all(asking).await.map_err(|refused| self.busy(refused))?;
        for (name, questions, answers) in answered {
            for (question, result) in questions.into_iter().zip(answers) {
                let key = (name.to_owned(), *question.hash.as_bytes());
                findings.insert(key, Found { result, recalled: false, computed_on: None });
            }
        }
        Ok(findings)
    }

    fn decide(&self, plan: &Plan<'_>, findings: &Findings) -> Result<Vec<PolicyAnswer>, Undecided> {
        let mut answers: Vec<PolicyAnswer> =
            plan.overridden.iter().map(|(active, by)| decide::overridden(active, by)).collect();
        for active in &plan.asked {
            let mut answered = Vec::with_capacity(active.asked.len());
            for asked in &active.asked {
                let Some(judge) = self.scheduler.judge(&asked.judge.name) else { continue };
                let key = (asked.judge.name.clone(), *asked.question.hash.as_bytes());
                let found = findings.get(&key).cloned().unwrap_or_else(|| Found {
                    result: Err(Failure::Runtime("the judge was not asked".to_owned())),
                    recalled: false,
                    computed_on: None,
                });
                answered.push(Answered {
                    card: judge.card(),
                    result: found.result,
                    recalled: found.recalled,
                    computed_on: found.computed_on,
                });
            }
            answers.push(decide::decide(active, answered)?);
        }
        answers.sort_by(|a, b| a.policy.cmp(&b.policy));
        Ok(answers)
    }

    fn conclude(
        &self,
        submission: &Submission,
        sha256: &store::Sha256,
        looked: &Looked,
        policies: Vec<PolicyAnswer>,
        policies_not_run: Vec<PolicyNotRun>,
        now: OffsetDateTime,
    ) -> Verdict {
        let asked = policies.iter().any(|policy| policy.outcome != Outcome::Override);
        let mut judges = policies.iter().flat_map(|policy| &policy.judges);
        let scored = judges.any(|judge| judge.probability.is_some());
        let content = Content {
            sha256: hex(sha256),
            pdq: None,
            media_type: looked.media_type.to_owned(),
            width: looked.width,
            height: looked.height,
            bytes: submission.original.as_ref().len() as u64,
            frames_total: looked.frames_total,
            frames_scored: if scored { looked.frames_scored } else { 0 },
            trailing_bytes: looked.trailing_bytes,
        };
        let (action, raised) = decide::conclude(&policies, &content, looked.frames_scored);
        Verdict {
            id: Uuid::now_v7(),
            status: Status::Done,
            action,
            cached: asked
                && policies.iter().all(|p| matches!(p.outcome, Outcome::Recalled | Outcome::Override)),
            submission_id: Uuid::now_v7(),
            project: submission.project.clone(),
            reference: submission.reference.clone(),
            metadata: submission.metadata.clone(),
            source: submission.source.to_owned(),
            content,
            policies,
            policies_not_run,
            raised,
            runtime: self.config.runtime.clone(),
            device: self.config.device.clone(),
            created_at: now,
        }
    }

    async fn keep(
        &self,
        submission: &Submission,
        sha256: &store::Sha256,
        action: Action,
        now: OffsetDateTime,
    ) -> Result<Option<store::contents::Kept>, ModerateError> {
        let wanted = match self.config.keep {
            KeepWhich::None => false,
            KeepWhich::Flagged => action != Action::Allow,
            KeepWhich::All => true,
        };
        if !wanted {
            return Ok(None);
        }
        self.originals.put(sha256, submission.original.clone()).await.map_err(ModerateError::Keep)?;
        Ok(Some(store::contents::Kept {
            at: format!("media:{}", hex(sha256)),
            until: now + self.config.keep_for,
        }))
    }

    /// The judgements that this submission added; only successes are kept.
    fn fresh(&self, findings: &Findings, now: OffsetDateTime) -> Vec<Judgement> {
        let fresh = findings.iter().filter(|(_, found)| !found.recalled);
        fresh
            .filter_map(|((name, question_hash), found)| {
                let scored = found.result.as_ref().ok()?;
                Some(Judgement {
                    judge_digest: *self.scheduler.judge(name)?.card().digest.as_bytes(),
                    question_hash: *question_hash,
                    probability: scored.probability.get(),
                    worst: Some(scored.worst.clone()),
                    runtime: self.config.runtime.clone(),
                    device: self.config.device.clone(),
                    at: now,
                })
            })
            .collect()
    }

    /// `subject` is the client's account id: only a keyed hash of it is stored, apart for each project.
    fn pseudonym(&self, project: &str, subject: &str) -> store::Sha256 {
        use hmac::{Hmac, KeyInit as _, Mac as _};
        // The block of SHA-256 is 64 bytes; a shorter key is padded with zeros, as HMAC says.
        let mut block = [0; 64];
        block[..self.config.subject_key.len()].copy_from_slice(&self.config.subject_key);
        let mut mac = Hmac::<Sha256>::new(&block.into());
        mac.update(project.as_bytes());
        mac.update(b"\0");
        mac.update(subject.as_bytes());
        mac.finalize().into_bytes().into()
    }

    fn elsewhere(&self, judgement: &Judgement) -> Option<ComputedOn> {
        let here = judgement.runtime == self.config.runtime && judgement.device == self.config.device;
        (!here).then(|| ComputedOn { runtime: judgement.runtime.clone(), device: judgement.device.clone() })
    }

    fn busy(&self, refused: Refused) -> ModerateError {
        ModerateError::Busy { refused, retry_after: self.scheduler.expected_wait() }
    }
}

/// Who decides which policy: an override, judges, or nobody.
struct Plan<'a> {
    overridden: Vec<(&'a ActivePolicy, &'a Override)>,
    asked: Vec<&'a ActivePolicy>,
    not_run: Vec<PolicyNotRun>,
}

impl<'a> Plan<'a> {
    fn new(selected: &[&'a ActivePolicy], overrides: &'a [Override]) -> Self {
        let mut plan = Self { overridden: Vec::new(), asked: Vec::new(), not_run: Vec::new() };
        for active in selected {
            match (decide::override_for(&active.policy.id, overrides), active.not_run()) {
                (Some(by), _) => plan.overridden.push((active, by)),
                (None, Some(reason)) => plan.not_run.push(reason),
                (None, None) => plan.asked.push(active),
            }
        }
        plan
    }
}

impl Submission {
    /// What an idempotency key stands for: everything the answer depends on.
    fn fingerprint(&self, sha256: &store::Sha256) -> store::Sha256 {
        let request = serde_json::json!({
            "content": hex(sha256),
            "metadata": self.metadata,
            "policies": self.policies,
            "ref": self.reference,
            "subject": self.subject,
        });
        Sha256::digest(crate::canonical::to_string(&request).as_bytes()).into()
    }
}

/// Granularity of the pictures' budget.
const UNIT_BYTES: u64 = 64 * 1024;

fn units(bytes: u64) -> usize {
    usize::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(usize::MAX).clamp(1, u32::MAX as usize)
}

fn scored(judgement: &Judgement) -> Option<Scored> {
    Some(Scored {
        probability: Probability::try_from(judgement.probability).ok()?,
        worst: judgement.worst.clone().unwrap_or(Worst { frame: 0, at_ms: 0, background: None }),
    })
}

fn hex(sha256: &store::Sha256) -> String {
    shieldgate_models::Digest::from_bytes(*sha256).hex()
}
