//! The decoder's half of `config.json`, with transformers' defaults, checked for what the graphs can run.
//!
//! Reference: transformers 5.23, `Gemma3TextConfig`.

use serde::Deserialize;

use super::{Check, LAYERS_MAX};
use crate::checkpoint::CheckpointError;

#[derive(Debug, Clone)]
pub struct TextConfig {
    pub vocabulary: usize,
    pub hidden: usize,
    pub inner: usize,
    pub layers: Vec<LayerKind>,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub norm_epsilon: f32,
    /// Local layers see this many tokens back, themselves included.
    pub window: usize,
    /// Attention scores are multiplied by it.
    pub scale: f32,
    /// Scores are kept within ± this by a tanh: Gemma 2 only.
    pub score_cap: Option<f32>,
    /// Likewise the logits.
    pub logit_cap: Option<f32>,
    /// Queries and keys are normed: all but Gemma 2.
    pub query_norms: bool,
    pub global_rope: Rope,
    pub local_rope: Rope,
    pub tied_head: bool,
    /// Longest sequence.
    pub positions: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    Local,
    Global,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    pub base: f64,
    /// Positions are divided by it.
    pub factor: f64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct RawText {
    pub(super) model_type: Option<String>,
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    hidden_activation: Option<String>,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f32>,
    pub(super) tie_word_embeddings: Option<bool>,
    rope_parameters: Option<RawRopes>,
    rope_scaling: Option<RawRope>,
    rope_theta: Option<f64>,
    rope_local_base_freq: Option<f64>,
    attention_bias: bool,
    query_pre_attn_scalar: Option<f64>,
    sliding_window: Option<usize>,
    layer_types: Option<Vec<String>>,
    sliding_window_pattern: Option<usize>,
    final_logit_softcapping: Option<f32>,
    attn_logit_softcapping: Option<f32>,
    use_bidirectional_attention: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawRopes {
    full_attention: Option<RawRope>,
    sliding_attention: Option<RawRope>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawRope {
    rope_type: Option<String>,
    factor: Option<f64>,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
}

impl TextConfig {
    /// A Gemma 3 decoder.
    pub(super) fn check(raw: RawText, tied_head: bool, check: &Check<'_>) -> Result<Self, CheckpointError> {
        for (key, cap) in [
            ("final_logit_softcapping", raw.final_logit_softcapping),
            ("attn_logit_softcapping", raw.attn_logit_softcapping),
        ] {
            if let Some(cap) = cap {
                return Err(check.refuse(key, cap, "null"));
            }
        }
        Self::check_any(raw, tied_head, check)
    }

    /// A Gemma 2 decoder, in the keys of a Gemma 3.
    pub(super) fn check_gemma2(
        raw: RawText,
        tied_head: bool,
        check: &Check<'_>,
    ) -> Result<Self, CheckpointError> {
        let cap = |key: &str, cap: Option<f32>| match cap {
            Some(cap) if !(cap.is_finite() && cap > 0.0) => {
                Err(check.refuse(key, cap, "a positive number or null"))
            }
            cap => Ok(cap),
        };
        let score_cap = cap("attn_logit_softcapping", raw.attn_logit_softcapping)?;
        let logit_cap = cap("final_logit_softcapping", raw.final_logit_softcapping)?;
        let text = Self::check_any(raw, tied_head, check)?;
        Ok(Self { score_cap, logit_cap, query_norms: false, ..text })
    }

    fn check_any(raw: RawText, tied_head: bool, check: &Check<'_>) -> Result<Self, CheckpointError> {
        if raw.attention_bias {
            return Err(check.refuse("attention_bias", true, "false"));
        }
        if raw.use_bidirectional_attention == Some(true) {
            return Err(check.refuse("use_bidirectional_attention", true, "false"));
        }
        let activation = raw.hidden_activation.as_deref().unwrap_or("gelu_pytorch_tanh");
        if activation != "gelu_pytorch_tanh" {
            return Err(check.refuse("hidden_activation", activation, "gelu_pytorch_tanh"));
        }
        let count = check.size("num_hidden_layers", raw.num_hidden_layers, 26)?;
        if count > LAYERS_MAX {
            return Err(check.refuse("num_hidden_layers", count, format!("{LAYERS_MAX} at most")));
        }
        let layers = layer_kinds(raw.layer_types.as_deref(), raw.sliding_window_pattern, count, check)?;
        let heads = check.size("num_attention_heads", raw.num_attention_heads, 8)?;
        let kv_heads = check.size("num_key_value_heads", raw.num_key_value_heads, 4)?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(check.refuse("num_key_value_heads", kv_heads, format!("a divisor of {heads}")));
        }
        let head_dim = check.size("head_dim", raw.head_dim, 256)?;
        if !head_dim.is_multiple_of(2) {
            return Err(check.refuse("head_dim", head_dim, "an even number"));
        }
        let scalar = raw.query_pre_attn_scalar.unwrap_or(256.0);
        if !(scalar.is_finite() && scalar > 0.0) {
            return Err(check.refuse("query_pre_attn_scalar", scalar, "a positive number"));
        }
        let ropes = raw.rope_parameters.unwrap_or_default();
        let mut global = ropes.full_attention.unwrap_or_default();
        if let Some(scaling) = raw.rope_scaling {
            global.rope_type = scaling.rope_type.or(global.rope_type);
            global.factor = scaling.factor.or(global.factor);
            global.rope_theta = scaling.rope_theta.or(global.rope_theta);
        }
        let local = ropes.sliding_attention.unwrap_or_default();
        Ok(Self {
            vocabulary: check.size("vocab_size", raw.vocab_size, 262_208)?,
            hidden: check.size("hidden_size", raw.hidden_size, 2304)?,
            inner: check.size("intermediate_size", raw.intermediate_size, 9216)?,
            layers,
            heads,
            kv_heads,
            head_dim,
            norm_epsilon: raw.rms_norm_eps.unwrap_or(1e-6),
            window: check.size("sliding_window", raw.sliding_window, 4096)?,
            // As transformers computes it, in double precision.
            scale: scalar.powf(-0.5) as f32,
            score_cap: None,
            logit_cap: None,
            query_norms: true,
            global_rope: rope(&global, raw.rope_theta, 1_000_000.0, "full_attention", check)?,
            local_rope: rope(&local, raw.rope_local_base_freq, 10_000.0, "sliding_attention", check)?,
            tied_head,
            positions: check.size("max_position_embeddings", raw.max_position_embeddings, 131_072)?,
        })
    }
}

fn layer_kinds(
    named: Option<&[String]>,
    pattern: Option<usize>,
    count: usize,
    check: &Check<'_>,
) -> Result<Vec<LayerKind>, CheckpointError> {
    let Some(named) = named else {
        let pattern = check.size("sliding_window_pattern", pattern, 6)?;
        let kind =
            |at: usize| if (at + 1).is_multiple_of(pattern) { LayerKind::Global } else { LayerKind::Local };
        return Ok((0..count).map(kind).collect());
    };
    if named.len() != count {
        let expected = format!("one entry for each of {count} layers");
        return Err(check.refuse("layer_types", format!("{} entries", named.len()), expected));
    }
    named
        .iter()
        .map(|name| match name.as_str() {
            "sliding_attention" => Ok(LayerKind::Local),
            "full_attention" => Ok(LayerKind::Global),
            other => Err(check.refuse("layer_types", other, "sliding_attention or full_attention")),
        })
        .collect()
}

fn rope(
    raw: &RawRope,
    older_base: Option<f64>,
    default_base: f64,
    kind: &str,
    check: &Check<'_>,
) -> Result<Rope, CheckpointError> {
    let key = |name: &str| format!("rope_parameters.{kind}.{name}");
    if let Some(partial) = raw.partial_rotary_factor.filter(|partial| *partial != 1.0) {
        return Err(check.refuse(&key("partial_rotary_factor"), partial, "1"));
    }
    let factor = match raw.rope_type.as_deref().unwrap_or("default") {
        "default" => 1.0,
        "linear" => raw.factor.unwrap_or(f64::NAN),
        other => return Err(check.refuse(&key("rope_type"), other, "default or linear")),
    };
    let base = raw.rope_theta.or(older_base).unwrap_or(default_base);
    for (name, value) in [("factor", factor), ("rope_theta", base)] {
        if !(value.is_finite() && value > 0.0) {
            return Err(check.refuse(&key(name), value, "a positive number"));
        }
    }
    Ok(Rope { base, factor })
}
