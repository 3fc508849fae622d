//! Measures against scikit-learn's and scipy's (`models/reference/make_measures.py`), and their edges.

#![expect(clippy::expect_used, reason = "this is all tests")]

use std::path::Path;

use serde_json::Value;
use shieldgate_models::measures::{
    Difference, Interval, MeasureError, Ranking, Samples, Scored, calibration, difference, intervals, wilson,
};

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/measures/golden.json");
    serde_json::from_slice(&std::fs::read(path).expect("is committed")).expect("is JSON")
}

/// The script's `scores`.
fn scores(steps: u32, turn: u32) -> Vec<Scored> {
    let score = |row: u32| {
        let positive = row.is_multiple_of(5);
        let noise = f64::from((row * 7919 * turn + row * row * 31) % 1009) / 1009.0;
        let raw = 0.75 * noise + 0.25 * f64::from(u8::from(positive));
        let probability = ((raw * f64::from(steps)).floor() + 0.5) / (f64::from(steps) + 0.25);
        Scored { probability, positive }
    };
    (0..300).map(score).collect()
}

#[track_caller]
fn same(found: Option<f64>, expected: &Value) {
    match (found, expected.as_f64()) {
        (None, None) => {}
        (Some(found), Some(expected)) => assert!((found - expected).abs() < 1e-9, "{found} for {expected}"),
        (found, _) => panic!("{found:?} for {expected}"),
    }
}

#[track_caller]
fn same_interval(found: Option<Interval>, expected: &Value) {
    same(found.map(|found| found.low), &expected[0]);
    same(found.map(|found| found.high), &expected[1]);
}

#[test]
fn measures_equal_scikit_learn_s() {
    let golden = golden();
    let samples = Samples {
        count: golden["samples"].as_u64().expect("a number") as usize,
        seed: golden["seed"].as_u64().expect("a number"),
    };
    let cases = golden["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 2);
    for case in cases {
        let steps = case["steps"].as_u64().expect("a number") as u32;
        let rows = scores(steps, 1);
        let ranking = Ranking::new(&rows).expect("probabilities");
        assert_eq!((ranking.rows(), ranking.positives()), (300, 60));
        let areas = ranking.areas().expect("both classes");
        same(Some(areas.precision_recall), &case["average_precision"]);
        same(Some(areas.roc), &case["roc"]);
        let best = ranking.best_f1().expect("positives");
        same(Some(best.threshold), &case["best"]["threshold"]);
        same(best.counts.f1(), &case["best"]["f1"]);
        assert_eq!(ranking.at(best.threshold), best.counts);

        let wanted = case["thresholds"].as_array().expect("thresholds");
        let thresholds: Vec<f64> =
            wanted.iter().map(|one| one["threshold"].as_f64().expect("a number")).collect();
        let around = intervals(&ranking, &thresholds, samples).expect("both classes");
        same_interval(Some(around.precision_recall), &case["average_precision_interval"]);
        same_interval(Some(around.roc), &case["roc_interval"]);
        for ((threshold, wanted), f1) in thresholds.iter().zip(wanted).zip(&around.f1) {
            let counts = ranking.at(*threshold);
            let found = [
                counts.true_negatives,
                counts.false_positives,
                counts.false_negatives,
                counts.true_positives,
            ];
            assert_eq!(serde_json::json!(found), wanted["counts"], "{threshold}");
            same(counts.precision(), &wanted["precision"]);
            same(counts.recall(), &wanted["recall"]);
            same(counts.f1(), &wanted["f1"]);
            same_interval(wilson(counts.true_positives, counts.flagged()), &wanted["precision_interval"]);
            same_interval(wilson(counts.true_positives, counts.positives()), &wanted["recall_interval"]);
            same_interval(Some(*f1), &wanted["f1_interval"]);
        }

        let apart = difference(&rows, &scores(steps, 3), samples).expect("the same rows");
        let wanted = &case["difference"];
        for (at, Difference { by, interval, better }) in apart.expect("both classes").into_iter().enumerate()
        {
            same(Some(by), &wanted["by"][at]);
            same_interval(Some(interval), &wanted["intervals"][at]);
            same(Some(better), &wanted["better"][at]);
        }

        let found = calibration(&rows, 10);
        same(found.expected_error, &case["expected_error"]);
        same(found.brier, &case["brier"]);
        let counts: Vec<u64> = found.bins.iter().map(|bin| bin.rows).collect();
        assert_eq!(serde_json::json!(counts), case["bins"]["rows"]);
        let filled = found.bins.iter().filter(|bin| bin.rows > 0).enumerate();
        for (at, bin) in filled {
            same(bin.mean_probability, &case["bins"]["mean"][at]);
            same(bin.observed, &case["bins"]["observed"][at]);
            assert_eq!(bin.interval, wilson(bin.positives, bin.rows));
        }
    }
}

#[test]
fn the_curves_go_from_nothing_to_everything() {
    let ranking = Ranking::new(&scores(9, 1)).expect("probabilities");
    let roc = ranking.roc();
    let ends = [roc.first(), roc.last()].map(|point| point.map(|at| [at.false_positives, at.true_positives]));
    assert_eq!(ends, [Some([0.0; 2]), Some([1.0; 2])]);
    // The area by trapezia is that by pairs.
    let width = |pair: &[_; 2]| {
        let [a, b]: &[shieldgate_models::measures::RocPoint; 2] = pair;
        (b.false_positives - a.false_positives) * f64::midpoint(a.true_positives, b.true_positives)
    };
    let area: f64 = roc.array_windows().map(width).sum();
    same(Some(area), &ranking.areas().map(|areas| areas.roc).into());
    let steps = ranking.steps();
    assert!(steps.is_sorted_by(|a, b| a.threshold > b.threshold) && steps.len() == roc.len() - 1);
    assert!(steps.iter().all(|step| step.counts == ranking.at(step.threshold) && step.counts.rows() == 300));
}

#[test]
fn what_can_t_be_said_is_not_said() {
    let scored = |probability, positive| Scored { probability, positive };
    for bad in [f64::NAN, -0.1, 1.1, f64::INFINITY] {
        let error = Ranking::new(&[scored(0.5, true), scored(bad, true)]).expect_err("refused");
        assert!(matches!(error, MeasureError::NotAProbability { row: 1, .. }), "{error}");
    }
    let none = Ranking::new(&[]).expect("no rows are rows");
    assert_eq!((none.areas(), none.best_f1(), none.roc().len()), (None, None, 0));
    assert_eq!(intervals(&none, &[0.5], Samples::default()), None);
    assert_eq!((none.at(0.5).precision(), none.at(0.5).flagged_rate()), (None, None));
    let found = calibration(&[], 10);
    assert_eq!((found.brier, found.expected_error, found.bins.len()), (None, None, 10));

    let negatives = [scored(0.2, false), scored(0.9, false)];
    let ranking = Ranking::new(&negatives).expect("probabilities");
    assert_eq!((ranking.areas(), ranking.best_f1(), ranking.roc().len()), (None, None, 0));
    let counts = ranking.at(0.5);
    assert_eq!((counts.precision(), counts.recall(), counts.f1()), (Some(0.0), None, Some(0.0)));
    assert_eq!(counts.flagged_rate(), Some(0.5));
    assert_eq!(difference(&negatives, &negatives, Samples::default()), Ok(None));
    let positives = [scored(0.2, true), scored(0.9, true)];
    assert_eq!(
        difference(&negatives, &positives, Samples::default()),
        Err(MeasureError::OtherRows { row: 0 })
    );
    assert_eq!(
        difference(&negatives, &negatives[..1], Samples::default()),
        Err(MeasureError::OtherRows { row: 1 })
    );
    let both = [scored(0.2, false), scored(0.9, true)];
    let ranking = Ranking::new(&both).expect("probabilities");
    assert_eq!(intervals(&ranking, &[], Samples { count: 0, seed: 1 }), None);

    assert_eq!(wilson(0, 0), None);
    let (never, always) = (wilson(0, 10).expect("rows"), wilson(10, 10).expect("rows"));
    assert!(never.low == 0.0 && (never.high - 0.2775).abs() < 1e-4, "{never:?}");
    assert!(always.high == 1.0 && (always.low - 0.7225).abs() < 1e-4, "{always:?}");
    // The edges of the scale are in its first and last bin.
    let edges = calibration(&[scored(0.0, false), scored(1.0, true)], 4);
    assert_eq!(edges.bins.iter().map(|bin| bin.rows).collect::<Vec<_>>(), [1, 0, 0, 1]);
    assert_eq!((edges.brier, edges.expected_error), (Some(0.0), Some(0.0)));
}
