//! What a question about a text says: the head that answers it, or the prompt.

use serde::{Deserialize, Serialize};

use super::decoder::Pooling;
use super::heads::{Head, Layer, Stretches};
use crate::Digest;
use crate::prompt::text::TextPrompt;

/// [`Question::asked`](crate::Question::asked) as JSON: enough to ask again years later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "lowercase")]
pub(super) enum Asking {
    Head {
        name: String,
        /// Of everything in the head that an answer depends on.
        head: Digest,
        model: Digest,
        layers: Vec<Layer>,
        pooling: Pooling,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        stretches: Option<Stretches>,
    },
    Prompt(TextPrompt),
}

impl Asking {
    pub(super) fn head(name: &str, head: &Head) -> Self {
        Self::Head {
            name: name.to_owned(),
            head: head.digest(),
            model: head.model,
            layers: head.layers.clone(),
            pooling: head.pooling,
            stretches: head.stretches,
        }
    }

    pub(super) fn text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    pub(super) fn of(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}
