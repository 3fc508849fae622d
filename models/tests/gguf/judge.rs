//! A folder with a GGUF is a judge as any checkpoint: by heads, and in words where the file has a chat template.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use shieldgate_models::graph::text::Tap;
use shieldgate_models::installed::Installed;
use shieldgate_models::judges::gemma3::heads::{self, Calibration, Head, Heads};
use shieldgate_models::judges::gemma3::{Pooling, model_digest};
use shieldgate_models::{Content, Judge, Modality, PolicyText, Stop, judges};

use super::states::{cosine, lay_out};
use super::{folder, runtime};

const TEXTS: [&str; 3] =
    ["hello world", "a", "The cat sat on the mat, and then it sat there again and again."];

fn write_head(folder: &Path) -> anyhow::Result<()> {
    let head = Head {
        model: model_digest(folder)?,
        layers: vec![Tap::Layer(1).into(), Tap::Final.into()],
        pooling: Pooling::Mean,
        stretches: None,
        weights: (0..64).map(|at| (at * 31 % 17) as f32 / 17.0 - 0.5).collect(),
        bias: 0.25,
        calibration: Calibration::default(),
        trained: serde_json::Value::Null,
    };
    let heads = Heads::of(BTreeMap::from([("insult".to_owned(), head)]));
    Ok(std::fs::write(folder.join(heads::FILE), serde_json::to_vec(&heads)?)?)
}

fn open(folder: &Path) -> anyhow::Result<Box<dyn Judge>> {
    let installed = Installed::check(folder, Some("tiny"))?;
    Ok(judges::open(&runtime()?, &installed, |_: Modality| "a pipeline")?)
}

fn probabilities(judge: &dyn Judge) -> anyhow::Result<Vec<f64>> {
    let policy = PolicyText { id: "insult", text: "", head: Some("insult"), temperature: 1.0, alpha: 0.0 };
    let questions = [judge.question(&policy)?];
    let answers =
        TEXTS.iter().flat_map(|text| judge.judge(Content::Text(text), &questions, &Stop::default()));
    answers.map(|answer| Ok(f64::from(answer.context("answered")?.get()))).collect()
}

#[test]
fn its_heads_answer_as_those_of_the_laid_out_weights() -> anyhow::Result<()> {
    let file = folder().join("tiny.gguf");
    let alone = tempfile::tempdir()?;
    std::fs::copy(&file, alone.path().join("tiny.gguf"))?;
    let laid = tempfile::tempdir()?;
    lay_out(&shieldgate_models::checkpoint::gguf::Gguf::open(&file)?, laid.path())?;
    let mut found = Vec::new();
    for folder in [alone.path(), laid.path()] {
        write_head(folder)?;
        found.push(probabilities(&*open(folder)?)?);
    }
    for (in_blocks, exact) in found[0].iter().zip(&found[1]) {
        assert!((in_blocks - exact).abs() < 0.05, "{found:?}");
    }
    assert!(cosine(found[1].iter().copied(), &found[0].iter().map(|p| *p as f32).collect::<Vec<_>>()) > 0.99);
    Ok(())
}

#[test]
fn another_name_is_the_same_model_and_two_files_are_none() -> anyhow::Result<()> {
    let (one, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
    std::fs::copy(folder().join("tiny.gguf"), one.path().join("a.gguf"))?;
    std::fs::copy(folder().join("tiny.gguf"), other.path().join("b.GGUF"))?;
    assert_eq!(model_digest(one.path())?, model_digest(other.path())?);

    std::fs::copy(folder().join("tiny.gguf"), one.path().join("b.gguf"))?;
    let error = Installed::check(one.path(), Some("two")).expect_err("which one?").to_string();
    assert!(error.contains("2 GGUF files (a.gguf, b.gguf)"), "{error}");

    // A base model without heads can't be asked.
    let error = Installed::check(other.path(), Some("base")).expect_err("no way to ask").to_string();
    assert!(error.contains("neither a head"), "{error}");
    Ok(())
}

/// The head of another file is refused, though all shapes agree.
#[test]
fn heads_of_another_file_are_refused() -> anyhow::Result<()> {
    let alone = tempfile::tempdir()?;
    let path = alone.path().join("tiny.gguf");
    std::fs::copy(folder().join("tiny.gguf"), &path)?;
    write_head(alone.path())?;
    let mut bytes = std::fs::read(&path)?;
    *bytes.last_mut().context("bytes")? ^= 1;
    std::fs::write(&path, bytes)?;
    let error = Installed::check(alone.path(), Some("tiny")).expect_err("another model").to_string();
    assert!(error.contains("belongs to the model"), "{error}");
    Ok(())
}
