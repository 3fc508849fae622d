//! Prompts, tokens, pixels, image features and probabilities are the reference's.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use safetensors::SafeTensors;
use shieldgate_models::{Asked, Content, Failure, Judge, Picture, PolicyText, Stop, resample};

use crate::golden::{
    CHECKPOINTS, TOLERANCE, WITH_ARRAYS, folder, golden, open, picture, probability, question, questions,
};

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
    for name in WITH_ARRAYS {
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
    for name in WITH_ARRAYS {
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
    for name in WITH_ARRAYS {
        let judge = open(name)?;
        let file = std::fs::read(folder().join(name).join("golden.safetensors"))?;
        let arrays = SafeTensors::deserialize(&file)?;
        let mut worst = 0.0f32;
        for run in golden(name)?.runs {
            let expected = floats(arrays.tensor(&format!("{}.features", run.picture))?.data());
            let features = judge.features(&[&picture(&run.picture)?], &Stop::default())?;
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
                let p =
                    probability(&judge.judge(Content::Picture(&picture), &[question], &Stop::default())[0])?;
                worst_alone = worst_alone.max((p - expected.probability).abs());
                alone.insert(id, p);
            }
            for together in &run.together {
                let questions = questions(&judge, &golden, &together.order)?;
                let answers = judge.judge(Content::Picture(&picture), &questions, &Stop::default());
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

#[test]
fn a_picture_made_smaller_beforehand_scores_the_same() -> Result<()> {
    let (judge, golden) = (open("a")?, golden("a")?);
    let large =
        Picture::new(300, 200, (0..300 * 200 * 3).map(|at| (at * 31 % 251) as u8).collect::<Vec<_>>())?;
    let small = judge.reduced(&large).context("it is larger than what the model sees")?;
    assert!(judge.reduced(&small).is_none(), "smaller than small");
    let questions = questions(&judge, &golden, &golden.policies.keys().cloned().collect::<Vec<_>>())?;
    let of = |picture| judge.judge(Content::Picture(picture), &questions, &Stop::default());
    assert_eq!(of(&small), of(&large));
    assert!(of(&small).iter().all(Result::is_ok));
    Ok(())
}

/// Pictures of several requests share the vision tower, the prefix and the suffixes; their questions may
/// differ, and what one scores must not depend on the others.
#[test]
fn a_batch_of_pictures_scores_as_each_alone() -> Result<()> {
    for name in CHECKPOINTS {
        let (judge, golden) = (open(name)?, golden(name)?);
        let pictures: Vec<Picture> =
            golden.runs.iter().map(|run| picture(&run.picture)).collect::<Result<_>>()?;
        let ids: Vec<String> = golden.policies.keys().cloned().collect();
        let sets = [&ids[..3], &ids[..3], &ids[..1], &ids[1..], &ids[..3]];
        let sets: Vec<_> =
            sets.iter().map(|ids| questions(&judge, &golden, ids)).collect::<Result<Vec<_>>>()?;
        let asked = |at: usize| Asked {
            content: Content::Picture(&pictures[at % pictures.len()]),
            questions: &sets[at % sets.len()],
        };
        let batch: Vec<Asked<'_>> = (0..11).map(asked).collect();
        let answers = judge.judge_batch(&batch, &Stop::default());
        assert_eq!(answers.len(), batch.len());
        let mut worst = 0.0_f32;
        for (asked, answers) in batch.iter().zip(&answers) {
            let alone = judge.judge(asked.content, asked.questions, &Stop::default());
            assert_eq!(answers.len(), alone.len());
            for (together, alone) in answers.iter().zip(&alone) {
                worst = worst.max((probability(together)? - probability(alone)?).abs());
            }
        }
        println!("{name}: in a batch and alone differ by {worst:e}");
        assert!(worst <= 1e-6, "{name}: {worst:e}");
    }
    Ok(())
}

/// More policies than a batch holds, some of them twice: each still gets its own answer.
#[test]
fn many_policies_go_in_batches() -> Result<()> {
    let (judge, golden) = (open("a")?, golden("a")?);
    let run = golden.runs.first().context("a picture")?;
    let order: Vec<String> = golden.policies.keys().cycle().take(19).cloned().collect();
    let answers = judge.judge(
        Content::Picture(&picture(&run.picture)?),
        &questions(&judge, &golden, &order)?,
        &Stop::default(),
    );
    assert_eq!(answers.len(), 19);
    for (id, answer) in order.iter().zip(&answers) {
        let p = probability(answer)?;
        assert!((p - run.alone[id].probability).abs() <= TOLERANCE, "{id}: {p}");
    }
    // Nothing but repetitions of one policy: all but its last token is shared.
    let twice = vec![order[0].clone(); 2];
    for answer in judge.judge(
        Content::Picture(&picture(&run.picture)?),
        &questions(&judge, &golden, &twice)?,
        &Stop::default(),
    ) {
        assert!((probability(&answer)? - run.alone[&order[0]].probability).abs() <= TOLERANCE);
    }
    Ok(())
}

#[test]
fn temperature_and_smoothing_follow_the_formula() -> Result<()> {
    let (judge, golden) = (open("b")?, golden("b")?);
    let run = golden.runs.first().context("a picture")?;
    let (temperature, alpha) = (2.5, 0.125);
    let policy = PolicyText { id: "short", text: &golden.policies["short"], head: None, temperature, alpha };
    let answers =
        judge.judge(Content::Picture(&picture(&run.picture)?), &[judge.question(&policy)?], &Stop::default());
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
    assert_eq!(
        judge.judge(Content::Picture(&picture), &questions, &stop),
        vec![Err(Failure::TimedOut); order.len()]
    );
    // It leaves the judge as it was.
    assert!(judge.judge(Content::Picture(&picture), &questions, &Stop::default()).iter().all(Result::is_ok));
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
        let error =
            judge.question(&PolicyText { id: "mine", text, head: None, temperature: 1.0, alpha: 0.0 });
        let error = error.expect_err(expected).to_string();
        assert!(error.contains(expected) && error.contains("`mine`"), "{error}");
    }
    Ok(())
}
