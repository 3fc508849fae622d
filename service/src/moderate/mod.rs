//! The one path from bytes to a recorded verdict: bytes in; a recorded verdict out, or an error that
//! recorded no verdict.
//!
//! 1. *identify*: hash the bytes, bind id and time.
//! 2. *admit*: one look at the store for a replay, overrides and whether the policies at hand are stale.
//! 3. *recall*: judgements on record are taken; where none is missing, nobody need look at the bytes.
//! 4. *look and judge*: decode within the limits, off the async threads; what will be scanned is stated;
//!    what was not on record is asked, one job a judge.
//! 5. *decide*: pure ([`decide`]); failures meet `on_error` there and nowhere else.
//! 6. *keep*: the original is stored before the verdict commits, if it is to be kept at all.
//! 7. *record*: one transaction ([`record`]); Postgres away → an error, never a verdict.
//! 8. *answer* with what was read back from the record.
//!
//! Every `.await` may be the last (the client leaves). Before 7 that costs nothing; in 7 the transaction
//! rolls back; if the connection dies during commit the answer is an error, and a retry under the same
//! idempotency key finds out. No database connection is held while a judge works.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tracing::Instrument as _;
use uuid::Uuid;

use self::judging::Plan;
use self::record::Recording;
use crate::decoders::{DecodeError, Decoders};
use crate::media::{self, Limits, Looked};
use crate::pipeline;
use crate::policy::Modality;
use crate::scheduler::{Lane, Refused, Scheduler, Views};
use crate::store::admission::Look;
use crate::store::idempotency::Recorded;
use crate::store::judgements::Recall;
use crate::store::verdicts::Provenance;
use crate::store::{self, Group, Store, verdicts};
use crate::text;
use crate::timestamp;
use crate::verdict::{
    Action, Content, ErrorNote, Extent, Facts, ImageExtent, Outcome, PolicyAnswer, PolicyNotRun, Status,
    Verdict,
};

pub mod decide;
mod error;
mod judging;
pub mod policies;
mod record;
mod shadow;
mod submission;
pub mod views;

pub use error::ModerateError;
pub use policies::PolicyCache;
pub use submission::{Original, Submission};

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
    /// Of a text.
    pub text_bytes_max: u64,
    pub keep: KeepWhich,
    pub keep_for: Duration,
    /// Memory that all decoded pictures which wait for judges may hold together.
    pub pictures_budget_bytes: u64,
    /// `onnxruntime 1.32.0`.
    pub runtime: String,
    /// `cpu`.
    pub device: String,
    /// Keys the HMAC of `subject`.
    pub subject_key: [u8; 32],
}

/// Groups of submissions whose reads are under way at once.
const READS_AT_ONCE: usize = 1;

/// Takes a tenth of a millisecond.
const HASHED_IN_PLACE: usize = 128 * 1024;

pub struct Moderator {
    pub store: Store,
    pub scheduler: Arc<Scheduler>,
    /// The policy sets in force, shared with the routes that change them.
    pub policies: Arc<PolicyCache>,
    looks: Group<Look>,
    recalls: Group<Recall>,
    recordings: Group<Recording>,
    originals: media::keep::Keep,
    pub decoders: Decoders,
    /// In [`UNIT_BYTES`].
    pictures: Arc<Semaphore>,
    /// Submissions that shadow versions may still be at.
    shadowed: Arc<Semaphore>,
    config: ModerateConfig,
}

impl Moderator {
    pub fn new(
        store: Store,
        scheduler: Arc<Scheduler>,
        policies: Arc<PolicyCache>,
        originals: media::keep::Keep,
        decoders: Decoders,
        config: ModerateConfig,
    ) -> Self {
        let pictures = Arc::new(Semaphore::new(units(config.pictures_budget_bytes)));
        let shadowed = Arc::new(Semaphore::new(shadow::PENDING_MAX));
        let looks = Group::start(&store, READS_AT_ONCE);
        let recalls = Group::start(&store, READS_AT_ONCE);
        let recordings = Group::start(&store, record::AT_ONCE);
        Self {
            store,
            scheduler,
            policies,
            looks,
            recalls,
            recordings,
            originals,
            decoders,
            pictures,
            shadowed,
            config,
        }
    }

    #[tracing::instrument(name = "moderate", skip_all, fields(project = submission.project, source = submission.source))]
    pub async fn moderate(self: &Arc<Self>, submission: Submission) -> Result<Verdict, ModerateError> {
        let now = timestamp::now();
        let _announced = (submission.lane == Lane::Interactive).then(|| self.scheduler.announce());
        let sha256 = self.hash(&submission.original).await?;
        let fingerprint = submission.fingerprint(&sha256);

        let look = Look {
            project: submission.project.clone(),
            route: submission.route,
            idempotency_key: submission.idempotency_key.clone(),
            sha256,
            pipeline: pipeline::version(submission.modality.into()),
            now,
        };
        let admission = self.looks.ask(look).instrument(tracing::info_span!("admit")).await?;
        if let Some(earlier) = admission.replay {
            return self.replay(&submission, earlier, fingerprint).await;
        }
        let set =
            self.policies.get(&self.store, &self.scheduler, &submission.project, admission.policy_generation);
        let set = self.store.in_time(set).await?;
        let selected = set
            .select(submission.modality, submission.policies.as_deref())
            .map_err(ModerateError::UnknownPolicy)?;
        let plan = Plan::new(&selected, &admission.overrides);
        if plan.is_empty() {
            return Err(ModerateError::NothingJudged { reasons: plan.reasons() });
        }

        let mut recalled = self.recall(&submission.project, &sha256, &plan, admission.facts.clone()).await?;
        let (facts, findings, views) = match recalled.facts.take() {
            Some(facts) => (facts, recalled.findings, None),
            None => {
                let (lane, deadline) = (submission.lane, submission.deadline);
                if lane == Lane::Interactive {
                    self.scheduler.make_way(recalled.missing.keys().copied());
                }
                let (facts, views) =
                    self.look(&submission.original, submission.modality, &sha256, (lane, deadline)).await?;
                let findings = self.judge((lane, deadline), recalled, Arc::clone(&views)).await?;
                (facts, findings, Some(views))
            }
        };
        let judged = self.decide(&plan, &findings);
        let answers = match judged {
            Ok(answers) => answers,
            Err(undecided) => {
                let attempt = record::attempt(&self.store, &submission, &sha256, &undecided, now);
                self.store.in_time(attempt).await?;
                return Err(undecided.into());
            }
        };

        let verdict = self.conclude(&submission, &facts, answers, plan.not_run.clone(), now);
        let requested: Vec<String> = selected.iter().map(|active| active.policy.id.clone()).collect();
        decide::check(&verdict, &requested)?;
        let kept = self.keep(&submission, &sha256, verdict.action, now).await?;
        let recording = Recording {
            verdict,
            requested,
            sha256,
            kept,
            facts: views.is_some().then_some(facts),
            judgements: self.fresh(&findings, now),
            provenance: Provenance {
                key_id: submission.key_id,
                subject_hash: submission.subject_hash(&self.config.subject_key),
                policy_generation: set.generation,
                rescan_id: None,
            },
            idempotency: submission.idempotency_key.clone().map(|key| (submission.route, key)),
            fingerprint,
            actor: submission.actor.clone(),
            request_id: submission.request_id.clone(),
        };
        match self.recordings.ask(recording).instrument(tracing::info_span!("record")).await? {
            Ok(recorded) => {
                let shadows = set.shadows_of(&selected);
                self.shadow(&submission, &recorded, shadows, admission.overrides.clone(), views);
                Ok(recorded)
            }
            Err(earlier) => self.replay(&submission, earlier, fingerprint).await,
        }
    }

    async fn hash(&self, original: &Original) -> Result<store::Sha256, ModerateError> {
        // 20 MB take some 15 ms: too long for an async thread. Of less, the change of threads is the dearer part.
        if original.as_ref().len() <= HASHED_IN_PLACE {
            return Ok(Sha256::digest(original.as_ref()).into());
        }
        let original = original.clone();
        tokio::task::spawn_blocking(move || Sha256::digest(original.as_ref()).into())
            .await
            .map_err(|_| ModerateError::TaskGone)
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
        let (project, id) = (&submission.project, earlier.verdict_id);
        let verdict = self.store.read(async |conn| verdicts::by_id(conn, project, id).await).await?;
        verdict.ok_or(ModerateError::IdempotencyConflict)
    }

    /// Whether it would be taken in today; the bytes themselves were held against the limits by now.
    fn admits(&self, content: &Content) -> bool {
        let limits = &self.config.limits;
        match &content.extent {
            Extent::Image(image) => {
                u64::from(image.width) * u64::from(image.height) <= limits.pixels_max
                    && content.bytes <= limits.bytes_max
            }
            Extent::Text(_) => content.bytes <= self.config.text_bytes_max,
        }
    }

    /// What was found, and apart from it what judges are to be shown.
    async fn look(
        &self,
        original: &Original,
        modality: Modality,
        sha256: &store::Sha256,
        turn: (Lane, Instant),
    ) -> Result<(Facts, Arc<Views>), ModerateError> {
        match modality {
            Modality::Image => self.look_at_image(original, sha256, turn).await,
            Modality::Text => self.look_at_text(original, sha256).await,
        }
    }

    async fn look_at_text(
        &self,
        original: &Original,
        sha256: &store::Sha256,
    ) -> Result<(Facts, Arc<Views>), ModerateError> {
        let (original, bytes_max) = (original.clone(), self.config.text_bytes_max);
        let bytes = original.as_ref().len() as u64;
        let look = move || text::look(original.as_ref(), bytes_max);
        let looked = if bytes <= HASHED_IN_PLACE as u64 {
            look()?
        } else {
            tokio::task::spawn_blocking(look).await.map_err(|_| ModerateError::TaskGone)??
        };
        let content = Content {
            sha256: hex(sha256),
            media_type: "text/plain".to_owned(),
            bytes,
            extent: Extent::Text(looked.extent),
        };
        Ok((Facts { content, doubts: Vec::new() }, Arc::new(views::of_text(looked.views))))
    }

    async fn look_at_image(
        &self,
        original: &Original,
        sha256: &store::Sha256,
        (lane, deadline): (Lane, Instant),
    ) -> Result<(Facts, Arc<Views>), ModerateError> {
        let span = tracing::info_span!("decode", bytes = original.as_ref().len());
        let look = self.decoders.look(original.clone(), lane, deadline).instrument(span);
        let (mut looked, place) = look.await.map_err(|error| match error {
            DecodeError::Media(error) => error.into(),
            DecodeError::Deadline => self.busy(lane, Refused::Deadline),
            DecodeError::Unavailable(error) => ModerateError::NoDecoder(error),
        })?;
        let views = std::mem::take(&mut looked.views);
        let bytes: usize = views.iter().map(|view| view.picture.rgb().len()).sum();
        let room = units(bytes as u64).min(units(self.config.pictures_budget_bytes));
        let room = Arc::clone(&self.pictures).acquire_many_owned(u32::try_from(room).unwrap_or(u32::MAX));
        let memory = tokio::time::timeout_at(deadline.into(), room)
            .await
            .map_err(|_| self.busy(lane, Refused::Deadline))?
            .map_err(|_| ModerateError::TaskGone)?;
        drop(place);
        let facts = facts(&looked, sha256, original.as_ref().len());
        Ok((facts, Arc::new(views::of_picture(views, Some(memory)))))
    }

    fn conclude(
        &self,
        submission: &Submission,
        facts: &Facts,
        policies: Vec<PolicyAnswer>,
        policies_not_run: Vec<PolicyNotRun>,
        now: OffsetDateTime,
    ) -> Verdict {
        let asked = policies.iter().any(|policy| policy.outcome != Outcome::Override);
        let mut judges = policies.iter().flat_map(|policy| &policy.judges);
        let scored = judges.any(|judge| judge.probability.is_some());
        let (action, raised) = decide::conclude(&policies, facts);
        let mut content = facts.content.clone();
        if let (Extent::Image(image), false) = (&mut content.extent, scored) {
            image.frames_scored = 0;
        }
        Verdict {
            id: Uuid::now_v7(),
            status: Status::Done,
            action,
            cached: asked
                && policies.iter().all(|p| matches!(p.outcome, Outcome::Recalled | Outcome::Override)),
            submission_id: submission.submission_id,
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

    fn busy(&self, lane: Lane, refused: Refused) -> ModerateError {
        ModerateError::Busy { refused, retry_after: self.scheduler.expected_wait(lane) }
    }
}

fn facts(looked: &Looked, sha256: &store::Sha256, bytes: usize) -> Facts {
    let several = looked.frames_total > 1;
    let content = Content {
        sha256: hex(sha256),
        media_type: looked.media_type.to_string(),
        bytes: bytes as u64,
        extent: Extent::Image(ImageExtent {
            pdq: looked.pdq.as_ref().map(ToString::to_string),
            pdq_quality: looked.pdq.as_ref().map(|pdq| pdq.quality),
            width: looked.width,
            height: looked.height,
            frames_total: looked.frames_total,
            frames_scored: looked.frames_scored,
            frames_distinct: looked.frames_distinct.filter(|_| several),
            trailing_bytes: looked.trailing_bytes,
        }),
    };
    let note =
        |doubt: &media::Doubt| ErrorNote { code: doubt.code.to_string(), message: doubt.message.to_string() };
    Facts { content, doubts: looked.doubts.iter().map(note).collect() }
}

/// Granularity of the pictures' budget.
const UNIT_BYTES: u64 = 64 * 1024;

fn units(bytes: u64) -> usize {
    usize::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(usize::MAX).clamp(1, u32::MAX as usize)
}

fn hex(sha256: &store::Sha256) -> String {
    shieldgate_models::Digest::from_bytes(*sha256).hex()
}
