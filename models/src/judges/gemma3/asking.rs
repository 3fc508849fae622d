//! What a question about a text says: the head that answers it, or the prompt.

use serde::{Deserialize, Serialize};

use super::decoder::Pooling;
use super::heads::{Head, Layer};
use crate::Digest;
use crate::prompt::text::TextPrompt;

/// [`Question::asked`](crate::Question::asked) as JSON: enough to ask again years later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "lowercase")]
pub(super) enum Asking {
    Head {
        policy: String,
        /// Of everything in the head that an answer depends on.
        head: Digest,
        model: Digest,
        layers: Vec<Layer>,
        pooling: Pooling,
    },
    Prompt(TextPrompt),
}

impl Asking {
    pub(super) fn head(policy: &str, head: &Head) -> Self {
        Self::Head {
            policy: policy.to_owned(),
            head: head.digest(),
            model: head.model,
            layers: head.layers.clone(),
            pooling: head.pooling,
        }
    }

    pub(super) fn text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    pub(super) fn of(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}
