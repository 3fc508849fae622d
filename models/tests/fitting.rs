//! Fits against scikit-learn's (`models/reference/make_fitting.py`), and what a fit owes beside being right.

#![expect(clippy::expect_used, reason = "this is all tests")]

use std::path::Path;
use std::time::Instant;

use serde_json::Value;
use shieldgate_models::fitting::{
    Classes, Example, Fit, FitError, Fitted, Known, Recipe, Rows, calibrate, fit, fit_all,
};
use shieldgate_models::seeded::Seeded;

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fitting/golden.json");
    serde_json::from_slice(&std::fs::read(path).expect("is committed")).expect("is JSON")
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
}

/// The script's `features`.
fn golden_rows() -> Rows {
    const COLUMNS: u32 = 11;
    let mut rows = Rows::new(COLUMNS as usize);
    for row in 0..80_u32 {
        let number = |column: u32| {
            let number = f64::from((row * 7919 + column * 104_729 + row * row * column * 31) % 1009) / 1009.0;
            match column {
                3 => 0.25,
                5 => (4096.0 + number) as f32,
                7 => (number * 1e-6) as f32,
                _ => number as f32,
            }
        };
        rows.push(&(0..COLUMNS).map(number).collect::<Vec<f32>>()).expect("a row");
    }
    rows
}

fn examples(labels: &[bool]) -> Vec<Example> {
    let each = labels.iter().enumerate();
    each.map(|(row, positive)| Example { row, positive: *positive, weight: 1.0, beside: 0.0 }).collect()
}

fn close(found: f64, expected: f64, tolerance: f64) -> bool {
    (found - expected).abs() <= tolerance * expected.abs().max(1e-3)
}

#[test]
fn fits_equal_scikit_learn_s() {
    let golden = golden();
    let rows = golden_rows();
    let labels: Vec<bool> =
        golden["labels"].as_array().expect("labels").iter().map(|label| label == true).collect();
    assert!(labels.len() == 80 && golden["fits"].as_array().map(Vec::len) == Some(6));
    for wanted in golden["fits"].as_array().expect("fits") {
        let mut examples = examples(&labels);
        for (example, weight) in examples.iter_mut().zip(numbers(&wanted["row_weights"])) {
            example.weight = weight;
        }
        for (example, beside) in examples.iter_mut().zip(numbers(&wanted["beside"])) {
            example.beside = beside;
        }
        let classes = if wanted["balanced"] == true { Classes::Balanced } else { Classes::AsTheyAre };
        let c = wanted["c"].as_f64().expect("C");
        let Fit { linear, beside, steps, .. } = fit(&rows, &examples, c, classes).expect("fits");
        assert!(steps < 20, "{steps}");
        let weights = numbers(&wanted["weights"]);
        assert_eq!((linear.weights.len(), linear.weights[3]), (weights.len(), 0.0), "column 3 is constant");
        for (column, (found, expected)) in linear.weights.iter().zip(weights).enumerate() {
            assert!(close(*found, expected, 1e-6), "C {c}, column {column}: {found} for {expected}");
        }
        let expected = wanted["bias"].as_f64().expect("a bias");
        assert!(close(linear.bias, expected, 1e-6), "C {c}: {} for {expected}", linear.bias);
        let expected = wanted["weight_beside"].as_f64().expect("a weight");
        assert!(close(beside, expected, 1e-6), "C {c}: {beside} for {expected}");
        // As a head holds it, in 32 bits, it says the same but for the last digit of a bias of thousands.
        let (weights, bias) = linear.rounded().expect("fits into 32 bits");
        for (row, expected) in numbers(&wanted["logits"]).into_iter().enumerate() {
            let found = linear.logit(rows.row(row));
            assert!((found - expected).abs() < 1e-6, "C {c}, row {row}: {found} for {expected}");
            let products = weights.iter().zip(rows.row(row)).map(|(w, x)| f64::from(*w) * f64::from(*x));
            let rounded = products.sum::<f64>() + f64::from(bias);
            assert!((rounded - found).abs() < 1e-3, "C {c}, row {row}: {rounded} for {found}");
        }
    }
    for wanted in golden["platt"].as_array().expect("calibrations") {
        let found = calibrate(&numbers(&wanted["logits"]), &labels).expect("calibrates");
        for (found, name) in [(found.scale, "scale"), (found.offset, "offset")] {
            let expected = wanted[name].as_f64().expect("a number");
            assert!(close(found, expected, 1e-6), "{name}: {found} for {expected}");
        }
        assert_eq!(found.probability(0.0), 1.0 / (1.0 + (-found.offset).exp()));
    }
}

/// Two rows at 1 and −1 leave one weight, where `w = 2C·σ(−w)`: bisection finds it by another way.
#[test]
fn the_smallest_fit_is_where_bisection_finds_it() {
    let mut rows = Rows::new(1);
    rows.push(&[3.0]).expect("a row");
    rows.push(&[1.0]).expect("a row");
    for c in [0.002, 1.0, 1000.0] {
        let (mut low, mut high) = (0.0_f64, 2.0 * c);
        for _ in 0..200 {
            let middle = f64::midpoint(low, high);
            *(if middle < 2.0 * c / (1.0 + middle.exp()) { &mut low } else { &mut high }) = middle;
        }
        let found = fit(&rows, &examples(&[true, false]), c, Classes::AsTheyAre).expect("fits").linear;
        // The rows lie at 2 ± 1, so standardising only moves them.
        assert!(close(found.weights[0], low, 1e-8), "C {c}: {} for {low}", found.weights[0]);
        assert!(close(found.bias, -2.0 * low, 1e-8), "C {c}: {}", found.bias);
    }
}

#[test]
fn what_can_t_be_fitted_is_refused() {
    let rows = golden_rows();
    let examples = examples(&[true, false, true]);
    let refused = |examples: &[Example], c| fit(&rows, examples, c, Classes::AsTheyAre).expect_err("refused");
    for c in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(refused(&examples, c), FitError::Setting { what: "C", .. }), "{c}");
    }
    assert_eq!(refused(&[], 1.0), FitError::OneClass { rows: 0, positive: false });
    assert_eq!(refused(&examples[..1], 1.0), FitError::OneClass { rows: 1, positive: true });
    let changed = |change: &dyn Fn(&mut Example)| {
        let mut examples = examples.clone();
        change(&mut examples[1]);
        refused(&examples, 1.0)
    };
    assert_eq!(changed(&|example| example.row = 80), FitError::NoRow { row: 80, rows: 80 });
    assert!(matches!(changed(&|example| example.weight = f64::NAN), FitError::Setting { .. }));
    assert!(matches!(changed(&|example| example.weight = -1.0), FitError::Setting { .. }));
    assert!(matches!(changed(&|example| example.beside = f64::INFINITY), FitError::Setting { .. }));
    // Weights of 0 leave nothing of a class.
    assert!(matches!(changed(&|example| example.weight = 0.0), FitError::OneClass { .. }));

    let upside_down = calibrate(&[3.0, 2.0, -2.0, -3.0], &[false, false, true, true]);
    assert!(matches!(upside_down, Err(FitError::Backwards { scale }) if scale < 0.0), "{upside_down:?}");
    assert!(matches!(calibrate(&[1.0; 4], &[true, false, true, false]), Err(FitError::Backwards { .. })));
    assert!(matches!(calibrate(&[f64::NAN, 0.0], &[true, false]), Err(FitError::NotFinite { row: 0, .. })));
    assert!(matches!(calibrate(&[1.0, 2.0], &[true, true]), Err(FitError::OneClass { positive: true, .. })));
    assert!(matches!(calibrate(&[1.0], &[true, true]), Err(FitError::Count { .. })));
    // Separated by far, and still no certainty.
    let separated = calibrate(&[1e6, 1e6, -1e6, -1e6], &[true, true, false, false]).expect("calibrates");
    assert!((separated.probability(1e6) - 0.75).abs() < 1e-6, "{separated:?}");
}

/// `count` rows whose columns say whether row is harmful and, less clearly, of which category.
fn harmful_rows(count: usize, columns: usize, categories: usize) -> (Rows, Vec<Known>) {
    let mut seeded = Seeded::new(5);
    let mut normal = move || {
        let sum: f64 = (0..12).map(|_| seeded.number() as f64 / 2_f64.powi(64)).sum();
        sum - 6.0
    };
    let mut rows = Rows::new(columns);
    let mut known = Vec::new();
    for row in 0..count {
        let category = row % (2 * categories);
        let harmful = category < categories;
        let number = |column: usize| {
            let signal = match column {
                0..4 if harmful => 1.0,
                4.. if column - 4 == category => 1.5,
                _ => 0.0,
            };
            (1000.0 * (column % 3) as f64 + signal + normal()) as f32
        };
        rows.push(&(0..columns).map(number).collect::<Vec<f32>>()).expect("a row");
        // Every third row is labelled for its own category alone.
        let label = |at: usize| (row % 3 != 0 || at == category).then_some(at == category);
        let harm = (!harmful).then_some(false);
        known.push(Known::new(row, harm, (0..categories).map(label).collect()).expect("labels"));
    }
    (rows, known)
}

#[test]
fn two_stages_fold_into_linear_heads_that_see_what_they_have_not_seen() {
    let (rows, known) = harmful_rows(396, 24, 3);
    let groups: Vec<usize> = (0..396).map(|row| row / 2).collect();
    let recipe = Recipe { c: 0.05, folds: 5, ..Recipe::default() };
    let run = |recipe: &Recipe| {
        let mut heard = Vec::new();
        let found = fit_all(&rows, &known, &groups, recipe, &mut |done, of| heard.push((done, of)));
        assert_eq!((heard.first(), heard.last(), heard.len()), (Some(&(1, 24)), Some(&(24, 24)), 24));
        found.expect("fits")
    };
    let found = run(&recipe);
    assert_eq!(found.len(), 4, "any harm and three categories");
    for (head, Fitted { linear, platt, out_of_fold }) in found.iter().enumerate() {
        let positives = out_of_fold.iter().filter(|one| one.positive).count();
        // Rows of category 0 have that label alone, and no part in the other two.
        let expected = [(198, 396), (66, 396), (66, 330), (66, 330)];
        assert_eq!((positives, out_of_fold.len()), expected[head], "{head}");
        let right = out_of_fold.iter().filter(|one| (one.logit > 0.0) == one.positive).count();
        assert!(right * 10 > out_of_fold.len() * 8, "head {head}: {right} of {}", out_of_fold.len());
        assert!(out_of_fold.iter().all(|one| one.logit != linear.logit(rows.row(one.row))), "unseen");
        let mean = out_of_fold.iter().map(|one| platt.probability(one.logit)).sum::<f64>();
        assert!((mean - positives as f64).abs() < 2.0, "head {head}: {mean} for {positives}");
    }
    assert_eq!(run(&recipe), found, "the same bits");
    assert_ne!(run(&Recipe { seed: 2, ..recipe })[1].platt, found[1].platt);
    // Without emphasis the first stage has no part in the second.
    let alone = run(&Recipe { emphasis: 0.0, ..recipe });
    assert_eq!(alone[0], found[0]);
    assert_ne!(alone[1], found[1]);
}

/// What folds back is what the second stage said: a plain fit with the column beside it.
#[test]
fn the_folded_head_is_the_second_stage() {
    let (rows, known) = harmful_rows(120, 12, 1);
    let groups: Vec<usize> = (0..120).collect();
    let recipe = Recipe { c: 0.05, folds: 3, ..Recipe::default() };
    let found = fit_all(&rows, &known, &groups, &recipe, &mut |_, _| ()).expect("fits");
    let labels: Vec<bool> = (0..120).map(|row| row % 2 == 0).collect();
    let any = &found[0].linear;
    let mut examples = examples(&labels);
    for example in &mut examples {
        example.beside = recipe.emphasis * any.logit(rows.row(example.row));
    }
    let second = fit(&rows, &examples, recipe.c, Classes::AsTheyAre).expect("fits");
    assert!(second.beside > 0.0);
    for example in examples {
        let row = rows.row(example.row);
        let (folded, plain) = (found[1].linear.logit(row), second.linear.logit(row));
        assert!((folded - (plain + second.beside * example.beside)).abs() < 1e-9, "{folded}, {plain}");
    }
}

#[test]
fn labels_say_something_of_each_other() {
    let known = |harm, of: &[Option<bool>]| Known::new(7, harm, of.to_vec());
    let (yes, no) = (Some(true), Some(false));
    assert_eq!(known(no, &[yes]), Err(FitError::Contradiction { row: 7, category: 0 }));
    assert_eq!(known(None, &[None, yes]), known(yes, &[None, yes]));
    assert_eq!(known(no, &[None, None]), known(no, &[no, no]));
    assert_eq!(known(None, &[no, no]), known(no, &[no, no]));
    assert_ne!(known(None, &[no, None]), known(no, &[no, None]), "the other label may be anything");
    let (rows, known) = harmful_rows(12, 12, 3);
    let run = |known: &[Known], groups: &[usize], recipe: &Recipe| {
        fit_all(&rows, known, groups, recipe, &mut |_, _| ()).expect_err("refused")
    };
    let groups: Vec<usize> = (0..12).collect();
    let recipe = Recipe { folds: 2, ..Recipe::default() };
    assert!(matches!(run(&known[1..], &groups, &recipe), FitError::Count { what: "labels", .. }));
    assert!(matches!(run(&known, &[1], &recipe), FitError::Count { what: "groups", .. }));
    assert!(matches!(run(&known, &[1; 12], &recipe), FitError::TooFewGroups { .. }));
    let never: Vec<Known> =
        (0..12).map(|row| Known::new(row, Some(row < 6), vec![no]).expect("labels")).collect();
    let error = run(&never, &groups, &recipe);
    assert_eq!(
        error.to_string(),
        "category 0: all of the 6 labelled rows are negative; a fit wants some of both"
    );
}

/// As large as what is fitted for the shipped heads.
#[test]
#[ignore = "takes a minute; run it to see how long fits take"]
fn a_large_fit_takes_seconds() {
    let (rows, known) = harmful_rows(6000, 1920, 5);
    let examples: Vec<Example> =
        (0..6000).map(|row| Example { row, positive: row % 10 < 5, weight: 1.0, beside: 0.0 }).collect();
    for c in [0.002, 0.1] {
        let started = Instant::now();
        let found = fit(&rows, &examples, c, Classes::AsTheyAre).expect("fits");
        println!("C {c}: {} steps, {} passes, {:?}", found.steps, found.passes, started.elapsed());
    }
    let started = Instant::now();
    let groups: Vec<usize> = (0..6000).collect();
    let found = fit_all(&rows, &known, &groups, &Recipe::default(), &mut |_, _| ()).expect("fits");
    println!("{} heads, 10 folds: {:?}", found.len(), started.elapsed());
}
