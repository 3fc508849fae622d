//! The seam every kind of judge implements: what it is, what it is asked, what it answers.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::{Picture, Probability};

/// A SHA-256, shown as `sha256:<64 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lower-case hex digits, without the prefix.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads 64 hex digits, with or without the `sha256:` prefix.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix("sha256:").unwrap_or(text);
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("expected `sha256:` and 64 hex digits"))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What kind of content a judge is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Modality {
    Image,
    Text,
}

/// What is judged. A long text comes in windows, an animation in frames: each is a content by itself.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    Picture(&'a Picture),
    Text(&'a str),
}

/// Who answers: everything a verdict says about a judge.
#[derive(Debug, Clone)]
pub struct JudgeCard {
    /// As policies name it: `shieldgemma2`, `open-nsfw`.
    pub name: String,
    /// `shieldgemma2`, `classifier`.
    pub kind: &'static str,
    pub modality: Modality,
    /// Covers weights, graph builder, quantisation and preprocessing; part of the judgement key.
    pub digest: Digest,
    /// A demo judge is for showing, not for judging: it says so wherever it answers.
    pub demo: bool,
}

/// What a judge needs to know of a policy to ask its question.
#[derive(Debug, Clone, Copy)]
pub struct PolicyText<'a> {
    /// `violence`; label-map judges look the policy up by it.
    pub id: &'a str,
    /// The policy's text, for prompted judges.
    pub text: &'a str,
    /// The trained head that answers instead of a prompt, for judges that have heads.
    pub head: Option<&'a str>,
    /// Softmax temperature T and smoothing a: `(exp(y/T)+a) / (exp(y/T)+exp(n/T)+2a)`.
    pub temperature: f32,
    pub alpha: f32,
}

impl PolicyText<'_> {
    /// For judges that have no heads.
    pub(crate) fn names_no_head(&self, judge: &str) -> Result<(), QuestionError> {
        let Some(head) = self.head else { return Ok(()) };
        Err(QuestionError {
            judge: judge.to_owned(),
            policy: self.id.to_owned(),
            reason: format!("it has no heads, and the policy names the head `{head}`"),
        })
    }
}

/// What one judge is asked for one policy. Thresholds are no part of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The rendered prompt, or the label set: enough to ask again years later.
    pub asked: String,
    pub temperature: f32,
    pub alpha: f32,
    /// Part of the judgement key: covers all of the above.
    pub hash: Digest,
}

impl Question {
    pub fn new(asked: String, temperature: f32, alpha: f32) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(b"shieldgate question v1\0");
        hasher.update(temperature.to_bits().to_le_bytes());
        hasher.update(alpha.to_bits().to_le_bytes());
        hasher.update(asked.as_bytes());
        Self { asked, temperature, alpha, hash: Digest(hasher.finalize().into()) }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("judge `{judge}` can't be asked about policy `{policy}`: {reason}")]
pub struct QuestionError {
    pub judge: String,
    pub policy: String,
    pub reason: String,
}

/// Why a judge gave no probability; the code is what verdicts and clients see.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The answer was NaN, infinite or no probability.
    #[error("the judge's answer is no probability: {0}")]
    NotAProbability(String),
    /// The runtime reported an error.
    #[error("the judge failed: {0}")]
    Runtime(String),
    /// A mistake of ours: it was shown a content that it does not judge.
    #[error("the judge judges {judges} and nothing else")]
    WrongContent { judges: &'static str },
    /// It was told to stop, because its time was up.
    #[error("the judge did not answer in time")]
    TimedOut,
}

impl Failure {
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotAProbability(_) => "judge_not_a_probability",
            Self::Runtime(_) | Self::WrongContent { .. } => "judge_failed",
            Self::TimedOut => "judge_timed_out",
        }
    }
}

pub type Answer = Result<Probability, Failure>;

/// `(exp(y/T)+a) / (exp(y/T)+exp(n/T)+2a)` of the logits y (breaks the policy) and n (does not);
/// T = 1 and a = 0 give the plain softmax. ShieldGemma 2's own knobs (arXiv 2504.01081).
pub(crate) fn calibrated(yes: f64, no: f64, temperature: f32, alpha: f32) -> Answer {
    let (t, a) = (f64::from(temperature), f64::from(alpha));
    let (yes, no) = (yes / t, no / t);
    let p = if a == 0.0 {
        1.0 / (1.0 + (no - yes).exp())
    } else {
        // Everything over the larger power, so that nothing overflows.
        let top = yes.max(no);
        let (yes, no, a) = ((yes - top).exp(), (no - top).exp(), a * (-top).exp());
        if a.is_infinite() { 0.5 } else { (yes + a) / (yes + no + 2.0 * a) }
    };
    Probability::try_from(p as f32).map_err(|error| Failure::NotAProbability(error.to_string()))
}

/// One content of a batch, and what is asked about it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub content: Content<'a>,
    pub questions: &'a [Question],
}

/// The pictures of a batch; where one is none, that failure for every question of all of them: a batch is of
/// one kind, or somebody made a mistake.
pub(crate) fn pictures<'a>(batch: &[Asked<'a>]) -> Result<Vec<&'a Picture>, Vec<Vec<Answer>>> {
    all(batch, "pictures", |content| match content {
        Content::Picture(picture) => Some(picture),
        Content::Text(_) => None,
    })
}

/// [`pictures`] for texts.
pub(crate) fn texts<'a>(batch: &[Asked<'a>]) -> Result<Vec<&'a str>, Vec<Vec<Answer>>> {
    all(batch, "texts", |content| match content {
        Content::Text(text) => Some(text),
        Content::Picture(_) => None,
    })
}

fn all<'a, T>(
    batch: &[Asked<'a>],
    judges: &'static str,
    of_kind: fn(Content<'a>) -> Option<T>,
) -> Result<Vec<T>, Vec<Vec<Answer>>> {
    let contents: Option<Vec<T>> = batch.iter().map(|asked| of_kind(asked.content)).collect();
    contents.ok_or_else(|| {
        let failed = |asked: &Asked<'_>| vec![Err(Failure::WrongContent { judges }); asked.questions.len()];
        batch.iter().map(failed).collect()
    })
}

pub trait Judge: Send + Sync {
    fn card(&self) -> &JudgeCard;

    /// What this judge will be asked for `policy`; called once per policy version, not per content.
    fn question(&self, policy: &PolicyText<'_>) -> Result<Question, QuestionError>;

    /// For each content one answer per question, in their order. A content's answers do not depend on the
    /// others in its batch. Blocks for as long as the model runs; call it off the async threads. Returns
    /// early, with failures, once `stop` is raised.
    fn judge_batch(&self, batch: &[Asked<'_>], stop: &Stop) -> Vec<Vec<Answer>>;

    /// How many contents one batch may have; more only cost memory.
    fn batch_max(&self) -> usize;

    /// How much work a content is, in a unit of this judge's own: a picture, a token. Any thread may ask.
    fn work(&self, content: Content<'_>) -> usize;

    /// What this judge looks at of a picture, where that is smaller than the picture: in its place it gets the
    /// same answers. Any thread may ask, so that no run waits for it.
    fn reduced(&self, picture: &Picture) -> Option<Picture>;

    fn judge(&self, content: Content<'_>, questions: &[Question], stop: &Stop) -> Vec<Answer> {
        self.judge_batch(&[Asked { content, questions }], stop).pop().unwrap_or_default()
    }
}

/// Tells a running judge that nobody waits for it any more.
///
/// ONNX Runtime looks at its terminate flag between nodes, so a run ends after the node it is in.
#[derive(Clone, Default)]
pub struct Stop(Arc<Mutex<StopState>>);

#[derive(Default)]
struct StopState {
    raised: bool,
    on_raise: Option<Box<dyn FnOnce() + Send>>,
}

impl Stop {
    pub fn raise(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.raised = true;
        if let Some(act) = state.on_raise.take() {
            act();
        }
    }

    pub fn is_raised(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).raised
    }

    /// What to do when it is raised while the next run is under way; at once if it already is.
    /// Replaces the act of the run before.
    pub(crate) fn on_raise(&self, act: impl FnOnce() + Send + 'static) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.raised {
            act();
        } else {
            state.on_raise = Some(Box::new(act));
        }
    }
}
