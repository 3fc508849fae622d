//! The reference's values, and a judge to hold against them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use shieldgate_models::judges::shieldgemma2::ShieldGemma2;
use shieldgate_models::runtime::{DeviceChoice, Runtime};
use shieldgate_models::{Answer, Digest, Judge, JudgeCard, Modality, Picture, PolicyText, Question};

/// What the judge promises against transformers in fp32.
pub(crate) const TOLERANCE: f32 = 1e-5;
pub(crate) const CHECKPOINTS: [&str; 3] = ["a", "b", "c"];
/// Those with pixels and features of their own; `c` sees what `a` sees.
pub(crate) const WITH_ARRAYS: [&str; 2] = ["a", "b"];

#[derive(serde::Deserialize)]
pub(crate) struct Golden {
    pub(crate) policies: BTreeMap<String, String>,
    pub(crate) prompts: BTreeMap<String, String>,
    pub(crate) token_ids: BTreeMap<String, Vec<u32>>,
    pub(crate) runs: Vec<Run>,
}

/// One picture.
#[derive(serde::Deserialize)]
pub(crate) struct Run {
    pub(crate) picture: String,
    /// Each policy in a call of its own.
    pub(crate) alone: BTreeMap<String, Alone>,
    /// Several policies in one call, in several orders.
    pub(crate) together: Vec<Together>,
}

#[derive(serde::Deserialize)]
pub(crate) struct Alone {
    pub(crate) logits: [f64; 2],
    pub(crate) probability: f32,
}

#[derive(serde::Deserialize)]
pub(crate) struct Together {
    pub(crate) order: Vec<String>,
    pub(crate) probabilities: Vec<f32>,
}

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shieldgemma2")
}

pub(crate) fn golden(name: &str) -> Result<Golden> {
    Ok(serde_json::from_slice(&std::fs::read(folder().join(name).join("golden.json"))?)?)
}

#[expect(clippy::expect_used, reason = "without the runtime every test must fail, and say why")]
pub(crate) fn runtime() -> Arc<Runtime> {
    static RUNTIME: OnceLock<Arc<Runtime>> = OnceLock::new();
    Arc::clone(RUNTIME.get_or_init(|| {
        let library = std::env::var_os("SHIELDGATE_ONNXRUNTIME").map(PathBuf::from).unwrap_or_else(|| {
            let here = std::env::current_exe().expect("a test has a path");
            here.ancestors()
                .map(|folder| folder.join("assets/onnxruntime/libonnxruntime.so.1.32.0"))
                .find(|library| library.is_file())
                .expect("no `assets/onnxruntime` folder above the test: run `make build`, which fetches it")
        });
        Runtime::load(&library, DeviceChoice::Cpu, 2).expect("ONNX Runtime loads")
    }))
}

pub(crate) fn open(name: &str) -> Result<ShieldGemma2> {
    let card = JudgeCard {
        name: name.to_owned(),
        kind: "shieldgemma2",
        modality: Modality::Image,
        digest: Digest::of(b"test"),
        demo: false,
    };
    Ok(ShieldGemma2::open(&runtime(), &folder().join(name).join("checkpoint"), card)?)
}

pub(crate) fn picture(name: &str) -> Result<Picture> {
    let path = folder().join("pictures").join(format!("{name}.png"));
    let image = image::open(&path).with_context(|| path.display().to_string())?.to_rgb8();
    Ok(Picture::new(image.width(), image.height(), image.into_raw())?)
}

pub(crate) fn question(judge: &dyn Judge, id: &str, text: &str) -> Result<Question> {
    Ok(judge.question(&PolicyText { id, text, head: None, temperature: 1.0, alpha: 0.0 })?)
}

pub(crate) fn questions(judge: &dyn Judge, golden: &Golden, order: &[String]) -> Result<Vec<Question>> {
    order.iter().map(|id| question(judge, id, golden.policies.get(id).context("a policy")?)).collect()
}

pub(crate) fn probability(answer: &Answer) -> Result<f32> {
    Ok(answer.clone()?.get())
}
