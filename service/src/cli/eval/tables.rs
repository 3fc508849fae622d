//! A report as people read it: tables on stdout.

use super::super::output;
use crate::evaluation::Report;
use crate::evaluation::report::{Estimate, Measured, Rates};

const NONE: &str = "–";

pub(super) fn show(report: &Report) {
    let all = || report.series.iter().chain(&report.any_harm);
    let name = |measured: &Measured| measured.name(&report.series);

    let areas = all().map(|measured| {
        let [au_prc, auroc] = [measured.au_prc, measured.auroc].map(whole);
        vec![name(measured), measured.rows.to_string(), measured.positives.to_string(), au_prc, auroc]
    });
    output::table(&["POLICY", "ROWS", "POSITIVE", "AU-PRC", "AUROC"], &areas.collect::<Vec<_>>());

    output::line("");
    let mut rates: Vec<Vec<String>> = Vec::new();
    for measured in all() {
        for at in &measured.thresholds {
            let threshold = format!("{:.3} {}", at.threshold, at.name);
            rates.push(row(name(measured), threshold, &at.rates));
        }
    }
    let labelled = report.any_harm.first().is_some_and(|measured| measured.rows > 0);
    if labelled {
        for (action, of) in [("review or block", &report.gate.review), ("block", &report.gate.block)] {
            rates.push(row("any harm, all policies".to_owned(), action.to_owned(), of));
        }
    }
    output::table(&["POLICY", "THRESHOLD", "PRECISION", "RECALL", "F1", "FLAGGED"], &rates);

    output::line("");
    let mut bins: Vec<Vec<String>> = Vec::new();
    for measured in all() {
        for bin in measured.calibration.bins.iter().filter(|bin| bin.rows > 0) {
            bins.push(vec![
                name(measured),
                format!("{:.1} to {:.1}", bin.from, bin.to),
                bin.rows.to_string(),
                number(bin.mean_probability),
                whole(bin.observed),
            ]);
        }
        let (error, brier) = (measured.calibration.expected_error, measured.calibration.brier);
        if error.is_some() {
            let said = format!("calibration error {}, Brier {}", number(error), number(brier));
            bins.push(vec![name(measured), "all".to_owned(), measured.rows.to_string(), String::new(), said]);
        }
    }
    output::table(&["POLICY", "PROBABILITY", "ROWS", "MEAN", "OBSERVED"], &bins);
}

fn row(name: String, threshold: String, rates: &Rates) -> Vec<String> {
    let rest = [rates.precision, rates.recall, rates.f1, rates.flagged].map(whole);
    [name, threshold].into_iter().chain(rest).collect()
}

fn number(number: Option<f64>) -> String {
    number.map_or_else(|| NONE.to_owned(), |number| format!("{number:.3}"))
}

/// With its interval.
fn whole(estimate: Option<Estimate>) -> String {
    let Some(Estimate { value, interval }) = estimate else { return NONE.to_owned() };
    match interval {
        Some(interval) => format!("{value:.3} ({:.3}–{:.3})", interval.low, interval.high),
        None => format!("{value:.3}"),
    }
}
