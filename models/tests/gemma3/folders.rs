//! What `models add` says of a folder: everything it covers, and what is wrong with a broken one.

use std::path::Path;

use anyhow::{Context, Result};
use safetensors::SafeTensors;
use shieldgate_models::installed::Installed;
use shieldgate_models::{Failure, Judge, PolicyText, Stop, judges};

use crate::golden::{CHECKPOINTS, ask, checkpoint, golden, judge, questions, runtime};

/// A copy of a checkpoint, to be changed.
pub(crate) fn copy(name: &str) -> Result<tempfile::TempDir> {
    let target = tempfile::tempdir()?;
    for entry in std::fs::read_dir(checkpoint(name))? {
        let path = entry?.path();
        std::fs::copy(&path, target.path().join(path.file_name().context("a name")?))?;
    }
    Ok(target)
}

pub(crate) fn edit_json(path: &Path, edit: impl FnOnce(&mut serde_json::Value)) -> Result<()> {
    let mut value = serde_json::from_slice(&std::fs::read(path)?)?;
    edit(&mut value);
    Ok(std::fs::write(path, serde_json::to_vec(&value)?)?)
}

#[test]
fn every_layout_is_known_and_every_file_recorded() -> Result<()> {
    for name in CHECKPOINTS {
        let folder = copy(name)?;
        let installed = Installed::check(folder.path(), Some("mine"))?;
        assert_eq!(installed.kind, "gemma3");
        assert_eq!(installed.files.len(), std::fs::read_dir(folder.path())?.count(), "{:?}", installed.files);
        assert!(judges::open(&runtime(), &installed, |_| "test").is_ok());
        let before = judges::digest(&installed, |_| "test")?;
        std::fs::write(
            folder.path().join("chat_template.jinja"),
            "{{ bos_token }}{{ messages[0]['content'] }}\n",
        )?;
        assert_ne!(judges::digest(&Installed::check(folder.path(), Some("mine"))?, |_| "test")?, before);
    }
    Ok(())
}

#[test]
fn every_way_to_be_broken_has_its_own_error() -> Result<()> {
    type Break = fn(&Path) -> Result<()>;
    let cases: [(&str, Break, &[&str]); 8] = [
        (
            "wrong shape",
            |folder| edit_json(&folder.join("config.json"), |json| json["intermediate_size"] = 31.into()),
            &["gate_proj.weight", "[32, 24]", "[31, 24]"],
        ),
        (
            "a softcap",
            |folder| {
                edit_json(&folder.join("config.json"), |json| json["final_logit_softcapping"] = 30.into())
            },
            &["final_logit_softcapping", "null"],
        ),
        (
            "a smaller vocabulary",
            |folder| edit_json(&folder.join("config.json"), |json| json["vocab_size"] = 300.into()),
            &["tokenizer.json", "300"],
        ),
        (
            "no tokenizer",
            |folder| Ok(std::fs::remove_file(folder.join("tokenizer.json"))?),
            &["tokenizer.json", "missing"],
        ),
        (
            "a tokenizer that lets users write control tokens",
            |folder| {
                edit_json(&folder.join("tokenizer.json"), |json| {
                    json["added_tokens"] = serde_json::json!([
                        {"id": 10, "content": "a", "special": true, "single_word": false, "lstrip": false,
                            "rstrip": false, "normalized": false}
                    ]);
                })
            },
            &["tokenizer.json", "control token"],
        ),
        (
            "a template that loses the text",
            |folder| Ok(std::fs::write(folder.join("chat_template.jinja"), "{{ bos_token }}Yes?")?),
            &["chat_template.jinja", "placeholder"],
        ),
        (
            "a template that ends with the text",
            |folder| {
                let template = "{{ bos_token }}{{ guideline }}: {{ messages[0]['content'] }}";
                Ok(std::fs::write(folder.join("chat_template.jinja"), template)?)
            },
            &["chat_template.jinja", "nothing stands behind the text"],
        ),
        (
            "a template for pictures",
            |folder| {
                Ok(std::fs::write(folder.join("chat_template.jinja"), "{{ raise_exception('pictures') }}")?)
            },
            &["chat_template.jinja", "pictures"],
        ),
    ];
    for (what, damage, expected) in cases {
        let folder = copy("a")?;
        damage(folder.path()).context(what)?;
        let error = Installed::check(folder.path(), Some("mine"));
        let error = error.err().with_context(|| format!("{what}: accepted"))?;
        let text = format!("{:#}", anyhow::Error::from(error));
        for part in expected {
            assert!(text.contains(part), "{what}: `{part}` is not in: {text}");
        }
        println!("{what}: {text}");
    }
    Ok(())
}

#[test]
fn policies_that_no_prompt_can_carry_are_refused() -> Result<()> {
    let judge = judge(&checkpoint("a"))?;
    for (text, expected) in
        [(" ", "no text"), ("As in ⟦text⟧ above", "⟦text⟧"), (&"very ".repeat(1500), "1024 are allowed")]
    {
        let error =
            judge.question(&PolicyText { id: "mine", text, head: None, temperature: 1.0, alpha: 0.0 });
        let error = error.expect_err(expected).to_string();
        assert!(error.contains(expected) && error.contains("`mine`"), "{error}");
    }
    Ok(())
}

#[test]
fn nan_is_a_failure_and_never_a_score() -> Result<()> {
    let folder = copy("a")?;
    let path = folder.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path)?;
    let (length, metadata) = SafeTensors::read_metadata(&bytes)?;
    let tensors = metadata.tensors();
    let at = 8 + length + tensors.get("model.norm.weight").context("the last norm")?.data_offsets.0;
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes)?;
    let judge = judge(folder.path())?;
    let golden = golden("a")?;
    for answer in ask(&judge, &golden.texts(), &questions(&judge, &golden)?, &Stop::default()).concat() {
        assert!(matches!(answer, Err(Failure::NotAProbability(_))), "{answer:?}");
    }
    Ok(())
}
