//! The vision tower's half of `config.json`, with transformers' defaults, checked for what the graphs can run.
//!
//! Reference: transformers 5.23, `SiglipVisionConfig`.

use serde::Deserialize;

use super::{Check, LAYERS_MAX};
use crate::checkpoint::CheckpointError;

#[derive(Debug, Clone)]
pub struct VisionConfig {
    pub hidden: usize,
    pub inner: usize,
    pub layers: usize,
    pub heads: usize,
    /// Pictures are squares of this side.
    pub image: usize,
    pub patch: usize,
    pub norm_epsilon: f32,
    pub activation: Activation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    GeluTanh,
    Gelu,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct RawVision {
    pub(super) model_type: Option<String>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_channels: Option<usize>,
    image_size: Option<usize>,
    patch_size: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f32>,
}

impl VisionConfig {
    pub(super) fn check(raw: &RawVision, check: &Check<'_>) -> Result<Self, CheckpointError> {
        let activation = match raw.hidden_act.as_deref().unwrap_or("gelu_pytorch_tanh") {
            "gelu_pytorch_tanh" => Activation::GeluTanh,
            "gelu" => Activation::Gelu,
            other => {
                return Err(check.refuse("hidden_act", other, "gelu_pytorch_tanh or gelu"));
            }
        };
        let channels = raw.num_channels.unwrap_or(3);
        if channels != 3 {
            return Err(check.refuse("num_channels", channels, "3"));
        }
        let hidden = check.size("hidden_size", raw.hidden_size, 768)?;
        let heads = check.size("num_attention_heads", raw.num_attention_heads, 12)?;
        if !hidden.is_multiple_of(heads) {
            return Err(check.refuse("num_attention_heads", heads, format!("a divisor of {hidden}")));
        }
        let layers = check.size("num_hidden_layers", raw.num_hidden_layers, 12)?;
        if layers > LAYERS_MAX {
            return Err(check.refuse("num_hidden_layers", layers, format!("{LAYERS_MAX} at most")));
        }
        let image = check.size("image_size", raw.image_size, 224)?;
        let patch = check.size("patch_size", raw.patch_size, 16)?;
        // Pictures are made in this size for every judgement.
        if patch > image || image > 8192 {
            return Err(check.refuse("image_size", image, format!("{patch} (one patch) to 8192")));
        }
        Ok(Self {
            hidden,
            inner: check.size("intermediate_size", raw.intermediate_size, 3072)?,
            layers,
            heads,
            image,
            patch,
            norm_epsilon: raw.layer_norm_eps.unwrap_or(1e-6),
            activation,
        })
    }

    /// Patches a side.
    pub fn patches(&self) -> usize {
        self.image / self.patch
    }
}
