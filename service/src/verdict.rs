//! The verdict: what was asked, what was answered, what follows; on the wire and on record alike.

use serde::{Deserialize, Serialize};
use shieldgate_models::Modality;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// Ordered by severity, so that the worst of several is their maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Allow,
    Review,
    Block,
}

/// How a policy's answer came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// At least one judge ran for this submission.
    Judged,
    /// Every judgement was already on record.
    Recalled,
    /// A judge gave no probability and the policy's `on_error` decided.
    OnError,
    /// An override or a kill switch decided; no judge was asked.
    Override,
    /// Judged and recorded, without effect on the action.
    Shadow,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// `p ≥ review` → review, unless `p ≥ block`.
    pub review: f32,
    /// `p ≥ block` → block.
    pub block: f32,
}

/// Where in the content the probability was reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Worst {
    Frame(FrameAt),
    Window(WindowAt),
}

impl Worst {
    /// The same frame, whatever it was laid over; the same window, in whatever form.
    pub fn is_at(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Frame(one), Self::Frame(other)) => one.frame == other.frame,
            (Self::Window(one), Self::Window(other)) => one.start == other.start,
            _ => false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FrameAt {
    /// Index of the frame, from 0.
    pub frame: u32,
    /// When that frame is shown, in milliseconds from the start.
    pub at_ms: u64,
    /// What transparency was laid over; absent where the picture has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub background: Option<Background>,
}

/// Long texts are judged in windows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WindowAt {
    /// First character of the window, from 0; of the text as it was written.
    pub start: u64,
    /// The character after its last.
    pub end: u64,
    pub form: Form,
}

/// How a text was shown to the judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// As it was sent.
    Written,
    /// Without what hides words from judges and not from people: look-alikes, invisible characters, digits
    /// for letters.
    Folded,
}

/// One frame of an animation and what it scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrameScore {
    pub probability: f32,
    #[serde(flatten)]
    pub place: FrameAt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Background {
    White,
    Black,
}

/// An error as a verdict tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorNote {
    /// Machine-readable, stable: `judge_failed`, `judge_timed_out`, `judge_not_a_probability`,
    /// `frames_unscored`, `colour_unproven`, `transparency_unproven`.
    pub code: String,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JudgeAnswer {
    pub name: String,
    /// `sha256:…` over weights, graph builder, quantisation, preprocessing and media pipeline.
    pub digest: String,
    pub demo: bool,
    /// Null where the judge failed; `error` then says how.
    pub probability: Option<f32>,
    pub action: Option<Action>,
    pub thresholds: Thresholds,
    pub worst: Option<Worst>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<ErrorNote>,
    /// Where a recalled probability was computed, if not where the verdict was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub computed_on: Option<ComputedOn>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ComputedOn {
    pub runtime: String,
    pub device: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JudgeNotRun {
    pub name: String,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PolicyAnswer {
    pub policy: String,
    /// Hash of the policy's canonical content.
    pub version: String,
    pub outcome: Outcome,
    pub action: Action,
    /// The deciding judge's; null where none decided.
    pub probability: Option<f32>,
    pub thresholds: Option<Thresholds>,
    pub error: Option<ErrorNote>,
    pub judges: Vec<JudgeAnswer>,
    /// Judges the policy names that are not installed, where the policy says `when_missing: skip`.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub judges_not_run: Vec<JudgeNotRun>,
    /// The override that decided, for `outcome: override`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub override_id: Option<Uuid>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyNotRun {
    pub policy: String,
    pub reason: String,
}

/// What was submitted and how much of it was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Content {
    /// 64 hex digits.
    pub sha256: String,
    /// By content, never by the header: `image/png`; `text/plain` for a text.
    pub media_type: String,
    pub bytes: u64,
    #[serde(flatten)]
    pub extent: Extent,
}

impl Content {
    pub fn modality(&self) -> Modality {
        match self.extent {
            Extent::Image(_) => Modality::Image,
            Extent::Text(_) => Modality::Text,
        }
    }

    /// `None` for a text.
    pub fn image(&self) -> Option<&ImageExtent> {
        match &self.extent {
            Extent::Image(image) => Some(image),
            Extent::Text(_) => None,
        }
    }

    /// `None` for an image.
    pub fn text(&self) -> Option<&TextExtent> {
        match &self.extent {
            Extent::Text(text) => Some(text),
            Extent::Image(_) => None,
        }
    }
}

/// How large a content is, and how much of it was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Extent {
    Image(ImageExtent),
    Text(TextExtent),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TextExtent {
    /// Unicode scalar values.
    pub characters: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageExtent {
    /// PDQ perceptual hash of the first frame, 64 hex digits.
    pub pdq: Option<String>,
    /// 0 to 100; below 50 the hash says little, and nothing should be matched by it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pdq_quality: Option<u8>,
    /// Pixels, after orientation.
    pub width: u32,
    pub height: u32,
    /// Frames of an animation, pages of a document.
    pub frames_total: u32,
    /// Those whose exact pixels a judge scored; several that look alike count each.
    pub frames_scored: u32,
    /// Frames that differ from all before them; absent for still pictures, and where there were too many
    /// to count.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub frames_distinct: Option<u32>,
    /// Bytes after the picture's end that no decoder looked at (Motion Photos); absent where none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trailing_bytes: Option<u64>,
}

/// What is known of bytes apart from any judge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// With as many frames scored as could be.
    pub content: Content,
    /// Why what was seen may not be what people will see.
    pub doubts: Vec<ErrorNote>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Pending,
    Done,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Verdict {
    /// UUIDv7.
    pub id: Uuid,
    pub status: Status,
    pub action: Action,
    /// True where every judgement was on record from an earlier upload of this project.
    pub cached: bool,
    pub submission_id: Uuid,
    pub project: String,
    /// The client's item id.
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    /// A JSON object of at most 4 KB.
    #[schema(value_type = Object)]
    pub metadata: serde_json::Value,
    /// `upload`.
    pub source: String,
    pub content: Content,
    pub policies: Vec<PolicyAnswer>,
    pub policies_not_run: Vec<PolicyNotRun>,
    /// Why the action is more severe than the policies' own; absent where it is not.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub raised: Vec<ErrorNote>,
    /// `onnxruntime 1.32.0`.
    pub runtime: String,
    /// `cpu`, `cuda:0`.
    pub device: String,
    /// RFC 3339, UTC, microseconds.
    #[serde(with = "crate::timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
}
