//! The reference's values, and judges to hold against them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use safetensors::SafeTensors;
use shieldgate_models::graph::text::Tap;
use shieldgate_models::judges::gemma3::{Gemma3, Pooling, Pools, Reader};
use shieldgate_models::runtime::{DeviceChoice, Runtime};
use shieldgate_models::{Answer, Content, Digest, Judge, JudgeCard, Modality, PolicyText, Question, Stop};

/// What the judge promises against transformers in fp32.
pub(crate) const TOLERANCE: f32 = 1e-5;
/// What it promises between a probability alone and with others, whole and in pieces.
pub(crate) const BETWEEN: f32 = 1e-6;
/// Likewise of hidden states, of the largest number: matrices of other sizes are summed in another order.
pub(crate) const BETWEEN_STATES: f32 = 2e-6;
/// `d` is a Gemma 2.
pub(crate) const CHECKPOINTS: [&str; 4] = ["a", "b", "c", "d"];

#[derive(serde::Deserialize)]
pub(crate) struct Golden {
    pub(crate) policies: BTreeMap<String, String>,
    pub(crate) prompts: BTreeMap<String, BTreeMap<String, String>>,
    pub(crate) texts: Vec<Text>,
    pub(crate) layers: usize,
}

#[derive(serde::Deserialize)]
pub(crate) struct Text {
    pub(crate) name: String,
    pub(crate) text: String,
    /// As it is read when nothing is asked.
    pub(crate) ids: Vec<u32>,
    /// By policy.
    pub(crate) asked: BTreeMap<String, Asked>,
}

#[derive(serde::Deserialize)]
pub(crate) struct Asked {
    pub(crate) order: String,
    pub(crate) probability: f32,
}

impl Golden {
    /// Every place that transformers' `hidden_states` are from.
    pub(crate) fn taps(&self) -> Vec<Tap> {
        (0..self.layers).map(Tap::Layer).chain([Tap::Final]).collect()
    }

    pub(crate) fn texts(&self) -> Vec<&str> {
        self.texts.iter().map(|text| text.text.as_str()).collect()
    }
}

/// Hidden states as transformers gives them: [layers + 1, hidden] by text, pooled.
pub(crate) struct States(Vec<u8>);

impl States {
    pub(crate) fn of(name: &str) -> Result<Self> {
        Ok(Self(std::fs::read(folder().join(name).join("golden.safetensors"))?))
    }

    pub(crate) fn get(&self, text: &str, what: &str) -> Result<Vec<f32>> {
        let arrays = SafeTensors::deserialize(&self.0)?;
        let array = arrays.tensor(&format!("{text}.{what}"))?;
        Ok(array.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gemma3")
}

pub(crate) fn checkpoint(name: &str) -> PathBuf {
    folder().join(name).join("checkpoint")
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

/// Both poolings, everywhere that the reference reads.
pub(crate) fn reader(name: &str) -> Result<Reader> {
    let taps = golden(name)?.taps();
    Ok(Reader::open(
        &runtime(),
        &checkpoint(name),
        taps,
        Pools { whole: vec![Pooling::Mean, Pooling::Last], stretches: vec![] },
    )?)
}

pub(crate) fn judge(folder: &Path) -> Result<Gemma3> {
    let card = JudgeCard {
        name: "tiny".to_owned(),
        kind: "gemma3",
        modality: Modality::Text,
        digest: Digest::of(b"test"),
        demo: false,
    };
    Ok(Gemma3::open(&runtime(), folder, card)?)
}

pub(crate) fn question(judge: &dyn Judge, id: &str, text: &str) -> Result<Question> {
    Ok(judge.question(&PolicyText {
        id,
        text,
        head: text.is_empty().then_some(id),
        temperature: 1.0,
        alpha: 0.0,
    })?)
}

pub(crate) fn questions(judge: &dyn Judge, golden: &Golden) -> Result<Vec<Question>> {
    golden.policies.iter().map(|(id, text)| question(judge, id, text)).collect()
}

/// Every text under every question, in one batch.
pub(crate) fn ask(
    judge: &dyn Judge,
    texts: &[&str],
    questions: &[Question],
    stop: &Stop,
) -> Vec<Vec<Answer>> {
    let batch = texts.iter().map(|text| shieldgate_models::Asked { content: Content::Text(text), questions });
    judge.judge_batch(&batch.collect::<Vec<_>>(), stop)
}

pub(crate) fn probability(answer: &Answer) -> Result<f32> {
    Ok(answer.clone()?.get())
}

pub(crate) fn largest_difference(a: &[f32], b: &[f32]) -> Result<f32> {
    anyhow::ensure!(a.len() == b.len() && !a.is_empty(), "{} and {} numbers", a.len(), b.len());
    let off = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    off.max_by(f32::total_cmp).context("no numbers")
}
