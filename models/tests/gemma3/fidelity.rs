//! Token ids, hidden states, prompts and probabilities are the reference's, alone and together, whole and in pieces.

use anyhow::{Context, Result};
use shieldgate_models::{Asked, Content, Failure, Judge, Picture, Stop};

use crate::golden::{
    BETWEEN, BETWEEN_STATES, CHECKPOINTS, States, TOLERANCE, ask, checkpoint, golden, judge,
    largest_difference, probability, question, questions, reader,
};

#[test]
fn token_ids_are_equal_and_control_tokens_in_texts_are_characters() -> Result<()> {
    for name in CHECKPOINTS {
        let (reader, golden) = (reader(name)?, golden(name)?);
        for text in &golden.texts {
            assert_eq!(reader.ids(&text.text)?, text.ids, "{name} {}", text.name);
        }
        let control = golden.texts.iter().find(|text| text.name == "control").context("the text")?;
        // `<bos>` once, and no other of the first ten, which are all of the control tokens.
        assert_eq!(control.ids.iter().filter(|id| **id < 10).collect::<Vec<_>>(), [&2]);
    }
    Ok(())
}

/// The two poolings of every place, against the reference's, relative to the largest number of the place.
#[test]
fn hidden_states_of_every_layer_agree() -> Result<()> {
    for name in CHECKPOINTS {
        let (golden, states) = (golden(name)?, States::of(name)?);
        let features = reader(name)?.features(&golden.texts(), &Stop::default());
        let mut worst = 0.0f32;
        for (text, features) in golden.texts.iter().zip(features) {
            let (mean, last) = (states.get(&text.name, "mean")?, states.get(&text.name, "last")?);
            let (features, places) = (features?, golden.layers + 1);
            let hidden = mean.len() / places;
            assert_eq!(features.len(), 2 * mean.len());
            let expected = mean.chunks(hidden).zip(last.chunks(hidden));
            for ((mean, last), found) in expected.zip(features.chunks(2 * hidden)) {
                for (expected, found) in [mean, last].into_iter().zip(found.chunks(hidden)) {
                    let largest = expected.iter().fold(0.0f32, |a, b| a.max(b.abs()));
                    worst = worst.max(largest_difference(expected, found)? / largest);
                }
            }
        }
        println!("{name}: hidden states off by {worst:e} of the largest");
        assert!(worst <= TOLERANCE, "{name}: {worst:e}");
    }
    Ok(())
}

#[test]
fn pieces_of_any_length_give_what_the_whole_gives() -> Result<()> {
    for name in CHECKPOINTS {
        let golden = golden(name)?;
        let whole = reader(name)?.with_piece(2048).features(&golden.texts(), &Stop::default());
        // Shorter than the window, between, beyond; one that divides nothing; the default.
        for piece in [7, 24, 40, 100, 512] {
            let pieces = reader(name)?.with_piece(piece).features(&golden.texts(), &Stop::default());
            let mut worst = 0.0f32;
            for (whole, pieces) in whole.iter().zip(pieces) {
                let whole = whole.as_ref().map_err(Clone::clone)?;
                let largest = whole.iter().fold(0.0f32, |a, b| a.max(b.abs()));
                worst = worst.max(largest_difference(whole, &pieces?)? / largest);
            }
            println!("{name}: in pieces of {piece} off by {worst:e}");
            assert!(worst <= BETWEEN_STATES, "{name} {piece}: {worst:e}");
        }
    }
    Ok(())
}

#[test]
fn a_text_reads_the_same_alone_and_with_others() -> Result<()> {
    for name in CHECKPOINTS {
        let (reader, golden) = (reader(name)?, golden(name)?);
        let texts: Vec<&str> = golden.texts().into_iter().cycle().take(40).collect();
        let together = reader.features(&texts, &Stop::default());
        let (mut worst, mut equal) = (0.0f32, 0);
        for (text, together) in texts.iter().zip(together) {
            let alone = reader.features(&[text], &Stop::default()).pop().context("features")??;
            let together = together?;
            let largest = alone.iter().fold(0.0f32, |a, b| a.max(b.abs()));
            worst = worst.max(largest_difference(&alone, &together)? / largest);
            equal += usize::from(alone == together);
        }
        println!("{name}: alone and together differ by {worst:e}; {equal} of 40 are bit-equal");
        assert!(worst <= BETWEEN_STATES, "{name}: {worst:e}");
    }
    Ok(())
}

#[test]
fn prompts_are_equal() -> Result<()> {
    for name in CHECKPOINTS {
        let (judge, golden) = (judge(&checkpoint(name))?, golden(name)?);
        for (id, text) in &golden.policies {
            let asked: serde_json::Value = serde_json::from_str(&question(&judge, id, text)?.asked)?;
            for (order, prompt) in &golden.prompts[id] {
                assert_eq!(asked[order], **prompt, "{name} {id} {order}");
            }
        }
    }
    Ok(())
}

#[test]
fn probabilities_agree_alone_together_and_in_pieces() -> Result<()> {
    let mut orders = std::collections::BTreeSet::new();
    for name in CHECKPOINTS {
        let (whole, golden) = (judge(&checkpoint(name))?, golden(name)?);
        let pieces = judge(&checkpoint(name))?.with_piece(33);
        let questions = questions(&whole, &golden)?;
        let together = ask(&whole, &golden.texts(), &questions, &Stop::default());
        let in_pieces = ask(&pieces, &golden.texts(), &questions, &Stop::default());
        let (mut worst, mut worst_between) = (0.0f32, 0.0f32);
        for ((text, together), in_pieces) in golden.texts.iter().zip(together).zip(in_pieces) {
            assert_eq!(together.len(), 3);
            let expected = questions.iter().zip(golden.policies.keys().map(|id| &text.asked[id]));
            for ((question, expected), (together, in_pieces)) in expected.zip(together.iter().zip(&in_pieces))
            {
                // Alone it takes the same order of text and policy, so it is the same answer.
                let alone = ask(&whole, &[&text.text], std::slice::from_ref(question), &Stop::default());
                let alone = probability(&alone[0][0])?;
                worst = worst.max((alone - expected.probability).abs());
                for other in [probability(together)?, probability(in_pieces)?] {
                    worst = worst.max((other - expected.probability).abs());
                    worst_between = worst_between.max((other - alone).abs());
                }
                orders.insert(expected.order.clone());
            }
        }
        println!("{name}: off by {worst:e}, one from the other {worst_between:e}");
        assert!(worst <= TOLERANCE, "{name}: {worst:e}");
        assert!(worst_between <= BETWEEN, "{name}: {worst_between:e}");
    }
    assert_eq!(orders.len(), 2, "both orders were asked");
    Ok(())
}

#[test]
fn the_work_of_a_text_grows_with_its_tokens() -> Result<()> {
    let judge = judge(&checkpoint("a"))?;
    let work = |text: &str| judge.work(Content::Text(text));
    assert_eq!(work(""), 1, "its start");
    assert!(work("Hello") > 1 && work(&"Hello ".repeat(50)) >= 51, "{}", work(&"Hello ".repeat(50)));
    Ok(())
}

#[test]
fn a_picture_among_the_texts_is_a_mistake_that_scores_nothing() -> Result<()> {
    let (judge, golden) = (judge(&checkpoint("a"))?, golden("a")?);
    let (questions, picture) = (questions(&judge, &golden)?, Picture::new(1, 1, vec![0; 3])?);
    let batch = [Content::Text("Hello"), Content::Picture(&picture)]
        .map(|content| Asked { content, questions: &questions });
    for answers in judge.judge_batch(&batch, &Stop::default()) {
        assert_eq!(answers, vec![Err(Failure::WrongContent { judges: "texts" }); questions.len()]);
    }
    Ok(())
}

#[test]
fn a_raised_stop_times_every_question_out() -> Result<()> {
    let (judge, golden) = (judge(&checkpoint("a"))?, golden("a")?);
    let questions = questions(&judge, &golden)?;
    let stop = Stop::default();
    stop.raise();
    for answers in ask(&judge, &golden.texts(), &questions, &stop) {
        assert_eq!(answers, vec![Err(Failure::TimedOut); questions.len()]);
    }
    // It leaves the judge as it was.
    let answers = ask(&judge, &golden.texts(), &questions, &Stop::default());
    assert!(answers.iter().flatten().all(Result::is_ok));
    Ok(())
}

#[test]
fn texts_that_are_too_long_fail_and_spoil_no_other_and_empty_ones_are_answered() -> Result<()> {
    for name in CHECKPOINTS {
        let (judge, golden) = (judge(&checkpoint(name))?, golden(name)?);
        let questions = questions(&judge, &golden)?;
        let long = "?!".repeat(2000);
        let answers = ask(&judge, &["Hello", &long, ""], &questions, &Stop::default());
        let refused = |answer| matches!(answer, &Err(Failure::Runtime(ref why)) if why.contains("2048"));
        assert!(answers[1].iter().all(refused), "{answers:?}");
        assert!(answers[0].iter().chain(&answers[2]).all(Result::is_ok), "{answers:?}");
        assert_eq!(ask(&judge, &[""], &questions, &Stop::default())[0], answers[2]);
        assert_eq!(ask(&judge, &[], &questions, &Stop::default()).len(), 0);
        assert_eq!(ask(&judge, &["Hello"], &[], &Stop::default()), [vec![]]);
    }
    Ok(())
}
