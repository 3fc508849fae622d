//! `shieldgate eval`: labelled rows through the installed judges, and what is said of them.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use shieldgate_tests::{Done, samples, shieldgate, texts};
use tempfile::TempDir;

/// A folder with policies for the tiny Gemma, which is added to its data directory.
struct Bench {
    folder: TempDir,
    _model: TempDir,
    model: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let (held, model) = texts::tiny();
        let folder = TempDir::new().expect("a folder");
        let bench = Self { folder, _model: held, model };
        let model = bench.model.to_str().expect("plain");
        shieldgate(bench.path(), &["models", "add", "--data-dir", "data", model], &[]).good();
        bench.write("policies/insults.yaml", texts::policy("insults", 0.4, "harassment, hate"));
        bench.write("policies/threats.yaml", texts::policy("threats", 0.6, "harassment/threatening"));
        bench
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, name: &str, body: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("makes a folder");
        std::fs::write(path, body).expect("writes");
    }

    fn eval(&self, args: &[&str]) -> Done {
        let args: Vec<&str> =
            ["eval", "--data-dir", "data", "--samples", "100"].iter().chain(args).copied().collect();
        shieldgate(self.path(), &args, &[])
    }

    /// Of texts, by the tiny Gemma's policies.
    fn of_texts(&self, args: &[&str]) -> Done {
        self.eval(&[&["--data", "rows.jsonl", "--policies", "policies"][..], args].concat())
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path().join(name)).expect("it was written");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

fn rows(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

/// How often a positive stands above a negative, by counting pairs.
fn auroc(scores: &[&Value]) -> f64 {
    let of = |label: u64| {
        let those = scores.iter().filter(move |score| score["label"] == label);
        those.map(|score| score["probability"].as_f64().expect("a number"))
    };
    let pairs = of(1).flat_map(|positive| of(0).map(move |negative| (positive, negative)));
    let (count, above) = pairs.fold((0.0, 0.0), |(count, above), (positive, negative)| {
        let won = if positive > negative {
            1.0
        } else if positive == negative {
            0.5
        } else {
            0.0
        };
        (count + 1.0, above + won)
    });
    above / count
}

#[test]
fn texts_are_measured_against_their_labels() {
    let bench = Bench::new();
    // Every row is labelled for hate, every other one for threats, the last for nothing.
    let mut all: Vec<Value> = (0..40)
        .map(|n| {
            let threat = if n % 2 == 0 { json!(u8::from(n % 4 == 0)) } else { Value::Null };
            let hate = u8::from(n % 5 == 0);
            let labels = json!({"harassment": 0, "hate": hate, "Harassment_Threatening": threat, "spam": 0});
            json!({"text": format!("row {n}: {}", "word ".repeat(n)), "labels": labels, "id": n})
        })
        .collect();
    all.push(json!({"text": "nobody labelled this", "labels": {}}));
    all.push(json!({"text": "", "labels": {"hate": 1}}));
    bench.write("rows.jsonl", rows(&all));

    let done = bench.of_texts(&["--json", "--scores", "scores.jsonl", "--svg", "picture.svg"]);
    assert!(
        done.stderr.contains("1 of 42 rows were refused:\n  rows.jsonl:42: the text is empty"),
        "{}",
        done.stderr
    );
    assert!(
        done.stderr.contains("labels that are of no policy count for any harm alone: spam"),
        "{}",
        done.stderr
    );
    let report: Value = serde_json::from_str(&done.good()).expect("JSON");
    assert_eq!(
        (&report["rows"], &report["unlabelled"], &report["refused"]["rows"]),
        (&json!(42), &json!(1), &json!(1))
    );
    let counted =
        |series: &Value| [&series["policy"], &series["rows"], &series["positives"]].map(Clone::clone);
    assert_eq!(counted(&report["series"][0]), [json!("insults"), json!(40), json!(8)]);
    assert_eq!(
        counted(&report["series"][1]),
        [json!("threats"), json!(40), json!(10)],
        "no harassment, no threat"
    );
    assert_eq!(
        (&report["any_harm"][0]["rows"], &report["any_harm"][0]["positives"]),
        (&json!(40), &json!(16))
    );
    assert!(report["judges"][0]["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")));

    // What the report says follows from the scores.
    let scores = bench.lines("scores.jsonl");
    assert_eq!(scores.len(), 2 * 41, "every row that was judged, by both policies");
    for (series, policy) in [(0, "insults"), (1, "threats")] {
        let own: Vec<&Value> = scores.iter().filter(|score| score["policy"] == policy).collect();
        let found = &report["series"][series]["auroc"];
        let value = found["value"].as_f64().expect("a number");
        assert!((value - auroc(&own)).abs() < 1e-9, "{policy}: {found} for {}", auroc(&own));
        assert!(
            found["low"].as_f64().is_some_and(|low| low <= value)
                && found["high"].as_f64().is_some_and(|high| value <= high)
        );
        let review = &report["series"][series]["thresholds"][0];
        let flagged = |score: &&&Value| score["probability"].as_f64() >= review["threshold"].as_f64();
        let labelled = own.iter().filter(|score| !score["label"].is_null());
        let hits = labelled.filter(flagged).filter(|score| score["label"] == 1).count();
        assert_eq!((&review["name"], &review["true_positives"]), (&json!("review"), &json!(hits)));
        let bins = report["series"][series]["calibration"]["bins"].as_array().expect("bins");
        assert_eq!(bins.iter().filter_map(|bin| bin["rows"].as_u64()).sum::<u64>(), 40);
    }
    let last = scores.last().expect("a score");
    assert_eq!((&last["row"], &last["label"]), (&json!(41), &Value::Null));
    let picture = std::fs::read_to_string(bench.path().join("picture.svg")).expect("it was written");
    assert!(picture.starts_with("<svg ") && picture.trim_end().ends_with("</svg>"));

    // The same rows give the same report, for people too.
    let again: Value = serde_json::from_str(&bench.of_texts(&["--json"]).good()).expect("JSON");
    assert_eq!(again, report);
    let tables = bench.of_texts(&[]).good();
    for wanted in
        ["AU-PRC", "insults", "0.400 review", "best F1", "any harm, noisy-or", "review or block", "Brier"]
    {
        assert!(tables.contains(wanted), "no `{wanted}` in\n{tables}");
    }
}

/// Windows, folding and batches are the gate's: it answers what the evaluation says.
#[tokio::test]
async fn the_gate_says_the_same() {
    let (_folder, model) = texts::tiny();
    let gate = texts::gate(&model).start().await;
    let caller = gate.caller(&gate.key("moderate"));
    let bench = Bench::new();
    let long: String = (0..200).map(|n| format!("sentence number {n}. ")).collect();
    let all =
        ["plain", "ｂａｄ w\u{200b}ord", &long].map(|text| json!({"text": text, "labels": {"hate": 1}}));
    bench.write("rows.jsonl", rows(&all));
    bench.of_texts(&["--scores", "scores.jsonl"]).good();
    let scores = bench.lines("scores.jsonl");
    for (row, of) in all.iter().enumerate() {
        let answer = caller.post("/v1/texts?policies=insults", &json!({"text": of["text"]})).await;
        let verdict = answer.expect(200);
        let expected = verdict["policies"][0]["probability"].as_f64().expect("a number");
        let own = |score: &&Value| score["row"] == json!(row + 1) && score["policy"] == "insults";
        let found = scores.iter().find(own).and_then(|score| score["probability"].as_f64()).expect("a score");
        assert!((found - expected).abs() < 1e-5, "{of}: {found} for {expected}");
    }
}

#[test]
fn pictures_are_labelled_by_their_folders() {
    let bench = Bench::new();
    for name in ["coffee", "cat", "wide"] {
        bench.write(&format!("pictures/safe/{name}.png"), samples::golden(name));
    }
    bench.write("pictures/sexual/skin.png", samples::golden("skin"));
    bench.write("pictures/sexual/noise.png", samples::golden("noise"));
    bench.write("pictures/violence/broken.png", &samples::coffee()[..1000]);
    let done = bench.eval(&["--data", "pictures", "--json", "--scores", "scores.jsonl"]);
    assert!(
        done.stderr.contains("1 of 6 rows were refused:") && done.stderr.contains("broken.png: "),
        "{}",
        done.stderr
    );
    assert!(
        done.stderr.contains("policy `violence` is not run: judge `shieldgemma2` is not installed"),
        "{}",
        done.stderr
    );
    let report: Value = serde_json::from_str(&done.good()).expect("JSON");
    let series = report["series"].as_array().expect("series");
    let counted: Vec<_> =
        series.iter().map(|one| (&one["policy"], &one["judge"], &one["rows"], &one["positives"])).collect();
    assert_eq!(counted, [(&json!("sexual"), &json!("open-nsfw"), &json!(5), &json!(2))]);
    assert_eq!(report["policies_not_run"].as_array().map(Vec::len), Some(2));
    let scores = bench.lines("scores.jsonl");
    let coffee = scores
        .iter()
        .find(|score| score["file"].as_str().is_some_and(|file| file.ends_with("safe/coffee.png")));
    let coffee = coffee.expect("a score");
    let probability = coffee["probability"].as_f64().expect("a number");
    assert!((probability - samples::golden_probability("coffee")).abs() < 1e-3, "{coffee}");
    assert_eq!(coffee["label"], 0);

    // A file of rows names pictures that lie beside it.
    let named = [
        json!({"file": "safe/coffee.png", "labels": {"sexual": 0}}),
        json!({"file": "sexual/skin.png", "labels": {"sexual": 1}}),
    ];
    bench.write("pictures/rows.jsonl", rows(&named));
    let report = bench.eval(&["--data", "pictures/rows.jsonl", "--json"]).good();
    let report: Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!((&report["series"][0]["rows"], &report["series"][0]["positives"]), (&json!(2), &json!(1)));
    // It lies in no subfolder.
    let error = bench.eval(&["--data", "pictures"]).bad(1);
    assert!(error.contains("rows.jsonl") && error.contains("`safe/`"), "{error}");
}

#[test]
fn what_can_t_be_evaluated_is_named() {
    let bench = Bench::new();
    let good = json!({"text": "a", "labels": {"hate": 1}});
    let refused = |body: String| {
        bench.write("rows.jsonl", body);
        bench.of_texts(&["--json"]).bad(1)
    };
    for (bad, said) in [
        ("{\"text\": \"a\"}", "no `labels`"),
        ("{\"text\": \"a\", \"labels\": {\"hate\": 2}}", "label `hate` is 2; expected 0, 1"),
        ("{\"text\": ", "EOF"),
        ("{\"file\": \"a.png\", \"labels\": {}}", "this row is of images, those before it are of texts"),
    ] {
        let error = refused(format!("{good}\n{bad}\n{good}\n"));
        assert!(error.contains("rows.jsonl:2: ") && error.contains(said), "{bad}: {error}");
    }
    assert!(refused(String::new()).contains("there are no rows in it"));
    let unread = refused("{\"text\": \"\", \"labels\": {\"hate\": 1}}\n".to_owned());
    assert!(unread.contains("none of the rows was judged: rows.jsonl:1: the text is empty"), "{unread}");

    bench.write("rows.jsonl", format!("{good}\n"));
    let error = bench.eval(&["--data", "nowhere.jsonl"]).bad(1);
    assert!(error.contains("`nowhere.jsonl` can't be read"), "{error}");
    let error = bench.of_texts(&["--svg", "no/folder.svg"]).bad(1);
    assert!(error.contains("`no/folder.svg` can't be written"), "{error}");
    bench.write("images/a.yaml", texts::policy("a", 0.5, "").replace("text\ntext", "image\ntext"));
    let error = bench.eval(&["--data", "rows.jsonl", "--policies", "images"]).bad(1);
    assert!(error.contains("no policy is for texts") && error.contains("--policies DIR"), "{error}");
    let missing = texts::policy("a", 0.5, "").replace("tiny-gemma", "nobody");
    bench.write("missing/a.yaml", &missing);
    let error = bench.eval(&["--data", "rows.jsonl", "--policies", "missing"]).bad(1);
    assert!(error.contains("needs judge `nobody`, which is not installed"), "{error}");
    bench.write("missing/a.yaml", format!("{missing}when_missing: skip\n"));
    let error = bench.eval(&["--data", "rows.jsonl", "--policies", "missing"]).bad(1);
    assert!(error.contains("no policy can be judged: `a`: judge `nobody` is not installed"), "{error}");
    bench.eval(&[]).bad(2);
    bench.of_texts(&["--samples", "many"]).bad(2);
}
