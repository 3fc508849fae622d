//! `config.json` of a ShieldGemma 2 checkpoint, with transformers' defaults, checked for what the graphs can run.
//!
//! Reference: transformers 5.23, `ShieldGemma2Config`. The two halves that other architectures have too are
//! files of their own.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{CheckpointError, read_json};

pub mod gemma;
mod text;
mod vision;

use text::RawText;
pub use text::{LayerKind, Rope, TextConfig};
use vision::RawVision;
pub use vision::{Activation, VisionConfig};

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

pub const FILE: &str = "config.json";
const MODEL_TYPE: &str = "shieldgemma2";

/// Refuses a `config.json` that no judge of this build runs: before gigabytes of weights are fetched for it.
pub fn check(folder: &Path) -> Result<(), CheckpointError> {
    if gemma::GemmaConfig::is_in(folder) {
        gemma::GemmaConfig::read(folder).map(drop)
    } else {
        Config::read(folder).map(drop)
    }
}

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
        let check = Check { path: &path, section: "" };
        let tied = raw.tie_word_embeddings || raw.text_config.tie_word_embeddings.unwrap_or(true);
        let text = TextConfig::check(raw.text_config, tied, &Check { section: "text_config.", ..check })?;
        let vision = VisionConfig::check(&raw.vision_config, &Check { section: "vision_config.", ..check })?;
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

/// Where a key stands, for the errors that name it.
#[derive(Clone, Copy)]
struct Check<'a> {
    path: &'a Path,
    /// Empty, or an object's name and a dot.
    section: &'static str,
}

impl Check<'_> {
    fn refuse(&self, key: &str, found: impl ToString, expected: impl Into<String>) -> CheckpointError {
        CheckpointError::unsupported(self.path, format!("{}{key}", self.section), found, expected)
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
    fn what_no_judge_runs_is_refused_by_its_configuration_alone() {
        let folder = tempfile::tempdir().unwrap();
        for (config, known) in [
            (r#"{"model_type": "shieldgemma2", "mm_tokens_per_image": 49}"#, true),
            (r#"{"model_type": "gemma3_text"}"#, true),
            (r#"{"model_type": "gemma3_text", "head_dim": 0}"#, false),
            (r#"{"model_type": "llama"}"#, false),
        ] {
            std::fs::write(folder.path().join(FILE), config).unwrap();
            assert_eq!(check(folder.path()).is_ok(), known, "{config}");
        }
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
