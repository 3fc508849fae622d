//! `config.json` of a ShieldGemma 2 checkpoint, with transformers' defaults, checked for what the graphs can run.
//!
//! Reference: transformers 5.23, `ShieldGemma2Config`, `Gemma3TextConfig`, `SiglipVisionConfig`.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{CheckpointError, read_json};

/// Sizes beyond these are a slip in the file, not a model; they bound what is built from it.
pub(super) const LAYERS_MAX: usize = 512;
pub(super) const SIDE_MAX: usize = 1 << 22;

#[derive(Debug, Clone)]
pub struct Config {
    pub text: TextConfig,
    pub vision: VisionConfig,
    /// One picture becomes this many tokens.
    pub image_tokens: usize,
    pub boi_token: u32,
    pub eoi_token: u32,
    pub image_token: u32,
    pub yes_token: u32,
    pub no_token: u32,
    pub about: About,
}

/// What a folder made for shieldgate says of itself, under the key `shieldgate`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct About {
    pub name: Option<String>,
    /// For showing, not for judging.
    pub demo: bool,
}

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

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default)]
    text_config: RawText,
    #[serde(default)]
    vision_config: RawVision,
    mm_tokens_per_image: Option<usize>,
    boi_token_index: Option<u32>,
    eoi_token_index: Option<u32>,
    image_token_index: Option<u32>,
    yes_token_index: Option<u32>,
    no_token_index: Option<u32>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    shieldgate: About,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawText {
    model_type: Option<String>,
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
    tie_word_embeddings: Option<bool>,
    rope_parameters: Option<RawRopes>,
    rope_scaling: Option<RawRope>,
    rope_theta: Option<f64>,
    rope_local_base_freq: Option<f64>,
    attention_bias: bool,
    query_pre_attn_scalar: Option<f64>,
    sliding_window: Option<usize>,
    layer_types: Option<Vec<String>>,
    sliding_window_pattern: Option<usize>,
    final_logit_softcapping: Option<Value>,
    attn_logit_softcapping: Option<Value>,
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

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawVision {
    model_type: Option<String>,
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

pub const FILE: &str = "config.json";
const MODEL_TYPE: &str = "shieldgemma2";

impl Config {
    pub fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join(FILE);
        let raw: Value = read_json(&path, "it describes the model")?;
        let wrong = |key, found: &Option<String>, expected| CheckpointError::WrongArchitecture {
            path: path.clone(),
            key,
            found: found.clone().unwrap_or_else(|| "nothing".to_owned()),
            expected,
        };
        // Before the rest is read: another architecture may well have other types under the same keys.
        let model_type = raw.get("model_type").and_then(Value::as_str).map(str::to_owned);
        if model_type.as_deref() != Some(MODEL_TYPE) {
            return Err(wrong("model_type", &model_type, MODEL_TYPE));
        }
        let raw: RawConfig = serde_json::from_value(raw)
            .map_err(|source| CheckpointError::Json { path: path.clone(), source })?;
        for (key, found, expected) in [
            ("text_config.model_type", &raw.text_config.model_type, "gemma3_text"),
            ("vision_config.model_type", &raw.vision_config.model_type, "siglip_vision_model"),
        ] {
            if found.as_deref().is_some_and(|found| found != expected) {
                return Err(wrong(key, found, expected));
            }
        }
        let check = Check { path: &path };
        let tied = raw.tie_word_embeddings || raw.text_config.tie_word_embeddings.unwrap_or(true);
        let text = TextConfig::check(raw.text_config, tied, &check)?;
        let vision = VisionConfig::check(&raw.vision_config, &check)?;
        let image_tokens = check.size("mm_tokens_per_image", raw.mm_tokens_per_image, 256)?;
        let config = Self {
            image_tokens,
            boi_token: raw.boi_token_index.unwrap_or(255_999),
            eoi_token: raw.eoi_token_index.unwrap_or(256_000),
            image_token: raw.image_token_index.unwrap_or(262_144),
            yes_token: raw.yes_token_index.unwrap_or(10_784),
            no_token: raw.no_token_index.unwrap_or(3_771),
            about: raw.shieldgate,
            text,
            vision,
        };
        for (key, token) in [("yes_token_index", config.yes_token), ("no_token_index", config.no_token)] {
            if token as usize >= config.text.vocabulary {
                let expected = format!("an id below `text_config.vocab_size` = {}", config.text.vocabulary);
                return Err(check.refuse(key, token, expected));
            }
        }
        config.pooling(&check)?;
        Ok(config)
    }

    /// The side of the square of patches that becomes one token.
    pub fn pool(&self) -> usize {
        self.vision.patches() / self.image_tokens.isqrt().max(1)
    }

    fn pooling(&self, check: &Check<'_>) -> Result<(), CheckpointError> {
        let (patches, side) = (self.vision.patches(), self.image_tokens.isqrt());
        if side * side != self.image_tokens || side > patches || patches % side != 0 {
            let expected = format!("a square number whose root divides {patches} patches a side");
            return Err(check.refuse("mm_tokens_per_image", self.image_tokens, expected));
        }
        Ok(())
    }
}

impl TextConfig {
    fn check(raw: RawText, tied_head: bool, check: &Check<'_>) -> Result<Self, CheckpointError> {
        for (key, capping) in [
            ("text_config.final_logit_softcapping", &raw.final_logit_softcapping),
            ("text_config.attn_logit_softcapping", &raw.attn_logit_softcapping),
        ] {
            if let Some(capping) = capping.as_ref().filter(|capping| !capping.is_null()) {
                return Err(check.refuse(key, capping, "null"));
            }
        }
        if raw.attention_bias {
            return Err(check.refuse("text_config.attention_bias", true, "false"));
        }
        if raw.use_bidirectional_attention == Some(true) {
            return Err(check.refuse("text_config.use_bidirectional_attention", true, "false"));
        }
        let activation = raw.hidden_activation.as_deref().unwrap_or("gelu_pytorch_tanh");
        if activation != "gelu_pytorch_tanh" {
            return Err(check.refuse("text_config.hidden_activation", activation, "gelu_pytorch_tanh"));
        }
        let count = check.size("text_config.num_hidden_layers", raw.num_hidden_layers, 26)?;
        if count > LAYERS_MAX {
            return Err(check.refuse(
                "text_config.num_hidden_layers",
                count,
                format!("{LAYERS_MAX} at most"),
            ));
        }
        let layers = layer_kinds(raw.layer_types.as_deref(), raw.sliding_window_pattern, count, check)?;
        let heads = check.size("text_config.num_attention_heads", raw.num_attention_heads, 8)?;
        let kv_heads = check.size("text_config.num_key_value_heads", raw.num_key_value_heads, 4)?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(check.refuse(
                "text_config.num_key_value_heads",
                kv_heads,
                format!("a divisor of {heads}"),
            ));
        }
        let head_dim = check.size("text_config.head_dim", raw.head_dim, 256)?;
        if !head_dim.is_multiple_of(2) {
            return Err(check.refuse("text_config.head_dim", head_dim, "an even number"));
        }
        let scalar = raw.query_pre_attn_scalar.unwrap_or(256.0);
        if !(scalar.is_finite() && scalar > 0.0) {
            return Err(check.refuse("text_config.query_pre_attn_scalar", scalar, "a positive number"));
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
            vocabulary: check.size("text_config.vocab_size", raw.vocab_size, 262_208)?,
            hidden: check.size("text_config.hidden_size", raw.hidden_size, 2304)?,
            inner: check.size("text_config.intermediate_size", raw.intermediate_size, 9216)?,
            layers,
            heads,
            kv_heads,
            head_dim,
            norm_epsilon: raw.rms_norm_eps.unwrap_or(1e-6),
            window: check.size("text_config.sliding_window", raw.sliding_window, 4096)?,
            // As transformers computes it, in double precision.
            scale: scalar.powf(-0.5) as f32,
            global_rope: rope(&global, raw.rope_theta, 1_000_000.0, "full_attention", check)?,
            local_rope: rope(&local, raw.rope_local_base_freq, 10_000.0, "sliding_attention", check)?,
            tied_head,
            positions: check.size(
                "text_config.max_position_embeddings",
                raw.max_position_embeddings,
                131_072,
            )?,
        })
    }
}

impl VisionConfig {
    fn check(raw: &RawVision, check: &Check<'_>) -> Result<Self, CheckpointError> {
        let activation = match raw.hidden_act.as_deref().unwrap_or("gelu_pytorch_tanh") {
            "gelu_pytorch_tanh" => Activation::GeluTanh,
            "gelu" => Activation::Gelu,
            other => {
                return Err(check.refuse("vision_config.hidden_act", other, "gelu_pytorch_tanh or gelu"));
            }
        };
        let channels = raw.num_channels.unwrap_or(3);
        if channels != 3 {
            return Err(check.refuse("vision_config.num_channels", channels, "3"));
        }
        let hidden = check.size("vision_config.hidden_size", raw.hidden_size, 768)?;
        let heads = check.size("vision_config.num_attention_heads", raw.num_attention_heads, 12)?;
        if !hidden.is_multiple_of(heads) {
            return Err(check.refuse(
                "vision_config.num_attention_heads",
                heads,
                format!("a divisor of {hidden}"),
            ));
        }
        let layers = check.size("vision_config.num_hidden_layers", raw.num_hidden_layers, 12)?;
        if layers > LAYERS_MAX {
            return Err(check.refuse(
                "vision_config.num_hidden_layers",
                layers,
                format!("{LAYERS_MAX} at most"),
            ));
        }
        let image = check.size("vision_config.image_size", raw.image_size, 224)?;
        let patch = check.size("vision_config.patch_size", raw.patch_size, 16)?;
        // Pictures are made in this size for every judgement.
        if patch > image || image > 8192 {
            return Err(check.refuse(
                "vision_config.image_size",
                image,
                format!("{patch} (one patch) to 8192"),
            ));
        }
        Ok(Self {
            hidden,
            inner: check.size("vision_config.intermediate_size", raw.intermediate_size, 3072)?,
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

fn layer_kinds(
    named: Option<&[String]>,
    pattern: Option<usize>,
    count: usize,
    check: &Check<'_>,
) -> Result<Vec<LayerKind>, CheckpointError> {
    let Some(named) = named else {
        let pattern = check.size("text_config.sliding_window_pattern", pattern, 6)?;
        let kind =
            |at: usize| if (at + 1).is_multiple_of(pattern) { LayerKind::Global } else { LayerKind::Local };
        return Ok((0..count).map(kind).collect());
    };
    if named.len() != count {
        let expected = format!("one entry for each of {count} layers");
        return Err(check.refuse("text_config.layer_types", format!("{} entries", named.len()), expected));
    }
    named
        .iter()
        .map(|name| match name.as_str() {
            "sliding_attention" => Ok(LayerKind::Local),
            "full_attention" => Ok(LayerKind::Global),
            other => {
                Err(check.refuse("text_config.layer_types", other, "sliding_attention or full_attention"))
            }
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
    let key = |name: &str| format!("text_config.rope_parameters.{kind}.{name}");
    if let Some(partial) = raw.partial_rotary_factor.filter(|partial| *partial != 1.0) {
        return Err(check.refuse(key("partial_rotary_factor"), partial, "1"));
    }
    let factor = match raw.rope_type.as_deref().unwrap_or("default") {
        "default" => 1.0,
        "linear" => raw.factor.unwrap_or(f64::NAN),
        other => return Err(check.refuse(key("rope_type"), other, "default or linear")),
    };
    let base = raw.rope_theta.or(older_base).unwrap_or(default_base);
    for (name, value) in [("factor", factor), ("rope_theta", base)] {
        if !(value.is_finite() && value > 0.0) {
            return Err(check.refuse(key(name), value, "a positive number"));
        }
    }
    Ok(Rope { base, factor })
}

struct Check<'a> {
    path: &'a Path,
}

impl Check<'_> {
    fn refuse(
        &self,
        key: impl Into<String>,
        found: impl ToString,
        expected: impl Into<String>,
    ) -> CheckpointError {
        CheckpointError::unsupported(self.path, key, found, expected)
    }

    fn size(&self, key: &str, value: Option<usize>, default: usize) -> Result<usize, CheckpointError> {
        match value.unwrap_or(default) {
            size @ 1..=SIDE_MAX => Ok(size),
            other => Err(self.refuse(key, other, format!("1 to {SIDE_MAX}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Config, CheckpointError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), json).unwrap();
        Config::read(folder.path())
    }

    /// What google/shieldgemma-2-4b-it says, in the form of the version that wrote it; the rest are defaults.
    #[test]
    fn the_published_model_is_read() {
        let config = read(
            r#"{"model_type": "shieldgemma2", "mm_tokens_per_image": 256,
                "text_config": {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240,
                    "num_hidden_layers": 34, "sliding_window": 1024,
                    "rope_scaling": {"factor": 8.0, "rope_type": "linear"}},
                "vision_config": {"hidden_size": 1152, "image_size": 896, "intermediate_size": 4304,
                    "model_type": "siglip_vision_model", "num_attention_heads": 16, "num_hidden_layers": 27,
                    "patch_size": 14, "vision_use_head": false}}"#,
        )
        .unwrap();
        let text = &config.text;
        let globals: Vec<usize> = (0..34).filter(|at| text.layers[*at] == LayerKind::Global).collect();
        assert_eq!(globals, [5, 11, 17, 23, 29]);
        assert_eq!((text.heads, text.kv_heads, text.head_dim, text.window), (8, 4, 256, 1024));
        assert_eq!(text.global_rope, Rope { base: 1_000_000.0, factor: 8.0 });
        assert_eq!(text.local_rope, Rope { base: 10_000.0, factor: 1.0 });
        assert_eq!((text.vocabulary, text.tied_head, text.scale), (262_208, true, 0.0625));
        assert_eq!((config.yes_token, config.no_token, config.image_token), (10_784, 3_771, 262_144));
        assert_eq!((config.vision.patches(), config.pool()), (64, 4));
    }

    #[test]
    fn numbers_that_would_break_the_graphs_are_refused() {
        for (part, key) in [
            (r#""text_config": {"num_hidden_layers": 100000}"#, "num_hidden_layers"),
            (r#""text_config": {"head_dim": 0}"#, "head_dim"),
            (r#""text_config": {"num_key_value_heads": 3}"#, "num_key_value_heads"),
            (r#""text_config": {"sliding_window_pattern": 0}"#, "sliding_window_pattern"),
            (r#""text_config": {"rope_theta": -1.0}"#, "rope_theta"),
            (r#""vision_config": {"patch_size": 0}"#, "patch_size"),
            (r#""vision_config": {"image_size": 100000}"#, "image_size"),
            (r#""mm_tokens_per_image": 250"#, "mm_tokens_per_image"),
            (r#""yes_token_index": 999999"#, "yes_token_index"),
        ] {
            let json = format!(r#"{{"model_type": "shieldgemma2", {part}}}"#);
            let error = read(&json).expect_err(key).to_string();
            assert!(error.contains(key), "{key}: {error}");
        }
    }
}
