//! `config.json` of a Gemma checkpoint that reads texts: `gemma3_text`, the text half of a `gemma3`, or `gemma2`.
//!
//! Reference: transformers 5.23, `Gemma3TextConfig`, `Gemma3Config` and `Gemma2Config`.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::text::RawText;
use super::{About, Check, FILE, TextConfig};
use crate::checkpoint::{CheckpointError, read_json, read_optional};

/// The whole file is the decoder's.
const TEXT_ONLY: &str = "gemma3_text";
/// The decoder's part is an object of its own, beside the vision tower's.
const WITH_PICTURES: &str = "gemma3";
/// The generation before, ShieldGemma 1 among it.
const BEFORE: &str = "gemma2";

#[derive(Debug, Clone)]
pub struct GemmaConfig {
    pub text: TextConfig,
    pub about: About,
}

/// What is not the decoder's own.
#[derive(Deserialize)]
struct Around {
    text_config: Option<RawText>,
    #[serde(default)]
    tie_word_embeddings: Option<bool>,
    #[serde(default)]
    shieldgate: About,
}

impl GemmaConfig {
    /// Whether `config.json` names one of the three architectures.
    pub fn is_in(folder: &Path) -> bool {
        let body = read_optional(&folder.join(FILE)).ok().flatten();
        let config: Option<Value> = body.and_then(|body| serde_json::from_slice(&body).ok());
        config
            .as_ref()
            .and_then(model_type)
            .is_some_and(|found| [TEXT_ONLY, WITH_PICTURES, BEFORE].contains(&found))
    }

    pub fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join(FILE);
        let raw: Value = read_json(&path, "it describes the model")?;
        let wrong = |key, found: Option<&str>, expected| CheckpointError::WrongArchitecture {
            path: path.clone(),
            key,
            found: found.unwrap_or("nothing").to_owned(),
            expected,
        };
        let json = |source| CheckpointError::Json { path: path.clone(), source };
        let Some(found @ (TEXT_ONLY | WITH_PICTURES | BEFORE)) = model_type(&raw) else {
            return Err(wrong("model_type", model_type(&raw), "gemma3_text, gemma3 or gemma2"));
        };
        let around = Around::deserialize(&raw).map_err(json)?;
        let (text, section) = match found {
            WITH_PICTURES => (around.text_config.unwrap_or_default(), "text_config."),
            BEFORE => (RawText::deserialize(in_gemma3s_keys(&raw)).map_err(json)?, ""),
            _ => (RawText::deserialize(&raw).map_err(json)?, ""),
        };
        let expected = if found == BEFORE { BEFORE } else { TEXT_ONLY };
        if text.model_type.as_deref().is_some_and(|found| found != expected) {
            return Err(wrong("text_config.model_type", text.model_type.as_deref(), expected));
        }
        let tied = around.tie_word_embeddings.or(text.tie_word_embeddings).unwrap_or(true);
        let check = Check { path: &path, section };
        let text = match found {
            BEFORE => TextConfig::check_gemma2(text, tied, &check)?,
            _ => TextConfig::check(text, tied, &check)?,
        };
        Ok(Self { text, about: around.shieldgate })
    }
}

/// Gemma 2's defaults written out, and its one rotary embedding given to both kinds of layers.
fn in_gemma3s_keys(config: &Value) -> Value {
    let mut keys = config.as_object().cloned().unwrap_or_default();
    for (key, default) in [
        ("vocab_size", json!(256_000)),
        ("max_position_embeddings", json!(8192)),
        ("sliding_window_pattern", json!(2)),
        ("attn_logit_softcapping", json!(50.0)),
        ("final_logit_softcapping", json!(30.0)),
        ("rope_theta", json!(10_000.0)),
    ] {
        keys.entry(key).or_insert(default);
    }
    let rope = keys.remove("rope_parameters").or_else(|| keys.remove("rope_scaling"));
    let mut rope = rope.and_then(|rope| rope.as_object().cloned()).unwrap_or_default();
    if let Some(base) = keys.remove("rope_theta") {
        rope.entry("rope_theta").or_insert(base);
    }
    keys.insert("rope_parameters".to_owned(), json!({"full_attention": rope, "sliding_attention": rope}));
    Value::Object(keys)
}

fn model_type(config: &Value) -> Option<&str> {
    config.get("model_type").and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::config::{LayerKind, Rope};

    fn read(json: &str) -> Result<GemmaConfig, CheckpointError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), json).unwrap();
        assert_eq!(GemmaConfig::is_in(folder.path()), !json.contains("gemma1"));
        GemmaConfig::read(folder.path())
    }

    /// What google/gemma-3-270m says, in the form of the version that wrote it.
    #[test]
    fn the_smallest_published_model_is_read() {
        let config = read(
            r#"{"model_type": "gemma3_text", "attn_logit_softcapping": null, "final_logit_softcapping": null,
                "head_dim": 256, "hidden_size": 640, "intermediate_size": 2048, "num_attention_heads": 4,
                "num_hidden_layers": 18, "num_key_value_heads": 1, "max_position_embeddings": 32768,
                "query_pre_attn_scalar": 256, "rope_local_base_freq": 10000.0, "rope_scaling": null,
                "rope_theta": 1000000.0, "sliding_window": 512, "use_bidirectional_attention": false,
                "_sliding_window_pattern": 6, "vocab_size": 262144,
                "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention",
                    "sliding_attention", "sliding_attention", "full_attention", "sliding_attention",
                    "sliding_attention", "sliding_attention", "sliding_attention", "sliding_attention",
                    "full_attention", "sliding_attention", "sliding_attention", "sliding_attention",
                    "sliding_attention", "sliding_attention", "full_attention"]}"#,
        )
        .unwrap();
        let text = &config.text;
        let globals: Vec<usize> = (0..18).filter(|at| text.layers[*at] == LayerKind::Global).collect();
        assert_eq!(globals, [5, 11, 17]);
        assert_eq!((text.heads, text.kv_heads, text.head_dim, text.window), (4, 1, 256, 512));
        assert_eq!(text.global_rope, Rope { base: 1_000_000.0, factor: 1.0 });
        assert_eq!((text.vocabulary, text.tied_head, text.positions), (262_144, true, 32_768));
    }

    #[test]
    fn the_text_half_of_a_model_with_pictures_is_read() {
        let config = read(
            r#"{"model_type": "gemma3", "vision_config": {"model_type": "another"}, "mm_tokens_per_image": 256,
                "text_config": {"model_type": "gemma3_text", "hidden_size": 3840, "num_hidden_layers": 48,
                    "num_attention_heads": 16, "num_key_value_heads": 8, "intermediate_size": 15360,
                    "sliding_window": 1024, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}}"#,
        )
        .unwrap();
        assert_eq!((config.text.hidden, config.text.heads, config.text.layers.len()), (3840, 16, 48));
        assert_eq!(config.text.global_rope, Rope { base: 1_000_000.0, factor: 8.0 });
    }

    /// What google/shieldgemma-2b says where it is not the default.
    #[test]
    fn the_generation_before_is_read() {
        let config = read(
            r#"{"model_type": "gemma2", "hidden_size": 2304, "num_hidden_layers": 26, "rope_theta": 10000.0,
                "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "sliding_window": 4096}"#,
        );
        for text in [config.unwrap().text, read(r#"{"model_type": "gemma2"}"#).unwrap().text] {
            assert_eq!(text.layers[..3], [LayerKind::Local, LayerKind::Global, LayerKind::Local]);
            assert_eq!((text.score_cap, text.logit_cap, text.query_norms), (Some(50.0), Some(30.0), false));
            assert_eq!(text.global_rope, Rope { base: 10_000.0, factor: 1.0 });
            assert_eq!(text.local_rope, text.global_rope);
            assert_eq!((text.vocabulary, text.positions, text.layers.len()), (256_000, 8192, 26));
        }
        let uncapped = r#"{"model_type": "gemma2", "attn_logit_softcapping": null}"#;
        assert_eq!(read(uncapped).unwrap().text.score_cap, None);
    }

    #[test]
    fn errors_name_the_key_where_it_stands() {
        for (json, key) in [
            (r#"{"model_type": "gemma1"}"#, "`model_type` = `gemma1`"),
            (r#"{"model_type": "gemma3_text", "head_dim": 0}"#, "`head_dim`"),
            (r#"{"model_type": "gemma3", "text_config": {"head_dim": 0}}"#, "`text_config.head_dim`"),
            (r#"{"model_type": "gemma3", "text_config": {"model_type": "llama"}}"#, "`llama`"),
            (r#"{"model_type": "gemma3_text", "final_logit_softcapping": 30.0}"#, "softcapping"),
            (r#"{"model_type": "gemma2", "final_logit_softcapping": 0.0}"#, "positive"),
            (r#"{"model_type": "gemma2", "rope_parameters": {"rope_type": "yarn"}}"#, "yarn"),
        ] {
            let error = read(json).expect_err(key).to_string();
            assert!(error.contains(key), "{key}: {error}");
        }
    }
}
