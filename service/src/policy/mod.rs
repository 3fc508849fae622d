//! A policy: what is asked, of which judges, with which thresholds, and what follows when one fails.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::verdict::{Action, Thresholds};

pub mod active;
pub mod file;
pub mod lifecycle;

/// The categories of the OpenAI moderation API, all of them.
pub const OPENAI_CATEGORIES: [&str; 13] = [
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/intent",
    "self-harm/instructions",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
];

const ID_BYTES_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = 8 * 1024;
const JUDGES_MAX: usize = 8;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// `violence`: a–z, 0–9, `-` and `_`, at most 64.
    pub id: String,
    pub title: String,
    pub modality: Modality,
    /// What prompted judges are asked.
    pub text: String,
    /// Each with its own scale, so each with its own thresholds.
    pub judges: Vec<JudgeUse>,
    #[serde(default)]
    pub on_error: OnError,
    #[serde(default)]
    pub when_missing: WhenMissing,
    #[serde(default)]
    pub frames: Frames,
    /// The OpenAI moderation categories that this policy feeds.
    #[serde(default)]
    pub openai: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Modality {
    Image,
    Text,
}

impl Modality {
    pub fn word(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Text => "text",
        }
    }
}

impl From<shieldgate_models::Modality> for Modality {
    fn from(modality: shieldgate_models::Modality) -> Self {
        match modality {
            shieldgate_models::Modality::Image => Self::Image,
            shieldgate_models::Modality::Text => Self::Text,
        }
    }
}

impl From<Modality> for shieldgate_models::Modality {
    fn from(modality: Modality) -> Self {
        match modality {
            Modality::Image => Self::Image,
            Modality::Text => Self::Text,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JudgeUse {
    /// The name of an installed model: `shieldgate models list`.
    pub name: String,
    /// The trained head that answers, for a model of texts that has heads; without it the policy's text is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    pub thresholds: Thresholds,
    #[serde(default)]
    pub calibration: Calibration,
}

/// `(exp(y/T)+a) / (exp(y/T)+exp(n/T)+2a)`; T = 1 and a = 0 change nothing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    #[serde(default = "one")]
    pub temperature: f32,
    #[serde(default)]
    pub alpha: f32,
}

fn one() -> f32 {
    1.0
}

impl Default for Calibration {
    fn default() -> Self {
        Self { temperature: 1.0, alpha: 0.0 }
    }
}

/// What a judge's failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// 503, no verdict; the attempt is audited.
    #[default]
    Fail,
    Review,
    Block,
    Allow,
}

impl OnError {
    /// None where there is to be no verdict at all.
    pub fn action(self) -> Option<Action> {
        match self {
            Self::Fail => None,
            Self::Review => Some(Action::Review),
            Self::Block => Some(Action::Block),
            Self::Allow => Some(Action::Allow),
        }
    }
}

/// What a judge that is not installed means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WhenMissing {
    /// The service does not start.
    #[default]
    Refuse,
    /// The policy runs with its other judges; with none, it stands under `policies_not_run`.
    Skip,
}

/// How the frames of an animation decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Frames {
    /// The worst frame.
    #[default]
    Max,
    /// At least this many frames must reach a threshold.
    AtLeast(u32),
}

/// Something a policy says that can't be meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// `judges[0].thresholds`.
    pub at: String,
    pub message: String,
}

impl Policy {
    /// Everything that can't be meant; empty for a good policy.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |at: &str, message: String| faults.push(Fault { at: at.to_owned(), message });
        if !is_id(&self.id) {
            fault(
                "id",
                format!(
                    "`{}` is no policy id: use 1 to {ID_BYTES_MAX} of a–z, 0–9, `-` and `_`, starting with a letter",
                    self.id
                ),
            );
        }
        if self.title.trim().is_empty() {
            fault("title", "the title is empty: say in a few words what the policy is about".to_owned());
        }
        if self.text.trim().is_empty() {
            fault("text", "the text is empty: say what content breaks the policy".to_owned());
        }
        if self.text.len() > TEXT_BYTES_MAX {
            fault(
                "text",
                format!("the text has {} bytes; at most {TEXT_BYTES_MAX} fit the prompt", self.text.len()),
            );
        }
        if self.judges.is_empty() || self.judges.len() > JUDGES_MAX {
            fault("judges", format!("a policy has 1 to {JUDGES_MAX} judges, this one {}", self.judges.len()));
        }
        let mut names = HashSet::new();
        for (at, judge) in self.judges.iter().enumerate() {
            let Thresholds { review, block } = judge.thresholds;
            if !names.insert(&judge.name) {
                fault(
                    &format!("judges[{at}].name"),
                    format!("judge `{}` stands twice: keep one", judge.name),
                );
            }
            if !(0.0..=1.0).contains(&review) || !(0.0..=1.0).contains(&block) {
                fault(
                    &format!("judges[{at}].thresholds"),
                    format!("review {review} and block {block} must both be in 0..=1"),
                );
            } else if review > block {
                fault(
                    &format!("judges[{at}].thresholds"),
                    format!(
                        "review {review} is above block {block}: nothing would ever be reviewed; lower `review` or raise `block`"
                    ),
                );
            }
            let Calibration { temperature, alpha } = judge.calibration;
            if !(temperature.is_finite() && temperature >= 0.01 && alpha.is_finite() && alpha >= 0.0) {
                fault(
                    &format!("judges[{at}].calibration"),
                    format!("temperature {temperature} must be at least 0.01 and alpha {alpha} at least 0"),
                );
            }
        }
        if self.frames == Frames::AtLeast(0) {
            fault("frames", "`at_least: 0` would never find anything: use 1 or more".to_owned());
        }
        for (at, category) in self.openai.iter().enumerate() {
            if !OPENAI_CATEGORIES.contains(&category.as_str()) {
                fault(
                    &format!("openai[{at}]"),
                    format!(
                        "`{category}` is no OpenAI moderation category; there are: {}",
                        OPENAI_CATEGORIES.join(", ")
                    ),
                );
            }
        }
        faults
    }

    /// The hash of the canonical content: 64 hex digits. Comments and layout of the file are no part of it.
    pub fn version(&self) -> Result<String, serde_json::Error> {
        let digest = Sha256::digest(self.canonical()?.as_bytes());
        Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// JSON without blanks, keys sorted, defaults written out, numbers in their shortest form.
    pub fn canonical(&self) -> Result<String, serde_json::Error> {
        // By way of text: a threshold of 0.8 is 0.8 there, and 0.800000011920929 as a value.
        Ok(crate::canonical::to_string(&serde_json::from_str(&serde_json::to_string(self)?)?))
    }
}

pub(crate) fn is_id(id: &str) -> bool {
    id.len() <= ID_BYTES_MAX
        && id.starts_with(|c: char| c.is_ascii_lowercase())
        && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
}
