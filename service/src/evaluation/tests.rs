//! A run without judges: what is kept of answers, what the report says of it, and that it can be drawn.

use serde_json::{Value, json};
use shieldgate_models::{Digest, JudgeCard, Probability, Question};

use super::{Collected, Labels, Report, RowAnswer, Score};
use crate::moderate::decide::{Answered, decide};
use crate::policy::Policy;
use crate::policy::active::{ActivePolicy, Asked};
use crate::scheduler::Scored;
use crate::verdict::{Form, PolicyAnswer, WindowAt, Worst};

fn active(id: &str, judges: &[&str]) -> ActivePolicy {
    let thresholds = json!({"review": 0.5, "block": 0.75});
    let judges: Vec<Value> =
        judges.iter().map(|name| json!({"name": name, "thresholds": thresholds})).collect();
    let policy: Policy = serde_json::from_value(
        json!({"id": id, "title": "T", "modality": "text", "text": "T", "judges": judges}),
    )
    .expect("a policy");
    let asked = policy
        .judges
        .iter()
        .map(|judge| Asked { judge: judge.clone(), question: Question::new("?".to_owned(), 1.0, 0.0) });
    ActivePolicy { asked: asked.collect(), version: "v".to_owned(), policy, judges_not_run: Vec::new() }
}

/// What the gate makes of these probabilities, one a judge.
fn answer(active: &ActivePolicy, probabilities: &[f32]) -> PolicyAnswer {
    let card = JudgeCard {
        name: "j".to_owned(),
        kind: "test",
        modality: shieldgate_models::Modality::Text,
        digest: Digest::of(b"j"),
        demo: false,
    };
    let scored = |p: &f32| Scored {
        probability: Probability::try_from(*p).expect("a probability"),
        worst: Worst::Window(WindowAt { start: 0, end: 1, form: Form::Written }),
        frames: Vec::new(),
    };
    let answered =
        |p: &f32| Answered { card: &card, result: Ok(scored(p)), recalled: false, computed_on: None };
    decide(active, probabilities.iter().map(answered).collect()).expect("decides")
}

fn labels(value: &Value) -> Labels {
    Labels::read(value.as_object().expect("an object")).expect("labels")
}

/// Two policies, the first with two judges; four judged rows, one that is refused, one that failed in part.
fn collected() -> (Collected, Vec<(String, Option<bool>)>) {
    let policies = [active("hate", &["a", "b"]), active("threats", &["a"])];
    let mut collected = Collected::new(&policies);
    let mut told = Vec::new();
    let rows: [(Value, [f32; 3]); 4] = [
        (json!({"hate": 1, "threats": 0}), [0.9, 0.4, 0.5]),
        (json!({"hate": 0, "threats": 0}), [0.1, 0.2, 0.3]),
        (json!({"hate": 0}), [0.5, 0.1, 0.1]),
        (json!({}), [0.9, 0.9, 0.9]),
    ];
    for (at, (row, [a, b, c])) in rows.iter().enumerate() {
        let answers = vec![Ok(answer(&policies[0], &[*a, *b])), Ok(answer(&policies[1], &[*c]))];
        let answer = RowAnswer::Judged(answers);
        collected.add(&policies, &format!("rows:{at}"), &labels(row), &answer, &mut |score: Score<'_>| {
            told.push((score.policy.to_owned(), score.label));
        });
    }
    let refused = RowAnswer::Refused("the text is empty".to_owned());
    collected.add(&policies, "rows:5", &labels(&json!({"hate": 1})), &refused, &mut |_| panic!("unscored"));
    let failed = RowAnswer::Judged(vec![
        Err("judge `a`: the judge failed".to_owned()),
        Ok(answer(&policies[1], &[0.25])),
    ]);
    let all = labels(&json!({"hate": 1, "threats": 1}));
    collected.add(&policies, "rows:6", &all, &failed, &mut |score| {
        assert_eq!((score.policy, score.label), ("threats", Some(true)));
    });
    (collected, told)
}

fn report() -> Report {
    let mut report = collected().0.report(50).expect("probabilities");
    report.data = "a <file> & \"more\".jsonl".to_owned();
    report
}

#[test]
fn every_probability_is_held_against_its_own_label() {
    let (_, told) = collected();
    let of = |policy: &str, label| (policy.to_owned(), label);
    let hate =
        [Some(true), Some(false), Some(false), None].map(|label| [of("hate", label), of("hate", label)]);
    let threats = [Some(false), Some(false), None, None].map(|label| of("threats", label));
    let expected: Vec<_> =
        hate.into_iter().zip(threats).flat_map(|([a, b], threats)| [a, b, threats]).collect();
    assert_eq!(told, expected);

    let report = report();
    assert_eq!((report.rows, report.unlabelled), (6, 1));
    assert_eq!((report.refused.rows, &report.refused.first[0][..]), (1, "rows:5: the text is empty"));
    assert_eq!((report.failed.rows, &report.failed.first[0][..]), (1, "rows:6: judge `a`: the judge failed"));
    let counted = report.series.iter().map(|one| (one.name(&report.series), one.rows, one.positives));
    let counted = counted.collect::<Vec<_>>();
    let of = |name: &str, rows, positives| (name.to_owned(), rows, positives);
    assert_eq!(counted, [of("hate (a)", 3, 1), of("hate (b)", 3, 1), of("threats", 3, 1)]);
    // The policy's own thresholds, inclusive, and the best one.
    let thresholds = report.series[0]
        .thresholds
        .iter()
        .map(|at| (at.name, at.rates.true_positives, at.rates.false_positives));
    assert_eq!(thresholds.collect::<Vec<_>>(), [("review", 1, 1), ("block", 1, 0), ("best F1", 1, 0)]);
    assert_eq!(report.series[0].auroc.map(|area| area.value), Some(1.0));
    assert_eq!(report.series[2].auroc.map(|area| area.value), Some(0.0), "0.25 below 0.5 and 0.3");
}

#[test]
fn any_harm_is_by_all_policies() {
    let report = report();
    let [worst, noisy_or] = report.any_harm.as_slice() else { panic!("{report:?}") };
    // The row of which one policy has no answer has no part in it, nor the one without labels.
    assert_eq!((worst.rows, worst.positives, noisy_or.rows), (3, 1, 3));
    let best = |measured: &super::report::Measured| measured.thresholds.last().map(|at| at.threshold);
    let near = |found: Option<f64>, expected: f64| found.is_some_and(|found| (found - expected).abs() < 1e-6);
    assert!(near(best(worst), 0.9) && near(best(noisy_or), 1.0 - 0.1 * 0.5), "{report:?}");
    let gate =
        |rates: super::report::Rates| (rates.true_positives, rates.false_positives, rates.true_negatives);
    assert_eq!((gate(report.gate.review), gate(report.gate.block)), ((1, 1, 1), (1, 0, 2)));
}

#[test]
fn the_picture_is_well_formed_and_within_its_frame() {
    let svg = report().svg();
    let document = roxmltree::Document::parse(&svg).unwrap_or_else(|error| panic!("{error}\n{svg}"));
    let texts: Vec<&str> = document.descendants().filter_map(|node| node.text()).collect();
    for wanted in ["hate (a)", "hate (b)", "threats", "any harm, worst", "any harm, noisy-or", "recall"] {
        assert!(texts.contains(&wanted), "no `{wanted}` in {texts:?}");
    }
    assert!(texts.iter().any(|text| text.contains("a <file> & \"more\".jsonl")));
    let size = |name| document.root_element().attribute(name).and_then(|text| text.parse::<f64>().ok());
    let (width, height) = (size("width").expect("a width"), size("height").expect("a height"));
    for node in document.descendants() {
        let ends = [("x", width), ("x1", width), ("x2", width), ("cx", width)];
        let down = ["y", "y1", "y2", "cy"].map(|name| (name, height));
        for (name, end) in ends.into_iter().chain(down) {
            let Some(text) = node.attribute(name) else { continue };
            let value: f64 = text.parse().unwrap_or_else(|_| panic!("{name}={text}"));
            assert!((0.0..=end).contains(&value), "{name}={text}");
        }
    }
}

#[test]
fn a_report_of_nothing_is_a_report() {
    let report = Collected::new(&[active("hate", &["a"])]).report(50).expect("a report");
    assert_eq!((report.rows, report.series[0].auroc), (0, None));
    roxmltree::Document::parse(&report.svg()).expect("well-formed");
    serde_json::to_string(&report).expect("JSON has no word for what is not finite");
}
