//! Open-NSFW against its own package: the same scores, from the same pixels.
#![expect(clippy::expect_used, reason = "a test that cannot set up fails")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use shieldgate_models::installed::Installed;
use shieldgate_models::resample::resize;
use shieldgate_models::runtime::{DeviceChoice, Runtime};
use shieldgate_models::{Answer, Asked, Content, Failure, Judge, Picture, PolicyText, Stop, judges};

/// The tolerance the judge promises: preprocessing is exact, the runtime's kernels may differ by thread count.
const TOLERANCE: f32 = 1e-3;

#[derive(serde::Deserialize)]
struct Golden {
    package: f32,
    squash: f32,
    squash_sum: u64,
    squash_weighted: u64,
}

fn golden() -> Result<BTreeMap<String, Golden>> {
    Ok(serde_json::from_slice(&std::fs::read(folder().join("golden.json"))?)?)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/open_nsfw")
}

/// What `make build` fetched, beside the folder that this test was built into.
fn assets() -> PathBuf {
    let here = std::env::current_exe().expect("a test has a path");
    here.ancestors()
        .map(|folder| folder.join("assets"))
        .find(|folder| folder.is_dir())
        .expect("no `assets` folder above the test: run `make build`, which fetches it")
}

fn runtime() -> Arc<Runtime> {
    static RUNTIME: OnceLock<Arc<Runtime>> = OnceLock::new();
    let library = assets().join("onnxruntime/libonnxruntime.so.1.32.0");
    Arc::clone(RUNTIME.get_or_init(|| Runtime::load(&library, DeviceChoice::Cpu, 2).expect("loads")))
}

fn picture(name: &str) -> Result<Picture> {
    let image = image::open(folder().join(format!("{name}.png"))).context(name.to_owned())?.to_rgb8();
    Ok(Picture::new(image.width(), image.height(), image.into_raw())?)
}

fn open(folder: &Path) -> Result<Box<dyn Judge>> {
    Ok(judges::open(&runtime(), &Installed::check(folder, None)?, |_| "test")?)
}

/// The shipped model under another manifest.
fn variant(edit: impl Fn(String) -> String) -> Result<tempfile::TempDir> {
    let shipped = assets().join("models/open-nsfw");
    let folder = tempfile::tempdir()?;
    std::fs::copy(shipped.join("open-nsfw.onnx"), folder.path().join("open-nsfw.onnx"))?;
    let manifest = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("classifiers/open-nsfw/judge.yaml"),
    )?;
    std::fs::write(folder.path().join("judge.yaml"), edit(manifest))?;
    Ok(folder)
}

const SEXUAL: PolicyText<'_> =
    PolicyText { id: "sexual", text: "", head: None, temperature: 1.0, alpha: 0.0 };

fn ask(judge: &dyn Judge, picture: &Picture) -> Result<Answer> {
    let question = judge.question(&SEXUAL)?;
    judge
        .judge(Content::Picture(picture), &[question], &Stop::default())
        .pop()
        .context("one answer a question")
}

#[test]
fn resampling_is_pillows_bit_for_bit() -> Result<()> {
    for (name, golden) in golden()? {
        let small = resize(&picture(&name)?, 224, 224);
        let sum: u64 = small.rgb().iter().map(|level| u64::from(*level)).sum();
        let weighted: u64 =
            small.rgb().iter().enumerate().map(|(at, level)| u64::from(*level) * (at as u64 % 251)).sum();
        assert_eq!((sum, weighted), (golden.squash_sum, golden.squash_weighted), "{name}");
    }
    Ok(())
}

#[test]
fn scores_are_the_packages_own() -> Result<()> {
    let crop = variant(|manifest| manifest.replace("fit: squash", "fit: {crop: {resize: [256, 256]}}"))?;
    let squash = variant(|manifest| manifest)?;
    let (crop, squash) = (open(crop.path())?, open(squash.path())?);
    for (name, golden) in golden()? {
        let picture = picture(&name)?;
        for (judge, expected) in [(&crop, golden.package), (&squash, golden.squash)] {
            let p = ask(&**judge, &picture)??.get();
            println!("{name}: {p} expected {expected}, off by {:e}", (p - expected).abs());
            assert!((p - expected).abs() <= TOLERANCE, "{name}: {p} instead of {expected}");
        }
    }
    Ok(())
}

/// What a picture scores must not depend on who else uploads at that moment.
#[test]
fn a_batch_scores_as_each_alone() -> Result<()> {
    let judge = open(variant(|manifest| manifest)?.path())?;
    let question = [judge.question(&SEXUAL)?];
    let pictures: Vec<Picture> = golden()?.keys().map(|name| picture(name)).collect::<Result<_>>()?;
    let alone: Vec<f32> =
        pictures.iter().map(|picture| Ok(ask(&*judge, picture)??.get())).collect::<Result<_>>()?;
    // More than a batch holds, so that it is cut; the picture at each place differs from round to round.
    for turn in 0..3 {
        let order: Vec<usize> = (0..19).map(|at| (at * 5 + turn) % pictures.len()).collect();
        let batch: Vec<Asked<'_>> = order
            .iter()
            .map(|at| Asked { content: Content::Picture(&pictures[*at]), questions: &question })
            .collect();
        let answers = judge.judge_batch(&batch, &Stop::default());
        assert_eq!(answers.len(), order.len());
        let mut worst = 0.0_f32;
        for (at, answers) in order.iter().zip(answers) {
            worst = worst.max((answers[0].clone()?.get() - alone[*at]).abs());
        }
        println!("off by {worst:e}");
        assert!(worst <= 1e-6, "{worst:e}");
    }
    Ok(())
}

/// What is made smaller before its turn must score as the picture itself, to the bit.
#[test]
fn a_picture_made_smaller_beforehand_scores_the_same() -> Result<()> {
    let crop = variant(|manifest| manifest.replace("fit: squash", "fit: {crop: {resize: [256, 256]}}"))?;
    for (folder, side) in [(variant(|manifest| manifest)?, 224), (crop, 256)] {
        let judge = open(folder.path())?;
        let mut reduced = 0;
        for name in golden()?.keys() {
            let picture = picture(name)?;
            let Some(small) = judge.reduced(&picture) else {
                assert!(picture.width() * picture.height() <= side * side, "{name} is larger");
                continue;
            };
            reduced += 1;
            assert_eq!((small.width(), small.height()), (side, side), "{name}");
            assert_eq!(ask(&*judge, &small)?, ask(&*judge, &picture)?, "{name}");
        }
        assert!(reduced > 0, "no picture was larger than {side}");
    }
    Ok(())
}

#[test]
fn another_fit_is_another_judge() -> Result<()> {
    let crop = variant(|manifest| manifest.replace("fit: squash", "fit: {crop: {resize: [256, 256]}}"))?;
    let squash = variant(|manifest| manifest)?;
    assert_ne!(open(crop.path())?.card().digest, open(squash.path())?.card().digest);
    Ok(())
}

#[test]
fn nan_is_a_failure_and_never_a_score() -> Result<()> {
    let folder = variant(|manifest| manifest.replace("std: [1, 1, 1]", "std: [1.0e-45, 1, 1]"))?;
    // Samples overflow to infinity and the softmax gives NaN; the grey picture at opening shows it as a score.
    let judge = open(folder.path())?;
    let answer = ask(&*judge, &picture("cat")?)?;
    assert!(matches!(answer, Err(Failure::NotAProbability(_))), "{answer:?}");
    Ok(())
}

#[test]
fn a_raised_stop_ends_the_run() -> Result<()> {
    let judge = open(variant(|manifest| manifest)?.path())?;
    let stop = Stop::default();
    stop.raise();
    let question = judge.question(&SEXUAL)?;
    let answers = judge.judge(Content::Picture(&picture("cat")?), &[question], &stop);
    assert_eq!(answers, [Err(Failure::TimedOut)]);
    Ok(())
}

#[test]
fn a_policy_outside_the_label_map_is_refused() -> Result<()> {
    let judge = open(variant(|manifest| manifest)?.path())?;
    let error = judge.question(&PolicyText { id: "violence", ..SEXUAL }).expect_err("no such label");
    assert!(error.to_string().contains("violence"), "{error}");
    Ok(())
}

#[test]
fn broken_folders_say_what_is_wrong() -> Result<()> {
    let cases: [(&str, &str, &str); 6] = [
        ("sha256: 864b", "sha256: 964b", "SHA-256"),
        ("sexual: [nsfw]", "sexual: [nude]", "nude"),
        ("width: 224", "width: 223", "grey picture"),
        ("labels: [sfw, nsfw]", "labels: [sfw, nsfw, x]", "3"),
        ("layout: nhwc", "layout: nope", "judge.yaml"),
        ("file: open-nsfw.onnx", "file: absent.onnx", "absent.onnx"),
    ];
    for (from, to, expected) in cases {
        let folder = variant(|manifest| manifest.replace(from, to))?;
        let error = open(folder.path()).err().context(to)?;
        assert!(error.to_string().contains(expected), "{to}: {error}");
    }
    Ok(())
}

#[test]
fn an_added_model_is_found_again_and_a_changed_one_refused() -> Result<()> {
    let folder = variant(|manifest| manifest)?;
    let records = tempfile::tempdir()?;
    let added = Installed::check(folder.path(), Some("mine"))?;
    added.save(records.path())?;
    let found = Installed::list(records.path())?.pop().context("the record")?;
    assert_eq!((found.name.as_str(), &found.files), ("mine", &added.files));
    found.verify()?;

    let weights = folder.path().join("open-nsfw.onnx");
    let mut bytes = std::fs::read(&weights)?;
    bytes[1_000_000] ^= 1;
    std::fs::write(&weights, bytes)?;
    let error = found.check_unchanged(&[]).expect_err("one bit differs");
    assert!(error.to_string().contains("models add"), "{error}");
    assert!(judges::open(&runtime(), &found, |_| "test").is_err());
    Ok(())
}
