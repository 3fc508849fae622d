//! A report as a picture: precision over recall, true over false positives, and calibration; a line each.
//!
//! Plain SVG, drawn by hand; it follows the reader's light or dark setting.

mod canvas;

use canvas::{Canvas, escaped};

use super::report::{Estimate, Measured, Report};

const WIDTH: f64 = 1120.0;
const TOP: f64 = 112.0;
const SIDE: f64 = 300.0;
const LEFTS: [f64; 3] = [58.0, 430.0, 802.0];
const KEY_TOP: f64 = TOP + SIDE + 76.0;
const KEY_ROW: f64 = 20.0;

/// As many colours as eyes tell apart; beyond them lines are dashed.
const COLOURS: usize = 6;

/// Colours that keep their distance for colour-blind readers (Okabe and Ito), a little darker on white and
/// lighter on black, so that thin lines are seen on both.
const STYLE: &str = "
svg{background:#fff;font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:12px}
text{fill:#1b1f24} .title{font-size:19px;font-weight:600} .head{font-size:13px;font-weight:600}
.soft{fill:#57606a} .grid{stroke:#d0d7de;stroke-width:1} .axis{stroke:#57606a;stroke-width:1}
.chance{stroke:#8c959f;stroke-width:1;stroke-dasharray:3 4}
path{fill:none;stroke-width:1.8;stroke-linejoin:round} line.s0,line.s1,line.s2,line.s3,line.s4,line.s5{stroke-width:1.8}
.dashed{stroke-dasharray:6 3} .thin{stroke-opacity:.45;stroke-width:1.2} circle{stroke:none}
.s0{stroke:#0065a3} .s1{stroke:#c04a00} .s2{stroke:#00805f} .s3{stroke:#a8457f} .s4{stroke:#b07d00} .s5{stroke:#57606a}
circle.s0{fill:#0065a3} circle.s1{fill:#c04a00} circle.s2{fill:#00805f} circle.s3{fill:#a8457f} circle.s4{fill:#b07d00} circle.s5{fill:#57606a}
@media (prefers-color-scheme:dark){
svg{background:#0d1117} text{fill:#e6edf3} .soft{fill:#9198a1} .grid{stroke:#262c36} .axis{stroke:#9198a1} .chance{stroke:#6e7681}
.s0{stroke:#4da6e0} .s1{stroke:#f08a3c} .s2{stroke:#2fbf93} .s3{stroke:#dd8fbd} .s4{stroke:#e3b341} .s5{stroke:#9198a1}
circle.s0{fill:#4da6e0} circle.s1{fill:#f08a3c} circle.s2{fill:#2fbf93} circle.s3{fill:#dd8fbd} circle.s4{fill:#e3b341} circle.s5{fill:#9198a1}
}
";

/// A square of two axes from 0 to 1.
struct Panel {
    left: f64,
}

impl Panel {
    fn place(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (self.left + x.clamp(0.0, 1.0) * SIDE, TOP + (1.0 - y.clamp(0.0, 1.0)) * SIDE)
    }

    fn frame(&self, canvas: &mut Canvas, head: &str, across: &str, up: &str) {
        canvas.text("head", (self.left, TOP - 26.0), "start", head);
        canvas.text("soft", (self.left, TOP - 9.0), "start", up);
        for tenth in [0, 2, 4, 6, 8, 10] {
            let share = f64::from(tenth) / 10.0;
            let label = format!("{share:.1}");
            let ((left, y), (right, _)) = (self.place((0.0, share)), self.place((1.0, share)));
            canvas.line("grid", (left, y), (right, y));
            canvas.text("soft", (left - 7.0, y + 4.0), "end", &label);
            let (x, bottom) = self.place((share, 0.0));
            canvas.line("axis", (x, bottom), (x, bottom + 4.0));
            canvas.text("soft", (x, bottom + 18.0), "middle", &label);
        }
        canvas.line("axis", self.place((0.0, 0.0)), self.place((1.0, 0.0)));
        canvas.text("soft", (self.left + SIDE, TOP + SIDE + 36.0), "end", across);
    }

    fn curve(&self, canvas: &mut Canvas, class: &str, points: &[(f64, f64)], note: &str) {
        let points: Vec<(f64, f64)> = points.iter().map(|point| self.place(*point)).collect();
        canvas.path(class, &points, note);
    }
}

impl Report {
    pub fn svg(&self) -> String {
        let mut canvas = Canvas::default();
        let title = format!("shieldgate eval: {}", self.data);
        canvas.text("title", (LEFTS[0], 34.0), "start", &title);
        let about = format!("{} rows · {} on {}", self.rows, self.runtime, self.device);
        canvas.text("soft", (LEFTS[0], 56.0), "start", &about);

        let [curve, roc, calibration] = LEFTS.map(|left| Panel { left });
        curve.frame(&mut canvas, "Precision and recall", "recall", "precision");
        roc.frame(&mut canvas, "ROC", "false positives", "true positives");
        calibration.frame(
            &mut canvas,
            "Calibration",
            "mean probability",
            "observed rate, with 95 % intervals",
        );
        roc.curve(&mut canvas, "chance", &[(0.0, 0.0), (1.0, 1.0)], "chance");
        calibration.curve(&mut canvas, "chance", &[(0.0, 0.0), (1.0, 1.0)], "as probabilities say");

        let drawn: Vec<(String, &Measured)> = self.drawn();
        for (at, (name, measured)) in drawn.iter().enumerate() {
            let class = class(at);
            // A threshold that flags nothing has a recall of 0 and no precision: the curve begins at its first.
            let begin = measured.curves.precision_recall.first().map(|(_, precision)| (0.0, *precision));
            let points: Vec<(f64, f64)> =
                begin.into_iter().chain(measured.curves.precision_recall.iter().copied()).collect();
            curve.curve(&mut canvas, &class, &points, name);
            roc.curve(&mut canvas, &class, &measured.curves.roc, name);
            calibrated(&mut canvas, &calibration, &class, name, measured);
            key(&mut canvas, at, &class, name, measured);
        }
        let height = KEY_TOP + KEY_ROW * drawn.len().max(1) as f64 + 8.0;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" role=\"img\">\n<title>{}</title>\n<style>{STYLE}</style>\n{}</svg>\n",
            escaped(&title),
            canvas.into_text()
        )
    }

    /// Series with labelled rows, by their names.
    fn drawn(&self) -> Vec<(String, &Measured)> {
        let all = self.series.iter().chain(&self.any_harm);
        all.filter(|one| one.rows > 0).map(|one| (one.name(&self.series), one)).collect()
    }
}

fn class(at: usize) -> String {
    let dashed = if at < COLOURS { "" } else { " dashed" };
    format!("s{}{dashed}", at % COLOURS)
}

/// Bins as dots, the larger the more rows, with what is likely for others.
fn calibrated(canvas: &mut Canvas, panel: &Panel, class: &str, name: &str, measured: &Measured) {
    let bins = measured.calibration.bins.iter();
    let known = bins.filter_map(|bin| Some((bin, bin.mean_probability?, bin.observed?)));
    let mut points = Vec::new();
    for (bin, mean, observed) in known {
        if let Some(interval) = observed.interval {
            let ends = [interval.low, interval.high].map(|end| panel.place((mean, end)));
            canvas.line(&format!("{class} thin"), ends[0], ends[1]);
        }
        let share = bin.rows as f64 / measured.rows.max(1) as f64;
        let note = format!(
            "{name}: {} of {} rows of {:.1} to {:.1} are positive",
            bin.positives, bin.rows, bin.from, bin.to
        );
        canvas.dot(class, panel.place((mean, observed.value)), 2.0 + 4.0 * share.sqrt(), &note);
        points.push((mean, observed.value));
    }
    panel.curve(canvas, &format!("{class} thin"), &points, name);
}

fn key(canvas: &mut Canvas, at: usize, class: &str, name: &str, measured: &Measured) {
    let y = KEY_TOP + KEY_ROW * at as f64;
    canvas.line(class, (LEFTS[0], y - 4.0), (LEFTS[0] + 28.0, y - 4.0));
    canvas.text("key", (LEFTS[0] + 36.0, y), "start", name);
    let rows = format!("{} rows, {} positive", measured.rows, measured.positives);
    canvas.text("soft", (LEFTS[1] - 110.0, y), "start", &rows);
    for (x, name, area) in
        [(LEFTS[1] + 90.0, "AU-PRC", measured.au_prc), (LEFTS[1] + 290.0, "AUROC", measured.auroc)]
    {
        canvas.text("soft", (x, y), "start", &format!("{name} {}", area.map_or("–".to_owned(), said)));
    }
    let error = measured.calibration.expected_error.map_or("–".to_owned(), |error| format!("{error:.3}"));
    canvas.text("soft", (LEFTS[2] + 118.0, y), "start", &format!("calibration error {error}"));
}

fn said(estimate: Estimate) -> String {
    match estimate.interval {
        Some(interval) => format!("{:.3} ({:.3} to {:.3})", estimate.value, interval.low, interval.high),
        None => format!("{:.3}", estimate.value),
    }
}
