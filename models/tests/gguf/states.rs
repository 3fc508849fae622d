//! A GGUF makes a reader with the reference's hidden states: exactly where its weights, shape and vocabulary are
//! laid out as a checkpoint's folder, closely as the file is.

use std::path::Path;

use anyhow::{Context as _, ensure};
use safetensors::tensor::{Dtype, TensorView};
use shieldgate_models::Stop;
use shieldgate_models::checkpoint::config::TextConfig;
use shieldgate_models::checkpoint::gguf::{Gguf, names};
use shieldgate_models::checkpoint::weights::BlocksAs;
use shieldgate_models::graph::text::Tap;
use shieldgate_models::judges::gemma3::{Pooling, Pools, Reader};

use super::{folder, golden, runtime};

/// All numbers in single precision, under the names of a safetensors file.
pub(super) fn lay_out(gguf: &Gguf, folder: &Path) -> anyhow::Result<()> {
    let mut tensors = Vec::new();
    for tensor in gguf.tensors() {
        // A safetensors file has `w` where a GGUF has `1 + w`.
        let less = if names::is_norm(&tensor.name) { 1.0 } else { 0.0 };
        let numbers = gguf.dequantise(tensor)?;
        let bytes: Vec<u8> = numbers.into_iter().flat_map(|number| (number - less).to_le_bytes()).collect();
        let name = names::plain_name(&tensor.name).with_context(|| tensor.name.clone())?;
        tensors.push((name, tensor.shape.clone(), bytes));
    }
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    safetensors::serialize_to_file(views, None, &folder.join("model.safetensors"))?;
    let TextConfig { vocabulary, hidden, inner, heads, kv_heads, head_dim, window, positions, .. } =
        gguf.gemma3_config()?;
    let config = serde_json::json!({
        "model_type": "gemma3_text",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": gguf.gemma3_config()?.layers.len(),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "sliding_window": window,
        "max_position_embeddings": positions,
        "query_pre_attn_scalar": head_dim,
    });
    std::fs::write(folder.join("config.json"), config.to_string())?;
    let tokenizer = gguf.tokenizer()?.to_string(false).map_err(anyhow::Error::from_boxed)?;
    std::fs::write(folder.join("tokenizer.json"), tokenizer)?;
    Ok(())
}

/// Mean and last of each text's final hidden states, one after the other.
pub(super) fn states(folder: &Path, blocks: BlocksAs, texts: &[&str]) -> anyhow::Result<Vec<Vec<f32>>> {
    let pools = Pools { whole: vec![Pooling::Mean, Pooling::Last], stretches: vec![] };
    let reader = Reader::open_with_blocks(&runtime()?, folder, vec![Tap::Final], pools, blocks)?;
    let states = reader.features(texts, &Stop::default());
    states.into_iter().map(|states| states.map_err(|failure| anyhow::anyhow!("{failure:?}"))).collect()
}

#[test]
fn a_reader_over_its_numbers_has_the_references_hidden_states() -> anyhow::Result<()> {
    let gguf = Gguf::open(&folder().join("tiny.gguf"))?;
    let laid = tempfile::tempdir()?;
    lay_out(&gguf, laid.path())?;
    let golden = golden("tiny.json")?;
    let text = golden.samples.first().context("samples")?.text.as_str();
    let found = states(laid.path(), BlocksAs::Numbers, &[text])?.concat();
    // The first row is `<bos>`'s.
    let rows = golden.hidden.get(1..).context("rows")?;
    ensure!(rows.len() > 8, "longer than the window");
    let mean = (0..32).map(|at| rows.iter().map(|row| row[at]).sum::<f32>() / rows.len() as f32);
    let expected: Vec<f32> = mean.chain(rows[rows.len() - 1].iter().copied()).collect();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
    Ok(())
}

/// A folder with nothing but the file.
pub(super) fn alone(file: &Path) -> anyhow::Result<tempfile::TempDir> {
    let alone = tempfile::tempdir()?;
    std::os::unix::fs::symlink(file, alone.path().join("a name of its own.gguf"))?;
    Ok(alone)
}

pub(super) fn cosine(a: impl IntoIterator<Item = f64>, b: &[f32]) -> f64 {
    let (mut dot, mut aa, mut bb) = (0f64, 0f64, 0f64);
    for (a, b) in a.into_iter().zip(b.iter().map(|b| f64::from(*b))) {
        (dot, aa, bb) = (dot + a * b, aa + a * a, bb + b * b);
    }
    dot / (aa * bb).sqrt()
}

#[test]
fn a_reader_over_the_file_itself_comes_close() -> anyhow::Result<()> {
    let file = folder().join("tiny.gguf");
    let laid = tempfile::tempdir()?;
    lay_out(&Gguf::open(&file)?, laid.path())?;
    let golden = golden("tiny.json")?;
    let texts: Vec<&str> = golden.samples.iter().map(|sample| sample.text.as_str()).collect();
    let exact = states(laid.path(), BlocksAs::Numbers, &texts)?;
    let alone = alone(&file)?;
    assert_eq!(states(alone.path(), BlocksAs::Numbers, &texts)?, exact);
    let found = states(alone.path(), BlocksAs::Packed, &texts)?;
    for ((exact, found), text) in exact.iter().zip(&found).zip(&texts) {
        for (exact, found) in exact.chunks(32).zip(found.chunks(32)) {
            let cosine = cosine(exact.iter().map(|number| f64::from(*number)), found);
            assert!(cosine >= 0.99, "{text:?}: {cosine}");
            assert_ne!(exact, found, "the file has weights in blocks");
        }
    }
    Ok(())
}
