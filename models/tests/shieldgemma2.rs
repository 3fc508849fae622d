//! ShieldGemma 2 against transformers: the values that `models/reference` wrote from two tiny random checkpoints.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, ensure};
use safetensors::SafeTensors;
use shieldgate_models::installed::Installed;
use shieldgate_models::judges::{self, shieldgemma2::ShieldGemma2};
use shieldgate_models::runtime::{DeviceChoice, Runtime};
use shieldgate_models::{
    Answer, Digest, Failure, Judge, JudgeCard, Picture, PolicyText, Question, Stop, resample,
};

/// What the judge promises against transformers in fp32.
const TOLERANCE: f32 = 1e-5;
const CHECKPOINTS: [&str; 2] = ["a", "b"];

#[derive(serde::Deserialize)]
struct Golden {
    policies: BTreeMap<String, String>,
    prompts: BTreeMap<String, String>,
    token_ids: BTreeMap<String, Vec<u32>>,
    runs: Vec<Run>,
}

/// One picture.
#[derive(serde::Deserialize)]
struct Run {
    picture: String,
    /// Each policy in a call of its own.
    alone: BTreeMap<String, Alone>,
    /// Several policies in one call, in several orders.
    together: Vec<Together>,
}

#[derive(serde::Deserialize)]
struct Alone {
    logits: [f64; 2],
    probability: f32,
}

#[derive(serde::Deserialize)]
struct Together {
    order: Vec<String>,
    probabilities: Vec<f32>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shieldgemma2")
}

fn golden(name: &str) -> Result<Golden> {
    Ok(serde_json::from_slice(&std::fs::read(folder().join(name).join("golden.json"))?)?)
}

#[expect(clippy::expect_used, reason = "without the runtime every test must fail, and say why")]
fn runtime() -> Arc<Runtime> {
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

fn open(name: &str) -> Result<ShieldGemma2> {
    let card =
        JudgeCard { name: name.to_owned(), kind: "shieldgemma2", digest: Digest::of(b"test"), demo: false };
    Ok(ShieldGemma2::open(&runtime(), &folder().join(name).join("checkpoint"), card)?)
}

fn picture(name: &str) -> Result<Picture> {
    let path = folder().join("pictures").join(format!("{name}.png"));
    let image = image::open(&path).with_context(|| path.display().to_string())?.to_rgb8();
    Ok(Picture::new(image.width(), image.height(), image.into_raw())?)
}

fn question(judge: &dyn Judge, id: &str, text: &str) -> Result<Question> {
    Ok(judge.question(&PolicyText { id, text, temperature: 1.0, alpha: 0.0 })?)
}

fn questions(judge: &dyn Judge, golden: &Golden, order: &[String]) -> Result<Vec<Question>> {
    order.iter().map(|id| question(judge, id, golden.policies.get(id).context("a policy")?)).collect()
}

fn probability(answer: &Answer) -> Result<f32> {
    Ok(answer.clone()?.get())
}

#[test]
fn prompts_and_token_ids_are_equal() -> Result<()> {
    for name in CHECKPOINTS {
        let (judge, golden) = (open(name)?, golden(name)?);
        assert_eq!(golden.prompts.len(), 6);
        for (id, text) in &golden.policies {
            let question = question(&judge, id, text)?;
            assert_eq!(Some(&question.asked), golden.prompts.get(id), "{name} {id}");
            let tokens = judge.tokens(&question)?;
            assert_eq!(Some(&tokens.ids), golden.token_ids.get(id), "{name} {id}");
        }
    }
    Ok(())
}

#[test]
fn pixels_are_the_processors_own() -> Result<()> {
    for name in CHECKPOINTS {
        let judge = open(name)?;
        let file = std::fs::read(folder().join(name).join("golden.safetensors"))?;
        let arrays = SafeTensors::deserialize(&file)?;
        let (mut samples, mut like_torch, mut like_pillow) = (0, 0, 0);
        for run in golden(name)?.runs {
            let expected = arrays.tensor(&format!("{}.levels", run.picture))?;
            let side = u32::try_from(expected.shape()[1])?;
            let picture = picture(&run.picture)?;
            let off = |square: &Picture| -> Result<usize> {
                let mut count = 0;
                for (at, level) in expected.data().iter().enumerate() {
                    let (channel, place) = (at / (side * side) as usize, at % (side * side) as usize);
                    let off = square.rgb()[place * 3 + channel].abs_diff(*level);
                    ensure!(off <= 1, "{name} {}: sample {at} is {off} levels off", run.picture);
                    count += usize::from(off > 0);
                }
                Ok(count)
            };
            samples += expected.data().len();
            like_torch += off(&resample::resize_like_torch(&picture, side, side))?;
            like_pillow += off(&resample::resize(&picture, side, side))?;
            // The values that go into the model follow from the levels.
            let normalised = expected.data().iter().map(|level| (f32::from(*level) - 127.5) / 127.5);
            let worst =
                judge.pixels(&picture).iter().zip(normalised).fold(0.0f32, |a, (b, c)| a.max((b - c).abs()));
            ensure!(worst <= 1.0 / 127.0, "{name} {}: {worst}", run.picture);
        }
        println!(
            "{name}: of {samples} samples {like_torch} differ from the processor's (like Pillow: {like_pillow})"
        );
        assert_eq!(like_torch, 0, "torch's own algorithm");
        assert!(like_pillow > 0, "pictures on which the two algorithms differ");
    }
    Ok(())
}

#[test]
fn normalised_pixels_are_equal() -> Result<()> {
    for name in CHECKPOINTS {
        let judge = open(name)?;
        let file = std::fs::read(folder().join(name).join("golden.safetensors"))?;
        let arrays = SafeTensors::deserialize(&file)?;
        let last = golden(name)?.runs.pop().context("a picture")?.picture;
        let expected = floats(arrays.tensor(&format!("{last}.pixel_values"))?.data());
        assert_eq!(judge.pixels(&picture(&last)?), expected);
    }
    Ok(())
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[test]
fn image_features_agree() -> Result<()> {
    for name in CHECKPOINTS {
        let judge = open(name)?;
        let file = std::fs::read(folder().join(name).join("golden.safetensors"))?;
        let arrays = SafeTensors::deserialize(&file)?;
        let mut worst = 0.0f32;
        for run in golden(name)?.runs {
            let expected = floats(arrays.tensor(&format!("{}.features", run.picture))?.data());
            let features = judge.features(&picture(&run.picture)?, &Stop::default())?;
            let (_, features) = features.try_extract_tensor::<f32>()?;
            assert_eq!(features.len(), expected.len());
            let largest = expected.iter().fold(0.0f32, |a, b| a.max(b.abs()));
            let off = features.iter().zip(&expected).fold(0.0f32, |a, (b, c)| a.max((b - c).abs()));
            worst = worst.max(off / largest);
        }
        println!("{name}: image features off by {worst:e} of the largest");
        assert!(worst <= 1e-5, "{name}: {worst:e}");
    }
    Ok(())
}

#[test]
fn probabilities_agree_alone_together_and_in_any_order() -> Result<()> {
    for name in CHECKPOINTS {
        let (judge, golden) = (open(name)?, golden(name)?);
        let (mut worst_alone, mut worst_together, mut worst_between) = (0.0f32, 0.0f32, 0.0f32);
        for run in &golden.runs {
            let picture = picture(&run.picture)?;
            let mut alone = BTreeMap::new();
            for (id, expected) in &run.alone {
                let question = question(&judge, id, &golden.policies[id])?;
                let p = probability(&judge.judge(&picture, &[question], &Stop::default())[0])?;
                worst_alone = worst_alone.max((p - expected.probability).abs());
                alone.insert(id, p);
            }
            for together in &run.together {
                let questions = questions(&judge, &golden, &together.order)?;
                let answers = judge.judge(&picture, &questions, &Stop::default());
                assert_eq!(answers.len(), together.order.len());
                for ((id, expected), answer) in
                    together.order.iter().zip(&together.probabilities).zip(&answers)
                {
                    let p = probability(answer)?;
                    worst_together = worst_together.max((p - expected).abs());
                    worst_between = worst_between.max((p - alone[id]).abs());
                }
            }
        }
        println!(
            "{name}: alone off by {worst_alone:e}, together {worst_together:e}, one from the other {worst_between:e}"
        );
        assert!(worst_alone <= TOLERANCE, "{name}: {worst_alone:e}");
        assert!(worst_together <= TOLERANCE, "{name}: {worst_together:e}");
        assert!(worst_between <= TOLERANCE, "{name}: {worst_between:e}");
    }
    Ok(())
}

/// More policies than a batch holds, some of them twice: each still gets its own answer.
#[test]
fn many_policies_go_in_batches() -> Result<()> {
    let (judge, golden) = (open("a")?, golden("a")?);
    let run = golden.runs.first().context("a picture")?;
    let order: Vec<String> = golden.policies.keys().cycle().take(19).cloned().collect();
    let answers =
        judge.judge(&picture(&run.picture)?, &questions(&judge, &golden, &order)?, &Stop::default());
    assert_eq!(answers.len(), 19);
    for (id, answer) in order.iter().zip(&answers) {
        let p = probability(answer)?;
        assert!((p - run.alone[id].probability).abs() <= TOLERANCE, "{id}: {p}");
    }
    // Nothing but repetitions of one policy: all but its last token is shared.
    let twice = vec![order[0].clone(); 2];
    for answer in judge.judge(&picture(&run.picture)?, &questions(&judge, &golden, &twice)?, &Stop::default())
    {
        assert!((probability(&answer)? - run.alone[&order[0]].probability).abs() <= TOLERANCE);
    }
    Ok(())
}

#[test]
fn temperature_and_smoothing_follow_the_formula() -> Result<()> {
    let (judge, golden) = (open("b")?, golden("b")?);
    let run = golden.runs.first().context("a picture")?;
    let (temperature, alpha) = (2.5, 0.125);
    let policy = PolicyText { id: "short", text: &golden.policies["short"], temperature, alpha };
    let answers = judge.judge(&picture(&run.picture)?, &[judge.question(&policy)?], &Stop::default());
    let [yes, no] = run.alone["short"].logits.map(|logit| (logit / f64::from(temperature)).exp());
    let a = f64::from(alpha);
    let expected = (yes + a) / (yes + no + 2.0 * a);
    assert!((f64::from(probability(&answers[0])?) - expected).abs() <= f64::from(TOLERANCE));
    Ok(())
}

#[test]
fn a_raised_stop_times_every_question_out() -> Result<()> {
    let (judge, golden) = (open("a")?, golden("a")?);
    let order: Vec<String> = golden.policies.keys().cloned().collect();
    let questions = questions(&judge, &golden, &order)?;
    let picture = picture("photo_150x96")?;
    let stop = Stop::default();
    stop.raise();
    assert_eq!(judge.judge(&picture, &questions, &stop), vec![Err(Failure::TimedOut); order.len()]);
    // It leaves the judge as it was.
    assert!(judge.judge(&picture, &questions, &Stop::default()).iter().all(Result::is_ok));
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
    let judge = judges::open(&runtime(), &Installed::check(folder.path(), Some("nan"))?, "test")?;
    let questions = [question(&*judge, "one", "No cats.")?, question(&*judge, "other", "No dogs.")?];
    let answers = judge.judge(&picture("one_pixel")?, &questions, &Stop::default());
    assert_eq!(answers.len(), 2);
    for answer in answers {
        assert!(matches!(answer, Err(Failure::NotAProbability(_))), "{answer:?}");
    }
    Ok(())
}

#[test]
fn policies_that_no_prompt_can_carry_are_refused() -> Result<()> {
    let judge = open("a")?;
    let cases = [
        ("", "no text"),
        ("See <start_of_image> above", "<start_of_image>"),
        ("Three <image_soft_token> more", "image tokens"),
        (&"very ".repeat(2000), "takes 1024"),
    ];
    for (text, expected) in cases {
        let error = judge.question(&PolicyText { id: "mine", text, temperature: 1.0, alpha: 0.0 });
        let error = error.expect_err(expected).to_string();
        assert!(error.contains(expected) && error.contains("`mine`"), "{error}");
    }
    Ok(())
}

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
                    json["text_config"]["model_type"] = "gemma2".into()
                })
            },
            &["gemma2", "gemma3_text"],
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
    use shieldgate_models::checkpoint::CheckpointError;
    use shieldgate_models::checkpoint::config::Config;
    let folder = copy("a")?;
    let path = folder.path().join("config.json");
    edit_json(&path, |json| json["model_type"] = "gemma3".into())?;
    let error = Config::read(folder.path()).expect_err("another architecture");
    assert!(
        matches!(&error, CheckpointError::WrongArchitecture { found, .. } if found == "gemma3"),
        "{error}"
    );
    let error = Installed::check(folder.path(), Some("mine")).expect_err("not ours").to_string();
    assert!(error.contains("gemma3") && error.contains("shieldgemma2"), "{error}");
    std::fs::write(&path, "{\"model_type\": \"shieldgemma2\"")?;
    assert!(matches!(Config::read(folder.path()), Err(CheckpointError::Json { .. })));
    Ok(())
}

#[test]
fn shards_of_an_index_must_be_there() -> Result<()> {
    let folder = copy("b")?;
    std::fs::remove_file(folder.path().join("model-00002-of-00002.safetensors"))?;
    let error = Installed::check(folder.path(), Some("mine")).expect_err("a shard is missing").to_string();
    assert!(error.contains("model-00002-of-00002.safetensors"), "{error}");
    edit_json(&folder.path().join("model.safetensors.index.json"), |json| {
        json["weight_map"]["model.x"] = "../../etc/passwd".into();
    })?;
    let error = Installed::check(folder.path(), Some("mine")).expect_err("a path outside").to_string();
    assert!(error.contains("weight_map"), "{error}");
    Ok(())
}

#[test]
fn the_record_covers_every_file_and_a_linked_checkpoint_opens() -> Result<()> {
    // As a Hub cache lies: links to blobs in another folder.
    let (blobs, snapshot) = (copy("b")?, tempfile::tempdir()?);
    for entry in std::fs::read_dir(blobs.path())? {
        let path = entry?.path();
        std::os::unix::fs::symlink(&path, snapshot.path().join(path.file_name().context("a name")?))?;
    }
    let installed = Installed::check(snapshot.path(), Some("linked"))?;
    let files: Vec<_> = installed.files.iter().map(|file| file.path.display().to_string()).collect();
    assert_eq!(files.len(), std::fs::read_dir(blobs.path())?.count(), "{files:?}");
    let judge = judges::open(&runtime(), &installed, "test")?;
    let golden = golden("b")?;
    let run = golden.runs.first().context("a picture")?;
    let question = question(&*judge, "short", &golden.policies["short"])?;
    let p = probability(&judge.judge(&picture(&run.picture)?, &[question], &Stop::default())[0])?;
    assert!((p - run.alone["short"].probability).abs() <= TOLERANCE);

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
        assert_ne!(Installed::check(changed.path(), Some("linked"))?.digest, installed.digest, "{file}");
    }
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
