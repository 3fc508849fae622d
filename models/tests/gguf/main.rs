//! GGUF files against what the reference implementations make of them (`models/reference/make_gguf.py`).
#![expect(clippy::expect_used, reason = "a test that cannot set up fails")]

mod files;
mod judge;
mod packed;
mod real;
mod states;
mod vocabulary;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use shieldgate_models::checkpoint::gguf::Gguf;
use shieldgate_models::runtime::{DeviceChoice, Runtime};

#[derive(Deserialize)]
struct Golden {
    tensors: BTreeMap<String, GoldenTensor>,
    #[serde(default)]
    samples: Vec<Sample>,
    /// Of the first sample after `<bos>`, a row a token.
    #[serde(default)]
    hidden: Vec<Vec<f32>>,
    #[serde(default)]
    texts: Vec<Text>,
}

#[derive(Deserialize)]
struct GoldenTensor {
    stored: String,
    shape: Vec<usize>,
    /// Of the numbers in single precision.
    sha256: String,
}

#[derive(Deserialize)]
struct Sample {
    text: String,
    /// Every token that is matched as a whole is matched.
    written: Vec<u32>,
    /// Control tokens are mere characters.
    content: Vec<u32>,
}

/// Of the real model's.
#[derive(Deserialize)]
struct Text {
    text: String,
    /// `<bos>` first; control tokens are mere characters.
    ids: Vec<u32>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gguf")
}

/// One a process, before any tensor is made, which needs the library.
fn runtime() -> anyhow::Result<Arc<Runtime>> {
    static RUNTIME: OnceLock<Arc<Runtime>> = OnceLock::new();
    // What `make build` fetched, beside the folder that this test was built into.
    let here = std::env::current_exe()?;
    let library = here
        .ancestors()
        .map(|folder| folder.join("assets/onnxruntime/libonnxruntime.so.1.32.0"))
        .find(|library| library.is_file())
        .context("no `assets` folder above the test: run `make build`, which fetches it")?;
    let load = || Runtime::load(&library, DeviceChoice::Cpu, 2).expect("it is an ONNX Runtime");
    Ok(Arc::clone(RUNTIME.get_or_init(load)))
}

fn golden(name: &str) -> anyhow::Result<Golden> {
    let path = folder().join(name);
    serde_json::from_slice(&std::fs::read(&path)?).with_context(|| path.display().to_string())
}

/// That every tensor has the bits that the reference gives it.
fn assert_same_numbers(gguf: &Gguf, golden: &Golden) -> anyhow::Result<()> {
    let names: Vec<&str> = gguf.tensors().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, golden.tensors.keys().collect::<Vec<_>>());
    for tensor in gguf.tensors() {
        let expected = &golden.tensors[&tensor.name];
        assert_eq!((tensor.stored.name(), &tensor.shape), (expected.stored.as_str(), &expected.shape));
        let mut digest = Sha256::new();
        for number in gguf.dequantise(tensor)? {
            digest.update(number.to_le_bytes());
        }
        let found: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, expected.sha256, "{} ({})", tensor.name, expected.stored);
    }
    Ok(())
}
