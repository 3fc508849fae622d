//! Heads: what they answer, whose they are, and what is refused.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use shieldgate_models::graph::text::Tap;
use shieldgate_models::installed::{Installed, ModelError};
use shieldgate_models::judges::gemma3::heads::{self, Calibration, Head, Heads};
use shieldgate_models::judges::gemma3::{Pooling, Pools, Reader, model_digest};
use shieldgate_models::{Failure, Judge, PolicyText, Stop};

use crate::folders::{copy, edit_json};
use crate::golden::{
    States, TOLERANCE, ask, checkpoint, golden, judge, largest_difference, probability, question, runtime,
};

/// Weights that make answers neither 0 nor 1.
fn head(folder: &Path, taps: &[Tap], pooling: Pooling, hidden: usize) -> Result<Head> {
    let weights = (0..taps.len() * hidden).map(|at| ((at * 7919 % 97) as f32 / 97.0 - 0.5) * 0.5).collect();
    Ok(Head {
        model: model_digest(folder)?,
        layers: taps.iter().copied().map(Into::into).collect(),
        pooling,
        stretches: None,
        weights,
        bias: -0.125,
        calibration: Calibration { scale: 0.5, offset: 0.25 },
        trained: serde_json::json!({"rows": 3, "data": "a test"}),
    })
}

fn write(folder: &Path, heads: BTreeMap<String, Head>) -> Result<()> {
    Ok(std::fs::write(folder.join(heads::FILE), serde_json::to_vec(&Heads::of(heads))?)?)
}

/// A copy of `a` with two heads that read different places in different ways.
fn with_heads() -> Result<tempfile::TempDir> {
    let folder = copy("a")?;
    let path = folder.path();
    let heads = [
        ("insult", head(path, &[Tap::Layer(9), Tap::Layer(4)], Pooling::Mean, 24)?),
        ("spam", head(path, &[Tap::Final], Pooling::Last, 24)?),
    ];
    write(path, heads.into_iter().map(|(policy, head)| (policy.to_owned(), head)).collect())?;
    Ok(folder)
}

#[test]
fn heads_answer_by_the_references_hidden_states_beside_prompts() -> Result<()> {
    let folder = with_heads()?;
    let (judge, golden, states) = (judge(folder.path())?, golden("a")?, States::of("a")?);
    // Two by heads, one in words, in one call.
    let short = &golden.policies["short"];
    let questions =
        [question(&judge, "spam", "")?, question(&judge, "short", short)?, question(&judge, "insult", "")?];
    let answers = ask(&judge, &golden.texts(), &questions, &Stop::default());
    let mut worst = 0.0f32;
    for (text, answers) in golden.texts.iter().zip(answers) {
        let (mean, last) = (states.get(&text.name, "mean")?, states.get(&text.name, "last")?);
        let place = |states: &[f32], at: usize| states[at * 24..(at + 1) * 24].to_vec();
        let expect = |policy: &str, pooled: Vec<f32>| -> Result<f64> {
            let heads: Heads = serde_json::from_slice(&std::fs::read(folder.path().join(heads::FILE))?)?;
            let head = &heads.heads[policy];
            let sum: f64 = head.weights.iter().zip(&pooled).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            Ok(1.0 / (1.0 + (-(0.5 * (sum - 0.125) + 0.25)).exp()))
        };
        let insult = expect("insult", [place(&mean, 9), place(&mean, 4)].concat())?;
        let spam = expect("spam", place(&last, golden.layers))?;
        let in_words = f64::from(text.asked["short"].probability);
        for (answer, expected) in answers.iter().zip([spam, in_words, insult]) {
            let p = probability(answer)?;
            worst = worst.max((f64::from(p) - expected).abs() as f32);
        }
    }
    println!("heads off by {worst:e}");
    assert!(worst <= TOLERANCE, "{worst:e}");
    Ok(())
}

/// The means of a text's stretches make its mean, and are the same however the text is cut into passes.
#[test]
fn stretches_are_parts_of_the_whole() -> Result<()> {
    const SIZES: [usize; 4] = [4, 6, 10, 14];
    let golden = golden("a")?;
    let pools = Pools { whole: vec![Pooling::Mean], stretches: SIZES.to_vec() };
    let open = || Reader::open(&runtime(), &checkpoint("a"), vec![Tap::Layer(4), Tap::Final], pools.clone());
    let (reader, by_pieces) = (open()?, open()?.with_piece(3));
    let mut compared = 0;
    for text in golden.texts() {
        let tokens = reader.ids(text)?.len() - 1;
        let features = reader.features(&[text], &Stop::default()).remove(0)?;
        let again = by_pieces.features(&[text], &Stop::default()).remove(0)?;
        assert!(largest_difference(&features, &again)? <= TOLERANCE);
        for tap in features.chunks(features.len() / 2) {
            let mut pools = tap.chunks(24);
            let whole = pools.next().context("the whole")?;
            for size in SIZES.into_iter().filter(|size| tokens > *size) {
                let count = 1 + (tokens - size).div_ceil(size / 2);
                let of_size: Vec<&[f32]> = pools.by_ref().take(count).collect();
                assert_eq!(of_size.len(), count);
                if tokens.is_multiple_of(size) {
                    compared += 1;
                    // Every other one, for half of each is in the next.
                    let apart: Vec<&&[f32]> = of_size.iter().step_by(2).collect();
                    let mean = |at| apart.iter().map(|stretch| stretch[at]).sum::<f32>() / apart.len() as f32;
                    let mean: Vec<f32> = (0..24).map(mean).collect();
                    assert!(largest_difference(whole, &mean)? <= TOLERANCE, "{text:?}");
                }
            }
            assert_eq!(pools.count(), 0);
        }
    }
    assert!(compared > 4, "{compared} compared");
    Ok(())
}

/// One stretch decides where it is above the whole by the margin, and never lowers an answer.
#[test]
fn the_worst_stretch_decides() -> Result<()> {
    let with = |stretches: serde_json::Value| -> Result<Vec<f32>> {
        let folder = with_heads()?;
        edit_json(&folder.path().join(heads::FILE), |json| json["heads"]["insult"]["stretches"] = stretches)?;
        let judge = judge(folder.path())?;
        let questions = [question(&judge, "insult", "")?];
        let answers = ask(&judge, &golden("a")?.texts(), &questions, &Stop::default());
        answers.iter().map(|answers| probability(&answers[0])).collect()
    };
    let whole = with(serde_json::Value::Null)?;
    let far = with(serde_json::json!({"tokens": 4, "margin": 1e6}))?;
    let near = with(serde_json::json!({"tokens": 4, "margin": 0.0}))?;
    assert_eq!(whole, far);
    assert!(whole.iter().zip(&near).all(|(whole, near)| near >= whole), "{whole:?} {near:?}");
    assert!(whole.iter().zip(&near).any(|(whole, near)| near > whole), "{whole:?} {near:?}");
    Ok(())
}

#[test]
fn a_base_model_needs_no_template_and_stops_where_nothing_more_is_read() -> Result<()> {
    let folder = with_heads()?;
    let path = folder.path();
    for file in ["chat_template.jinja", "tokenizer_config.json"] {
        std::fs::remove_file(path.join(file)).with_context(|| file.to_owned())?;
    }
    edit_json(&path.join(heads::FILE), |json| {
        json["heads"].as_object_mut().map(|heads| heads.remove("spam"));
    })?;
    let whole = judge(with_heads()?.path())?;
    let base = judge(path)?;
    assert!(Installed::check(path, Some("base")).is_ok());
    let of = |judge| -> Result<f32> {
        let question = question(judge, "insult", "")?;
        probability(&ask(&whole, &["You are all liars."], &[question], &Stop::default())[0][0])
    };
    assert_eq!(of(&base)?, of(&whole)?);
    let refused = |head: Option<&str>| {
        let policy = PolicyText { id: "mine", text: "No spam.", head, temperature: 1.0, alpha: 0.0 };
        base.question(&policy).expect_err("no way to ask").to_string()
    };
    let (no_such, in_words) = (refused(Some("spam")), refused(None));
    assert!(no_such.contains("`mine`") && no_such.contains("no head `spam`"), "{no_such}");
    assert!(in_words.contains("template") && in_words.contains("`head: NAME`"), "{in_words}");
    assert!(
        [&no_such, &in_words].iter().all(|error| error.ends_with("has: insult")),
        "{no_such}\n{in_words}"
    );

    std::fs::remove_file(path.join(heads::FILE))?;
    let error = Installed::check(path, Some("base")).expect_err("no way to ask").to_string();
    assert!(error.contains("chat template"), "{error}");
    Ok(())
}

#[test]
fn a_head_of_another_model_is_refused() -> Result<()> {
    let folder = with_heads()?;
    assert!(Installed::check(folder.path(), Some("own")).is_ok());
    // One bit of one weight.
    let path = folder.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path)?;
    *bytes.last_mut().context("a byte")? ^= 1;
    std::fs::write(&path, bytes)?;
    let error = Installed::check(folder.path(), Some("other")).expect_err("another model");
    assert!(matches!(&error, ModelError::HeadOfAnotherModel { policy, .. } if policy == "insult"), "{error}");
    assert!(error.to_string().contains("mean nothing to another"), "{error}");
    Ok(())
}

#[test]
fn questions_name_the_head_and_another_head_answers_none_of_them() -> Result<()> {
    let folder = with_heads()?;
    let old = judge(folder.path())?;
    let asked = question(&old, "insult", "")?;
    let edits: [fn(&mut serde_json::Value); 5] = [
        |head| head["bias"] = 0.5.into(),
        |head| head["weights"][47] = 0.5.into(),
        |head| head["layers"] = serde_json::json!([4, 9]),
        |head| head["calibration"]["offset"] = 0.5.into(),
        |head| head["stretches"] = serde_json::json!({"tokens": 24, "margin": 1.0}),
    ];
    for edit in edits {
        let folder = with_heads()?;
        edit_json(&folder.path().join(heads::FILE), |json| edit(&mut json["heads"]["insult"]))?;
        let new = judge(folder.path())?;
        assert_ne!(question(&new, "insult", "")?.hash, asked.hash);
        let answers = ask(&new, &["Hello"], std::slice::from_ref(&asked), &Stop::default());
        assert!(
            matches!(&answers[0][0], Err(Failure::Runtime(why)) if why.contains("insult")),
            "{answers:?}"
        );
    }
    // How it was fitted is for people.
    edit_json(&folder.path().join(heads::FILE), |json| json["heads"]["insult"]["trained"] = "well".into())?;
    assert_eq!(question(&judge(folder.path())?, "insult", "")?, asked);
    Ok(())
}

#[test]
fn broken_heads_are_refused_with_what_is_wrong() -> Result<()> {
    type Damage = fn(&mut serde_json::Value);
    let cases: [(Damage, &str); 11] = [
        (|json| json["version"] = 2.into(), "version"),
        (|json| json["heads"]["spam"]["weights"] = serde_json::json!([1.0]), "24"),
        (|json| json["heads"]["spam"]["weights"][3] = 1e39.into(), "out of range"),
        (|json| json["heads"]["spam"]["layers"] = serde_json::json!([]), "empty"),
        (|json| json["heads"]["spam"]["layers"] = serde_json::json!([14]), "13 layers"),
        (|json| json["heads"]["spam"]["layers"] = serde_json::json!([3, 3]), "twice"),
        (|json| json["heads"]["spam"]["layers"] = serde_json::json!(["first"]), "heads.json"),
        (|json| json["heads"]["spam"]["pooling"] = "max".into(), "max"),
        (
            |json| json["heads"]["spam"]["stretches"] = serde_json::json!({"tokens": 1, "margin": 1}),
            "4 to 512",
        ),
        (
            |json| json["heads"]["spam"]["stretches"] = serde_json::json!({"tokens": 9, "margin": -1}),
            "margin",
        ),
        (|json| json["heads"]["spam"]["bais"] = 0.into(), "bais"),
    ];
    for (damage, expected) in cases {
        let folder = with_heads()?;
        edit_json(&folder.path().join(heads::FILE), damage)?;
        let error = Installed::check(folder.path(), Some("mine")).err().context(expected)?;
        let text = format!("{:#}", anyhow::Error::from(error));
        assert!(text.contains(expected) && text.contains(heads::FILE), "{expected}: {text}");
        println!("{text}");
    }
    Ok(())
}
