//! Whole files: numbers bit for bit, the decoder's shape, names, and files that lie.

use std::collections::BTreeSet;

use shieldgate_models::checkpoint::CheckpointError;
use shieldgate_models::checkpoint::config::{LayerKind, Rope};
use shieldgate_models::checkpoint::gguf::{Gguf, names};

use super::{assert_same_numbers, folder, golden};

#[test]
fn every_type_has_the_references_numbers() -> anyhow::Result<()> {
    for name in ["blocks", "tiny"] {
        let gguf = Gguf::open(&folder().join(format!("{name}.gguf")))?;
        assert_same_numbers(&gguf, &golden(&format!("{name}.json"))?)?;
    }
    let blocks = Gguf::open(&folder().join("blocks.gguf"))?;
    let stored: BTreeSet<&str> = blocks.tensors().map(|tensor| tensor.stored.name()).collect();
    assert_eq!(stored.len(), 9, "all types are in the file: {stored:?}");
    Ok(())
}

#[test]
fn rows_are_those_of_the_whole() -> anyhow::Result<()> {
    let gguf = Gguf::open(&folder().join("blocks.gguf"))?;
    for tensor in gguf.tensors() {
        let whole = gguf.dequantise(tensor)?;
        assert_eq!(gguf.dequantise_rows(tensor, 1..2)?, whole[512..1024], "{}", tensor.name);
        assert_eq!(gguf.dequantise_rows(tensor, 2..9)?, whole[1024..], "{}", tensor.name);
        assert!(gguf.dequantise_rows(tensor, 7..9)?.is_empty());
    }
    Ok(())
}

#[test]
fn the_decoders_shape_is_read() -> anyhow::Result<()> {
    let gguf = Gguf::open(&folder().join("tiny.gguf"))?;
    let config = gguf.gemma3_config()?;
    let embedding = gguf.tensor("token_embd.weight")?;
    assert_eq!([config.vocabulary, config.hidden], embedding.shape[..]);
    assert_eq!((config.hidden, config.inner), (32, 256));
    assert_eq!((config.heads, config.kv_heads, config.head_dim), (2, 1, 16));
    assert_eq!((config.window, config.positions, config.tied_head), (8, 512, true));
    assert_eq!((config.scale, config.norm_epsilon), (0.25, 1e-6));
    assert_eq!(config.global_rope, Rope { base: 1_000_000.0, factor: 1.0 });
    assert_eq!(config.local_rope, Rope { base: 10_000.0, factor: 1.0 });
    let mut layers = vec![LayerKind::Local; 5];
    layers.push(LayerKind::Global);
    assert_eq!(config.layers, layers);
    Ok(())
}

#[test]
fn every_tensor_has_a_name_in_a_safetensors_file() -> anyhow::Result<()> {
    let gguf = Gguf::open(&folder().join("tiny.gguf"))?;
    let plain: BTreeSet<String> =
        gguf.tensors().filter_map(|tensor| names::plain_name(&tensor.name)).collect();
    assert_eq!(plain.len(), gguf.tensors().count());
    assert!(plain.contains("language_model.layers.5.pre_feedforward_layernorm.weight"));
    Ok(())
}

/// Metadata of another kind, or none, names its key.
#[test]
fn a_file_of_another_kind_says_what_it_lacks() -> anyhow::Result<()> {
    let gguf = Gguf::open(&folder().join("blocks.gguf"))?;
    let error = gguf.gemma3_config().expect_err("no Gemma").to_string();
    assert!(error.contains("`general.architecture`"), "{error}");
    let error = gguf.tokenizer().expect_err("no vocabulary").to_string();
    assert!(error.contains("`tokenizer.ggml.model` = nothing"), "{error}");
    let error = gguf.tensor("x").expect_err("no such tensor").to_string();
    assert!(error.contains("tensor `x` is missing"), "{error}");
    Ok(())
}

#[test]
fn numbers_that_would_break_the_graphs_are_refused() -> anyhow::Result<()> {
    let whole = std::fs::read(folder().join("tiny.gguf"))?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("x.gguf");
    for (key, value) in [
        ("block_count", 0),
        ("block_count", 100_000),
        ("embedding_length", 31),
        ("attention.head_count_kv", 3),
        ("attention.key_length", 15),
        ("attention.value_length", 8),
        ("feed_forward_length", u32::MAX),
        ("context_length", 0),
        ("attention.sliding_window", 0),
    ] {
        let key = format!("gemma3.{key}");
        let mut bytes = whole.clone();
        let at = bytes.windows(key.len()).position(|window| window == key.as_bytes()).expect(&key);
        let number = at + key.len() + 4;
        bytes[number..number + 4].copy_from_slice(&value.to_le_bytes());
        std::fs::write(&path, bytes)?;
        let error = Gguf::open(&path)?.gemma3_config().expect_err(&key);
        let named = if key.ends_with("embedding_length") { "token_embd.weight" } else { key.as_str() };
        assert!(error.to_string().contains(named), "{error}");
    }
    Ok(())
}

#[test]
fn a_file_cut_anywhere_is_truncated() -> anyhow::Result<()> {
    let whole = std::fs::read(folder().join("blocks.gguf"))?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("x.gguf");
    // Padding follows the last tensor.
    let end = 18_240 + 1260;
    for length in (0..end).step_by(97).chain([end - 1]) {
        std::fs::write(&path, &whole[..length])?;
        match Gguf::open(&path) {
            Err(CheckpointError::Truncated { actual, .. }) => assert_eq!(actual, length as u64),
            other => panic!("{length} bytes: {other:?}"),
        }
    }
    let error = Gguf::open(&folder.path().join("y.gguf")).expect_err("no file").to_string();
    assert!(error.contains("is missing"), "{error}");
    Ok(())
}
