//! What `models add` says of a folder: everything it covers, and one error for each way to be broken.

use std::path::Path;

use anyhow::{Context, Result, bail};
use safetensors::SafeTensors;
use shieldgate_models::checkpoint::CheckpointError;
use shieldgate_models::installed::{Installed, ModelError};
use shieldgate_models::{Content, Failure, Stop, judges};

use crate::golden::{CHECKPOINTS, TOLERANCE, folder, golden, picture, probability, question, runtime};

/// A copy of a checkpoint, to be broken.
fn copy(name: &str) -> Result<tempfile::TempDir> {
    let target = tempfile::tempdir()?;
    for entry in std::fs::read_dir(folder().join(name).join("checkpoint"))? {
        let path = entry?.path();
        std::fs::copy(&path, target.path().join(path.file_name().context("a name")?))?;
    }
    Ok(target)
}

fn edit_json(path: &Path, edit: impl FnOnce(&mut serde_json::Value)) -> Result<()> {
    let mut value = serde_json::from_slice(&std::fs::read(path)?)?;
    edit(&mut value);
    Ok(std::fs::write(path, serde_json::to_vec(&value)?)?)
}

/// Rewrites a safetensors header; `edit` gets it as JSON, the data stay.
fn edit_header(path: &Path, edit: impl FnOnce(&str) -> String) -> Result<()> {
    let bytes = std::fs::read(path)?;
    let length = usize::try_from(u64::from_le_bytes(*bytes.first_chunk().context("a length")?))?;
    let header = edit(std::str::from_utf8(&bytes[8..8 + length])?);
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(&bytes[8 + length..]);
    Ok(std::fs::write(path, out)?)
}

#[test]
fn every_way_to_be_broken_has_its_own_error() -> Result<()> {
    type Break = fn(&Path) -> Result<()>;
    let cases: [(&str, Break, &[&str]); 18] = [
        (
            "missing tensor",
            |folder| {
                edit_header(&folder.join("model.safetensors"), |header| {
                    header.replace("layers.7.self_attn.q_norm.weight", "layers.7.self_attn.x_norm.weight")
                })
            },
            &["language_model.layers.7.self_attn.q_norm.weight", "missing"],
        ),
        (
            "wrong shape",
            |folder| {
                edit_json(&folder.join("config.json"), |json| {
                    json["text_config"]["intermediate_size"] = 63.into()
                })
            },
            &["gate_proj.weight", "[64, 32]", "[63, 32]"],
        ),
        (
            "truncated file",
            |folder| {
                let path = folder.join("model.safetensors");
                let bytes = std::fs::read(&path)?;
                Ok(std::fs::write(path, &bytes[..bytes.len() - 1000])?)
            },
            &["model.safetensors", "truncated"],
        ),
        (
            "a number type of another kind",
            |folder| {
                edit_header(&folder.join("model.safetensors"), |header| {
                    header.replacen("\"F32\"", "\"I32\"", 1)
                })
            },
            &["I32", "BF16"],
        ),
        (
            "no weights",
            |folder| Ok(std::fs::remove_file(folder.join("model.safetensors"))?),
            &["model.safetensors", "missing"],
        ),
        (
            "no tokenizer",
            |folder| Ok(std::fs::remove_file(folder.join("tokenizer.json"))?),
            &["tokenizer.json", "missing"],
        ),
        (
            "garbage tokenizer",
            |folder| Ok(std::fs::write(folder.join("tokenizer.json"), "{]")?),
            &["tokenizer.json", "no tokenizer"],
        ),
        (
            "no template",
            |folder| Ok(std::fs::remove_file(folder.join("chat_template.jinja"))?),
            &["chat_template.jinja", "missing"],
        ),
        (
            "a template for texts",
            |folder| {
                Ok(std::fs::write(
                    folder.join("chat_template.jinja"),
                    "{{ bos_token }}{{ messages[0]['content'] }}",
                )?)
            },
            &["chat template", "<start_of_image>"],
        ),
        (
            "a template that refuses",
            |folder| {
                Ok(std::fs::write(folder.join("chat_template.jinja"), "{{ raise_exception('no images') }}")?)
            },
            &["chat template", "no images"],
        ),
        (
            "a broken template",
            |folder| Ok(std::fs::write(folder.join("chat_template.jinja"), "{% for %}")?),
            &["chat template", "syntax"],
        ),
        (
            "garbage preprocessing",
            |folder| Ok(std::fs::write(folder.join("processor_config.json"), "garbage")?),
            &["processor_config.json", "JSON"],
        ),
        (
            "another resampling",
            |folder| {
                edit_json(&folder.join("processor_config.json"), |json| {
                    json["image_processor"]["resample"] = 3.into()
                })
            },
            &["processor_config.json", "resample", "bilinear"],
        ),
        (
            "another picture size",
            |folder| {
                edit_json(&folder.join("processor_config.json"), |json| {
                    json["image_processor"]["size"]["width"] = 224.into();
                })
            },
            &["size", "112"],
        ),
        (
            "another number of image tokens",
            |folder| edit_json(&folder.join("config.json"), |json| json["mm_tokens_per_image"] = 9.into()),
            &["mm_tokens_per_image", "9"],
        ),
        (
            "a softcap",
            |folder| {
                edit_json(&folder.join("config.json"), |json| {
                    json["text_config"]["final_logit_softcapping"] = 30.into()
                })
            },
            &["final_logit_softcapping", "null"],
        ),
        (
            "another rotary embedding",
            |folder| {
                edit_json(&folder.join("config.json"), |json| {
                    json["text_config"]["rope_parameters"]["full_attention"]["rope_type"] = "yarn".into();
                })
            },
            &["rope_type", "yarn"],
        ),
        (
            "another text model",
            |folder| {
                edit_json(&folder.join("config.json"), |json| {
                    json["text_config"]["model_type"] = "paligemma".into()
                })
            },
            &["paligemma", "gemma3_text"],
        ),
    ];
    for (what, damage, expected) in cases {
        let folder = copy("a")?;
        damage(folder.path()).context(what)?;
        let error = Installed::check(folder.path(), Some("mine"))
            .err()
            .with_context(|| format!("{what}: accepted"))?;
        let text = format!("{:#}", anyhow::Error::from(error));
        for part in expected {
            assert!(text.contains(part), "{what}: `{part}` is not in: {text}");
        }
        println!("{what}: {text}");
    }
    Ok(())
}

#[test]
fn another_architecture_is_named() -> Result<()> {
    use shieldgate_models::checkpoint::config::Config;
    let folder = copy("a")?;
    let path = folder.path().join("config.json");
    edit_json(&path, |json| json["model_type"] = "paligemma".into())?;
    let error = Config::read(folder.path()).expect_err("another architecture");
    assert!(
        matches!(&error, CheckpointError::WrongArchitecture { found, .. } if found == "paligemma"),
        "{error}"
    );
    let error = Installed::check(folder.path(), Some("mine")).expect_err("not ours").to_string();
    assert!(error.contains("paligemma") && error.contains("shieldgemma2"), "{error}");
    std::fs::write(&path, "{\"model_type\": \"shieldgemma2\"")?;
    assert!(matches!(Config::read(folder.path()), Err(CheckpointError::Json { .. })));
    Ok(())
}

/// What a checkpoint of four shards answers once `damage` was done to it.
fn refused(damage: impl FnOnce(&Path) -> Result<()>) -> Result<CheckpointError> {
    let folder = copy("c")?;
    damage(folder.path())?;
    match Installed::check(folder.path(), Some("mine")) {
        Err(ModelError::Checkpoint(error)) => Ok(error),
        other => bail!("{other:?}"),
    }
}

#[test]
fn shards_and_their_index_must_agree() -> Result<()> {
    const SECOND: &str = "model-00002-of-00004.safetensors";
    const THIRD: &str = "model-00003-of-00004.safetensors";
    let index = |folder: &Path| folder.join("model.safetensors.index.json");
    /// The name of one tensor of a shard.
    fn tensor_of(shard: &Path) -> Result<String> {
        let bytes = std::fs::read(shard)?;
        let mut names = SafeTensors::read_metadata(&bytes)?.1.offset_keys();
        names.sort();
        names.pop().context("a tensor")
    }

    let error = refused(|folder| Ok(std::fs::remove_file(folder.join(SECOND))?))?;
    assert!(matches!(&error, CheckpointError::ShardMissing { .. }), "{error}");
    assert!(error.to_string().contains(SECOND) && error.to_string().contains("index.json"), "{error}");
    // A Hub cache that lost a blob.
    let error = refused(|folder| {
        std::fs::remove_file(folder.join(SECOND))?;
        Ok(std::os::unix::fs::symlink("../blobs/gone", folder.join(SECOND))?)
    })?;
    assert!(matches!(&error, CheckpointError::ShardMissing { .. }), "{error}");

    let error = refused(|folder| {
        let bytes = std::fs::read(folder.join(SECOND))?;
        Ok(std::fs::write(folder.join(SECOND), &bytes[..bytes.len() - 1])?)
    })?;
    assert!(matches!(&error, CheckpointError::Truncated { .. }), "{error}");
    assert!(error.to_string().contains(SECOND), "{error}");

    // One name in two shards: the same bytes twice, under another shard's name.
    let error = refused(|folder| {
        std::fs::copy(folder.join(SECOND), folder.join("twice.safetensors"))?;
        edit_json(&index(folder), |json| json["weight_map"]["extra"] = "twice.safetensors".into())
    })?;
    assert!(matches!(&error, CheckpointError::TensorTwice { .. }), "{error}");
    assert!(error.to_string().contains(SECOND) && error.to_string().contains("twice.safetensors"), "{error}");

    // The index of another checkpoint: a tensor is in another shard than it says, or in none.
    let error = refused(|folder| {
        let name = tensor_of(&folder.join(SECOND))?;
        edit_json(&index(folder), |json| json["weight_map"][name] = THIRD.into())
    })?;
    assert!(matches!(&error, CheckpointError::TensorElsewhere { .. }), "{error}");
    assert!(error.to_string().contains(THIRD), "{error}");
    let error = refused(|folder| edit_json(&index(folder), |json| json["weight_map"]["x"] = SECOND.into()))?;
    assert!(matches!(&error, CheckpointError::TensorElsewhere { .. }), "{error}");

    for outside in ["../../etc/passwd", "/etc/passwd", "..", "a/b.safetensors", ""] {
        let error =
            refused(|folder| edit_json(&index(folder), |json| json["weight_map"]["x"] = outside.into()))?;
        assert!(matches!(&error, CheckpointError::Unsupported { key, .. } if key == "weight_map"), "{error}");
    }
    Ok(())
}

/// Every file a link out of the snapshot, as in a Hub cache; weights go to the folder that `place` names.
fn linked(name: &str, root: &Path, place: impl Fn(usize) -> String) -> Result<std::path::PathBuf> {
    let snapshot = root.join("snapshots/0000000000000000000000000000000000000000");
    std::fs::create_dir_all(&snapshot)?;
    for (at, entry) in std::fs::read_dir(folder().join(name).join("checkpoint"))?.enumerate() {
        let path = entry?.path();
        let blob = root.join(place(at));
        std::fs::create_dir_all(blob.parent().context("a folder")?)?;
        std::fs::copy(&path, &blob)?;
        let link = Path::new("../..").join(place(at));
        std::os::unix::fs::symlink(link, snapshot.join(path.file_name().context("a name")?))?;
    }
    Ok(snapshot)
}

#[test]
fn a_checkpoint_is_read_where_a_hub_cache_has_it() -> Result<()> {
    // `blobs/HASH`, and as newer Python tools share them between models: `blobs/HA/HASH`.
    let layouts: [fn(usize) -> String; 2] =
        [|at| format!("blobs/{at:064x}"), |at| format!("blobs/{at:02x}/{at:064x}")];
    for name in CHECKPOINTS {
        for place in layouts {
            let root = tempfile::tempdir()?;
            let snapshot = linked(name, root.path(), place)?;
            let installed = Installed::check(&snapshot, Some("cached"))?;
            let judge = judges::open(&runtime(), &installed, |_| "test")?;
            let golden = golden(name)?;
            let run = golden.runs.first().context("a picture")?;
            let question = question(&*judge, "short", &golden.policies["short"])?;
            let p = probability(
                &judge.judge(Content::Picture(&picture(&run.picture)?), &[question], &Stop::default())[0],
            )?;
            assert!((p - run.alone["short"].probability).abs() <= TOLERANCE, "{name}: {p}");
        }
    }
    Ok(())
}

#[test]
fn the_record_covers_every_file() -> Result<()> {
    let whole = copy("b")?;
    let installed = Installed::check(whole.path(), Some("linked"))?;
    let files: Vec<_> = installed.files.iter().map(|file| file.path.display().to_string()).collect();
    assert_eq!(files.len(), std::fs::read_dir(whole.path())?.count(), "{files:?}");

    // Any file that changes how pictures are judged changes the judge.
    for file in files {
        let changed = copy("b")?;
        let path = changed.path().join(&file);
        if file.ends_with(".safetensors") {
            let mut bytes = std::fs::read(&path)?;
            *bytes.last_mut().context("a byte")? ^= 1;
            std::fs::write(&path, bytes)?;
        } else {
            let mut text = std::fs::read_to_string(&path)?;
            text.push('\n');
            std::fs::write(&path, text)?;
        }
        let changed = Installed::check(changed.path(), Some("linked"))?;
        assert_ne!(judges::digest(&changed, |_| "test")?, judges::digest(&installed, |_| "test")?, "{file}");
    }
    Ok(())
}

#[test]
fn configuration_that_came_later_is_not_read_unsaid() -> Result<()> {
    let folder = copy("a")?;
    let template = folder.path().join("chat_template.jinja");
    let text = std::fs::read(&template)?;
    std::fs::remove_file(&template)?;
    std::fs::write(
        folder.path().join("chat_template.json"),
        serde_json::json!({"chat_template": String::from_utf8(text.clone())?}).to_string(),
    )?;
    let installed = Installed::check(folder.path(), Some("later"))?;
    assert!(judges::open(&runtime(), &installed, |_| "test").is_ok());
    std::fs::write(&template, text)?;
    let error = judges::open(&runtime(), &installed, |_| "test").err().context("opened")?.to_string();
    assert!(error.contains("chat_template.jinja") && error.contains("was not there"), "{error}");
    Ok(())
}

#[test]
fn a_folder_may_say_what_it_is() -> Result<()> {
    let folder = copy("a")?;
    let path = folder.path().join("config.json");
    edit_json(&path, |json| json["shieldgate"] = serde_json::json!({"name": "tiny", "demo": true}))?;
    let installed = Installed::check(folder.path(), None)?;
    assert_eq!((installed.name.as_str(), installed.demo), ("tiny", true));
    Ok(())
}

#[test]
fn nan_is_a_failure_and_never_a_score() -> Result<()> {
    let folder = copy("a")?;
    let path = folder.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path)?;
    let (length, metadata) = SafeTensors::read_metadata(&bytes)?;
    let norms = metadata.tensors();
    let norm = norms.iter().find(|(name, _)| name.ends_with("language_model.model.norm.weight"));
    let at = 8 + length + norm.context("the last norm")?.1.data_offsets.0;
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes)?;
    let judge = judges::open(&runtime(), &Installed::check(folder.path(), Some("nan"))?, |_| "test")?;
    let questions = [question(&*judge, "one", "No cats.")?, question(&*judge, "other", "No dogs.")?];
    let answers = judge.judge(Content::Picture(&picture("one_pixel")?), &questions, &Stop::default());
    assert_eq!(answers.len(), 2);
    for answer in answers {
        assert!(matches!(answer, Err(Failure::NotAProbability(_))), "{answer:?}");
    }
    Ok(())
}

#[test]
fn graphs_are_small_and_carry_no_weights() -> Result<()> {
    let target = tempfile::tempdir()?;
    let checkpoint = folder().join("a/checkpoint");
    for path in judges::shieldgemma2::write_graphs(&checkpoint, target.path())? {
        let bytes = std::fs::metadata(&path)?.len();
        println!("{}: {bytes} bytes", path.display());
        assert!(bytes < 150_000, "{}", path.display());
    }
    Ok(())
}
