//! The real Gemma 3 270M, where `SHIELDGATE_GEMMA` names a folder with it and the published `tokenizer.json`: `make real`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use half::f16;
use safetensors::SafeTensors;
use shieldgate_models::checkpoint::config::LayerKind;
use shieldgate_models::checkpoint::gguf::{Gguf, names};
use shieldgate_models::checkpoint::weights::BlocksAs;
use shieldgate_models::prompt::tokenizer::TextTokenizer;
use tokenizers::{AddedToken, Tokenizer};

use super::states::{alone, cosine, lay_out, states};
use super::{assert_same_numbers, golden};

const FILE: &str = "gemma-3-270m-q4_k_m.gguf";

fn folder() -> anyhow::Result<PathBuf> {
    Ok(std::env::var_os("SHIELDGATE_GEMMA").context("SHIELDGATE_GEMMA names no folder")?.into())
}

#[test]
#[ignore = "needs the real model"]
fn its_numbers_are_the_references() -> anyhow::Result<()> {
    let gguf = Gguf::open(&folder()?.join(FILE))?;
    assert_same_numbers(&gguf, &golden("gemma-3-270m-q4_k_m.json")?)?;
    assert!(gguf.tensors().all(|tensor| names::plain_name(&tensor.name).is_some()));
    Ok(())
}

#[test]
#[ignore = "needs the real model"]
fn its_shape_is_read() -> anyhow::Result<()> {
    let config = Gguf::open(&folder()?.join(FILE))?.gemma3_config()?;
    assert_eq!((config.vocabulary, config.hidden, config.inner), (262_144, 640, 2048));
    assert_eq!((config.heads, config.kv_heads, config.head_dim), (4, 1, 256));
    assert_eq!((config.window, config.positions, config.tied_head), (512, 32_768, true));
    let global: Vec<usize> =
        (0..config.layers.len()).filter(|at| config.layers[*at] == LayerKind::Global).collect();
    assert_eq!((config.layers.len(), global), (18, vec![5, 11, 17]));
    Ok(())
}

#[test]
#[ignore = "needs the real model"]
fn its_weights_are_packed_closely() -> anyhow::Result<()> {
    let gguf = Gguf::open(&folder()?.join(FILE))?;
    let mut worst = 0f64;
    for tensor in gguf.tensors() {
        let Some(packed) = gguf.pack(tensor)? else { continue };
        let numbers = gguf.dequantise(tensor)?;
        let (mut error, mut size) = (0f64, 0f64);
        for (a, b) in packed.dequantise().iter().zip(&numbers) {
            error += (f64::from(*a) - f64::from(*b)).powi(2);
            size += f64::from(*b).powi(2);
        }
        let difference = (error / size).sqrt();
        let bound = if tensor.stored.name() == "Q4_K" { 0.003 } else { 0.0 };
        assert!(difference <= bound, "{} ({}): {difference}", tensor.name, tensor.stored.name());
        worst = worst.max(difference);
    }
    println!("relative L2 of the worst tensor: {worst:.5}");
    Ok(())
}

/// In single precision; a gigabyte is written beside the file for it and removed.
#[test]
#[ignore = "needs the real model"]
fn its_hidden_states_are_the_references() -> anyhow::Result<()> {
    let gguf = Gguf::open(&folder()?.join(FILE))?;
    let laid = tempfile::tempdir_in(folder()?)?;
    lay_out(&gguf, laid.path())?;
    println!("worst cosine: {:.7}", worst_cosine(laid.path(), BlocksAs::Numbers, 0.999)?);
    Ok(())
}

#[test]
#[ignore = "needs the real model"]
fn its_hidden_states_in_blocks_are_close_to_the_references() -> anyhow::Result<()> {
    let alone = alone(&folder()?.join(FILE))?;
    println!("worst cosine: {:.7}", worst_cosine(alone.path(), BlocksAs::Packed, 0.99)?);
    println!("unpacked: {:.7}", worst_cosine(alone.path(), BlocksAs::Numbers, 0.999)?);
    Ok(())
}

/// Of 50 texts, each at least `least`.
fn worst_cosine(model: &Path, blocks: BlocksAs, least: f64) -> anyhow::Result<f64> {
    let golden_texts = golden("gemma-3-270m-q4_k_m.json")?.texts;
    let texts: Vec<&str> = golden_texts.iter().map(|golden| golden.text.as_str()).collect();
    let found = states(model, blocks, &texts)?;
    let bytes = std::fs::read(super::folder().join("gemma-3-270m-q4_k_m.safetensors"))?;
    let expected = SafeTensors::deserialize(&bytes)?;
    let mut worst = 1f64;
    for (pool, name) in ["mean", "last"].into_iter().enumerate() {
        let rows = expected.tensor(name)?;
        assert_eq!(rows.shape(), [found.len(), 640]);
        for ((row, found), text) in rows.data().chunks_exact(640 * 2).zip(&found).zip(&texts) {
            let expected = row.as_chunks().0.iter().map(|number| f16::from_le_bytes(*number).to_f64());
            let cosine = cosine(expected, &found[pool * 640..][..640]);
            assert!(cosine >= least, "{name} of {text:?}: {cosine}");
            worst = worst.min(cosine);
        }
    }
    Ok(worst)
}

/// Texts of every script: each line of the files that `SHIELDGATE_TEXTS` names, and made ones.
#[test]
#[ignore = "needs the real model"]
fn its_tokens_are_the_published_tokenizers() -> anyhow::Result<()> {
    let folder = folder()?;
    let mut ours = Gguf::open(&folder.join(FILE))?.tokenizer()?;
    let mut published =
        Tokenizer::from_file(folder.join("tokenizer.json")).map_err(anyhow::Error::from_boxed)?;
    let mut special: Vec<AddedToken> =
        ours.get_added_tokens_decoder().into_values().filter(|token| token.special).collect();
    // The made texts are the same for every run.
    special.sort_by(|a, b| a.content.cmp(&b.content));
    let special_ids: BTreeSet<u32> =
        special.iter().filter_map(|token| ours.token_to_id(&token.content)).collect();
    let mut texts = made(&special);
    for path in std::env::var_os("SHIELDGATE_TEXTS").iter().flat_map(std::env::split_paths) {
        texts.extend(String::from_utf8_lossy(&std::fs::read(path)?).lines().map(str::to_owned));
    }
    let golden = golden("gemma-3-270m-q4_k_m.json")?.texts;
    assert_eq!(golden.len(), 50);
    texts.extend(golden.iter().map(|golden| golden.text.clone()));
    for content in [false, true] {
        if content {
            // It lacks some that only the makers may write.
            published.add_special_tokens(special.clone()).map_err(anyhow::Error::from_boxed)?;
        }
        ours.set_encode_special_tokens(content);
        published.set_encode_special_tokens(content);
        let mut ids = 0;
        for text in &texts {
            let encode = |tokenizer: &Tokenizer, special| {
                tokenizer.encode(text.as_str(), special).map_err(anyhow::Error::from_boxed)
            };
            let (a, b) = (encode(&ours, true)?, encode(&published, true)?);
            assert_eq!(a.get_ids(), b.get_ids(), "{text:?}, content: {content}");
            assert_eq!(a.get_offsets(), b.get_offsets(), "{text:?}");
            if content {
                assert!(
                    encode(&ours, false)?.get_ids().iter().all(|id| !special_ids.contains(id)),
                    "{text:?}"
                );
            }
            ids += a.len();
        }
        if content {
            for golden in &golden {
                let found = ours.encode(golden.text.as_str(), true).map_err(anyhow::Error::from_boxed)?;
                assert_eq!(found.get_ids(), golden.ids, "{:?}", golden.text);
            }
        }
        println!("{} texts, {ids} tokens, content: {content}: equal", texts.len());
    }
    Ok(())
}

/// Runs of characters from all of Unicode, of blanks, and of control tokens, whole and torn.
fn made(special: &[AddedToken]) -> Vec<String> {
    let mut state = 5u64;
    let mut below = |end: u32| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % u64::from(end)) as u32
    };
    let mut texts: Vec<String> = special.iter().map(|token| format!("a{} b", token.content)).collect();
    for block in (0..0x20_000).step_by(0x80).chain((0x20_000..0x11_0000).step_by(0x4000)) {
        let some = (0..40).filter_map(|_| char::from_u32(block + below(0x80)));
        let mut text: String = some.collect();
        texts.push(text.clone());
        if let Some(at) = text.char_indices().nth(10) {
            text.insert_str(at.0, "  \n\n\t ");
        }
        texts.push(text);
    }
    let pieces = [
        " ",
        "  ",
        "\n",
        "\t",
        "▁",
        "<",
        ">",
        "start_of_turn",
        "<h1>",
        "</h1>",
        "é",
        "e\u{301}",
        "🐈\u{200d}⬛",
        "\r\n",
        "\0",
        "the",
        "The ",
        "0",
        "1234",
        "'",
        "ß",
        "ﬁ",
        "\u{feff}",
        "<0x0A>",
        "</",
        "_",
    ];
    for _ in 0..3000 {
        let mut text = String::new();
        for _ in 0..below(30) {
            match below(8) {
                0 => text.push_str(&special[below(special.len() as u32) as usize].content),
                _ => {
                    text.push_str(&pieces[below(pieces.len() as u32) as usize].repeat(1 + below(4) as usize))
                }
            }
        }
        texts.push(text);
    }
    texts
}

/// By the published `tokenizer.json` as by the file's own vocabulary.
#[test]
#[ignore = "needs the real model"]
fn no_text_makes_one_of_its_makers_tokens() -> anyhow::Result<()> {
    let own = Gguf::open(&folder()?.join(FILE))?.tokenizer()?;
    let special: Vec<(u32, AddedToken)> =
        own.get_added_tokens_decoder().into_iter().filter(|(_, token)| token.special).collect();
    assert_eq!(special.len(), 6252);
    for tokenizer in
        [TextTokenizer::of(own), TextTokenizer::read(&folder()?).map_err(|error| error.to_string())]
    {
        let tokenizer = tokenizer.map_err(anyhow::Error::msg)?;
        for (id, token) in &special {
            assert!(!tokenizer.content(&token.content)?.contains(id), "{}", token.content);
            assert_eq!(tokenizer.written(&token.content)?, [*id], "{}", token.content);
        }
    }
    Ok(())
}
