//! `heads.json` beside a model: small trained classifiers over its hidden states, one a policy.
//!
//! `probability = σ(scale · (weights · pooled + bias) + offset)`, where `pooled` is the hidden states of the
//! head's layers, pooled over the text's tokens and joined in the head's order. A head may look at stretches of a
//! text as well, for the mean over a page drowns its one bad sentence: then the worst of them decides, where it is
//! above the whole by the head's margin. A head is bound to the model whose numbers it was fitted on.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::decoder::Pooling;
use super::reader::Pools;
use crate::Digest;
use crate::checkpoint::config::TextConfig;
use crate::checkpoint::{CheckpointError, json, read_optional};
use crate::graph::text::{Reads, Tap};
use crate::installed::ModelError;

pub const FILE: &str = "heads.json";

/// The form that this build reads and writes.
const VERSION: u32 = 1;

/// Tokens of a stretch: a few words at least, or there would be as many as tokens.
const STRETCH_TOKENS: RangeInclusive<usize> = 4..=512;

/// All heads of a model, by the policy's id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heads {
    /// Of the form.
    version: u32,
    pub heads: BTreeMap<String, Head>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The model it was fitted on ([`super::model_digest`]).
    pub model: Digest,
    /// Where hidden states are read: after so many layers, or `"final"` after all of them and the last norm.
    pub layers: Vec<Layer>,
    pub pooling: Pooling,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stretches: Option<Stretches>,
    /// [layers × hidden], in the order of `layers`.
    pub weights: Vec<f32>,
    pub bias: f32,
    #[serde(default)]
    pub calibration: Calibration,
    /// How it was fitted, for people: data, rows, date, measures. No part of its digest.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub trained: Value,
}

/// The runs of tokens that are looked at beside the whole text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stretches {
    /// In each; a shorter text has none.
    pub tokens: usize,
    /// Taken off a stretch's logit: short ones differ more, and there are many.
    pub margin: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    pub scale: f32,
    pub offset: f32,
}

impl Default for Calibration {
    fn default() -> Self {
        Self { scale: 1.0, offset: 0.0 }
    }
}

/// A [`Tap`] as it is written: a number or `"final"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Layer {
    After(usize),
    Named(Named),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Named {
    Final,
}

impl From<Layer> for Tap {
    fn from(layer: Layer) -> Self {
        match layer {
            Layer::After(layers) => Self::Layer(layers),
            Layer::Named(Named::Final) => Self::Final,
        }
    }
}

impl From<Tap> for Layer {
    fn from(tap: Tap) -> Self {
        match tap {
            Tap::Layer(layers) => Self::After(layers),
            Tap::Final => Self::Named(Named::Final),
        }
    }
}

impl Heads {
    /// As this build writes them; `serde_json` makes [`FILE`] of it.
    pub fn of(heads: BTreeMap<String, Head>) -> Self {
        Self { version: VERSION, heads }
    }

    /// None where the folder has no heads.
    pub fn read(folder: &Path, text: &TextConfig) -> Result<Option<Self>, ModelError> {
        let path = folder.join(FILE);
        let Some(body) = read_optional(&path)? else { return Ok(None) };
        let version = json::<Value>(&path, &body)?.get("version").and_then(Value::as_u64);
        if version != Some(u64::from(VERSION)) {
            let found = version.map_or_else(|| "nothing".to_owned(), |version| version.to_string());
            return Err(CheckpointError::unsupported(&path, "version", found, VERSION.to_string()).into());
        }
        let heads: Self = json(&path, &body)?;
        for (policy, head) in &heads.heads {
            head.check(text)
                .map_err(|reason| ModelError::broken(&path, format!("head `{policy}`: {reason}")))?;
        }
        Ok(Some(heads))
    }

    /// Refuses heads that were fitted on another model than `model`.
    pub fn check_model(&self, folder: &Path, model: Digest) -> Result<(), ModelError> {
        match self.heads.iter().find(|(_, head)| head.model != model) {
            None => Ok(()),
            Some((policy, head)) => Err(ModelError::HeadOfAnotherModel {
                path: folder.join(FILE),
                policy: policy.clone(),
                expected: head.model,
                found: model,
            }),
        }
    }

    /// What one pass must read for all of them.
    pub(super) fn reads(&self) -> (Reads, Pools) {
        let mut taps: Vec<Tap> =
            self.heads.values().flat_map(|head| head.layers.iter().copied().map(Tap::from)).collect();
        taps.sort_unstable();
        taps.dedup();
        let mut whole: Vec<Pooling> = self.heads.values().map(|head| head.pooling).collect();
        whole.sort_unstable();
        whole.dedup();
        let mut stretches: Vec<usize> =
            self.heads.values().filter_map(|head| Some(head.stretches?.tokens)).collect();
        stretches.sort_unstable();
        stretches.dedup();
        (Reads { taps, answers: Vec::new() }, Pools { whole, stretches })
    }
}

impl Head {
    fn check(&self, text: &TextConfig) -> Result<(), String> {
        let layers = text.layers.len();
        if self.layers.is_empty() {
            return Err("`layers` is empty".to_owned());
        }
        for (at, layer) in self.layers.iter().enumerate() {
            if self.layers.iter().take(at).any(|other| other == layer) {
                return Err(format!("`layers` has {layer:?} twice"));
            }
            if let Layer::After(after) = layer
                && *after > layers
            {
                return Err(format!("`layers` has {after}; the model has {layers} layers"));
            }
        }
        let expected = self.layers.len() * text.hidden;
        if self.weights.len() != expected {
            let found = self.weights.len();
            return Err(format!(
                "`weights` has {found} numbers; {} layers make it {expected}",
                self.layers.len()
            ));
        }
        if let Some(Stretches { tokens, margin }) = self.stretches {
            if !STRETCH_TOKENS.contains(&tokens) {
                let (least, most) = (STRETCH_TOKENS.start(), STRETCH_TOKENS.end());
                return Err(format!("`stretches` has {tokens} tokens; {least} to {most} are allowed"));
            }
            if !(margin.is_finite() && margin >= 0.0) {
                return Err(format!("`stretches` has the margin {margin}; it must be 0 or more"));
            }
        }
        let Calibration { scale, offset } = self.calibration;
        if !self.weights.iter().chain([&self.bias, &scale, &offset]).all(|number| number.is_finite()) {
            return Err("a number is not finite".to_owned());
        }
        Ok(())
    }

    /// Of everything that an answer depends on.
    pub fn digest(&self) -> Digest {
        let mut hasher = Sha256::new();
        hasher.update(b"shieldgate head v1\0");
        hasher.update(self.model.as_bytes());
        hasher.update((self.layers.len() as u64).to_le_bytes());
        for layer in &self.layers {
            let number = match layer {
                Layer::After(after) => *after as u64,
                Layer::Named(Named::Final) => u64::MAX,
            };
            hasher.update(number.to_le_bytes());
        }
        hasher.update(match self.pooling {
            Pooling::Mean => b"mean",
            Pooling::Last => b"last",
        });
        if let Some(Stretches { tokens, margin }) = self.stretches {
            hasher.update(b"stretches");
            hasher.update((tokens as u64).to_le_bytes());
            hasher.update(margin.to_bits().to_le_bytes());
        }
        let Calibration { scale, offset } = self.calibration;
        for number in self.weights.iter().chain([&self.bias, &scale, &offset]) {
            hasher.update(number.to_bits().to_le_bytes());
        }
        Digest::from_bytes(hasher.finalize().into())
    }

    /// The logit of one part of a text; `pooled` [layers × hidden] is in the order of `layers`.
    pub(super) fn logit<'a>(&self, pooled: impl Iterator<Item = &'a f32>) -> f64 {
        let products = self.weights.iter().zip(pooled).map(|(weight, x)| f64::from(*weight) * f64::from(*x));
        let Calibration { scale, offset } = self.calibration;
        f64::from(scale) * (products.sum::<f64>() + f64::from(self.bias)) + f64::from(offset)
    }
}
