//! The shape of a Gemma 3 decoder as its GGUF's metadata and tensors give it.
//!
//! Reference: `llama_model_gemma3` in llama.cpp, which knows by heart what its files do not say: five local
//! layers before a global one, a local RoPE base of 10 000, and the attention scale of the 27B.

use super::{Gguf, Metadata};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::config::{LAYERS_MAX, LayerKind, Rope, SIDE_MAX, TextConfig};

const ARCHITECTURE: &str = "gemma3";
const PATTERN: usize = 6;
const LOCAL_BASE: f64 = 10_000.0;
/// The one size whose queries are scaled by hidden / heads instead of the head's size has so many layers.
const LAYERS_27B: usize = 62;

impl Gguf {
    /// Of the architecture `gemma3`.
    pub fn gemma3_config(&self) -> Result<TextConfig, CheckpointError> {
        let keys = Keys(self.metadata());
        let architecture = "general.architecture";
        if keys.0.text(architecture)? != Some(ARCHITECTURE) {
            return Err(keys.0.refuse(architecture, ARCHITECTURE));
        }
        let count = keys.size("block_count", None, LAYERS_MAX)?;
        let window = keys.optional_size("attention.sliding_window", SIDE_MAX)?;
        let pattern = keys.size("attention.sliding_window_pattern", Some(PATTERN), LAYERS_MAX)?;
        let kind = |at: usize| match window {
            Some(_) if !(at + 1).is_multiple_of(pattern) => LayerKind::Local,
            _ => LayerKind::Global,
        };
        let hidden = keys.size("embedding_length", None, SIDE_MAX)?;
        let heads = keys.size("attention.head_count", None, SIDE_MAX)?;
        let kv_heads = keys.size("attention.head_count_kv", Some(heads), SIDE_MAX)?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(keys.refuse("attention.head_count_kv", format!("a divisor of {heads}")));
        }
        let head_dim = keys.size("attention.key_length", None, SIDE_MAX)?;
        if !head_dim.is_multiple_of(2) {
            return Err(keys.refuse("attention.key_length", "an even number"));
        }
        if keys.size("attention.value_length", Some(head_dim), SIDE_MAX)? != head_dim {
            return Err(keys.refuse("attention.value_length", format!("the key's, {head_dim}")));
        }
        if keys.positive("final_logit_softcapping", Some(f64::NAN))?.is_finite() {
            return Err(keys.refuse("final_logit_softcapping", "none"));
        }
        let positions = keys.size("context_length", None, SIDE_MAX)?;
        let scaled = if count == LAYERS_27B { hidden as f64 / heads as f64 } else { head_dim as f64 };
        Ok(TextConfig {
            vocabulary: self.vocabulary(hidden)?,
            hidden,
            inner: keys.size("feed_forward_length", None, SIDE_MAX)?,
            layers: (0..count).map(kind).collect(),
            heads,
            kv_heads,
            head_dim,
            norm_epsilon: keys.positive("attention.layer_norm_rms_epsilon", None)? as f32,
            window: window.unwrap_or(positions),
            scale: scaled.powf(-0.5) as f32,
            score_cap: None,
            logit_cap: None,
            query_norms: true,
            global_rope: Rope {
                base: keys.positive("rope.freq_base", Some(1_000_000.0))?,
                factor: keys.rope_factor()?,
            },
            local_rope: Rope { base: keys.positive("rope.freq_base_swa", Some(LOCAL_BASE))?, factor: 1.0 },
            tied_head: self.tensor("output.weight").is_err(),
            positions,
        })
    }

    /// As many tokens as the embedding has rows.
    fn vocabulary(&self, hidden: usize) -> Result<usize, CheckpointError> {
        let embedding = self.tensor("token_embd.weight")?;
        match embedding.shape.as_slice() {
            &[tokens, columns] if columns == hidden && tokens <= SIDE_MAX => Ok(tokens),
            shape => {
                let expected = format!("[tokens, {hidden}], with at most {SIDE_MAX} tokens");
                let found = format!("{shape:?}");
                Err(CheckpointError::unsupported(self.path(), "shape of token_embd.weight", found, expected))
            }
        }
    }
}

/// The metadata under the architecture's prefix.
struct Keys<'a>(&'a Metadata);

impl Keys<'_> {
    fn key(name: &str) -> String {
        format!("{ARCHITECTURE}.{name}")
    }

    fn refuse(&self, name: &str, expected: impl Into<String>) -> CheckpointError {
        self.0.refuse(&Self::key(name), expected)
    }

    fn optional_size(&self, name: &str, max: usize) -> Result<Option<usize>, CheckpointError> {
        match self.0.count(&Self::key(name))? {
            Some(size) if size == 0 || size > max => Err(self.refuse(name, format!("1 to {max}"))),
            size => Ok(size),
        }
    }

    fn size(&self, name: &str, default: Option<usize>, max: usize) -> Result<usize, CheckpointError> {
        let size = self.optional_size(name, max)?.or(default);
        size.ok_or_else(|| self.refuse(name, format!("1 to {max}")))
    }

    fn positive(&self, name: &str, default: Option<f64>) -> Result<f64, CheckpointError> {
        match self.0.float(&Self::key(name))? {
            Some(number) if number.is_finite() && number > 0.0 => Ok(number),
            None => default.ok_or_else(|| self.refuse(name, "a positive number")),
            Some(_) => Err(self.refuse(name, "a positive number")),
        }
    }

    fn rope_factor(&self) -> Result<f64, CheckpointError> {
        let kind = "rope.scaling.type";
        match self.0.text(&Self::key(kind))? {
            None | Some("none") => Ok(1.0),
            Some("linear") => self.positive("rope.scaling.factor", None),
            Some(_) => Err(self.refuse(kind, "linear or none")),
        }
    }
}
