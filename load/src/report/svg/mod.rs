//! A run as a picture: latency over time, what became of the uploads, and how the latencies are distributed.
//!
//! Plain SVG, drawn by hand; it follows the reader's light or dark setting. Colour tells streams apart, the
//! kind of line percentiles.

mod axis;
mod canvas;
mod charts;

use super::Report;
use canvas::{Anchor, Canvas, escaped};
use charts::Frame;

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 980.0;
/// Top and bottom of each chart's area.
const LATENCY: (f64, f64) = (154.0, 384.0);
const FATES: (f64, f64) = (478.0, 608.0);
const DISTRIBUTION: (f64, f64) = (706.0, 866.0);
const HEIGHT: f64 = 914.0;

/// Colours that keep their distance for colour-blind readers (Okabe and Ito), a little darker on white and
/// lighter on black, so that thin lines are seen on both.
const STYLE: &str = "
svg{background:#fff;font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:12px}
text{fill:#1b1f24} .title{font-size:19px;font-weight:600} .head{font-size:13px;font-weight:600}
.soft{fill:#57606a} .grid{stroke:#d0d7de;stroke-width:1} .axis{stroke:#57606a;stroke-width:1}
path{fill:none;stroke-width:1.8;stroke-linejoin:round} .p95{stroke-dasharray:7 3} .p99{stroke-dasharray:2 3}
.mark{stroke-width:1.2} .key{stroke-width:1.8;stroke:#57606a}
.s0{stroke:#0065a3} .s1{stroke:#c04a00} .s2{stroke:#00805f} .s3{stroke:#a8457f}
circle.s0,rect.s0,text.s0{fill:#0065a3} circle.s1,rect.s1,text.s1{fill:#c04a00} circle.s2,rect.s2,text.s2{fill:#00805f} circle.s3,rect.s3,text.s3{fill:#a8457f}
text.s0,text.s1,text.s2,text.s3{stroke:none} rect.bar{fill-opacity:.28;stroke-width:1}
.judged{fill:#0065a3} .recalled{fill:#56b4e9} .refused{fill:#e69f00} .failed{fill:#c0182b} .unsent{fill:#8c959f}
@media (prefers-color-scheme:dark){
svg{background:#0d1117} text{fill:#e6edf3} .soft{fill:#9198a1} .grid{stroke:#262c36} .axis{stroke:#9198a1} .key{stroke:#9198a1}
.s0{stroke:#4da6e0} .s1{stroke:#f08a3c} .s2{stroke:#2fbf93} .s3{stroke:#dd8fbd}
circle.s0,rect.s0,text.s0{fill:#4da6e0} circle.s1,rect.s1,text.s1{fill:#f08a3c} circle.s2,rect.s2,text.s2{fill:#2fbf93} circle.s3,rect.s3,text.s3{fill:#dd8fbd}
.judged{fill:#2f81c4} .recalled{fill:#8fd0f7} .refused{fill:#e3a008} .failed{fill:#f0525f} .unsent{fill:#6e7681}
}
";

impl Report {
    pub(crate) fn svg(&self) -> String {
        let mut canvas = Canvas::default();
        self.head(&mut canvas);
        let frame = |(top, bottom)| Frame { left: LEFT, right: RIGHT, top, bottom };
        charts::latency(&mut canvas, frame(LATENCY), self);
        charts::fates(&mut canvas, frame(FATES), self);
        charts::distribution(&mut canvas, frame(DISTRIBUTION), self);
        let title = format!("shieldgate-load {}: {}", self.profile, self.asked);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">\n\
             <title>{}</title>\n<style>{STYLE}</style>\n{}</svg>\n",
            escaped(&title),
            canvas.into_text()
        )
    }

    fn head(&self, canvas: &mut Canvas) {
        let asked = format!("{}: {}, for {} s", self.profile, self.asked, self.seconds);
        canvas.text("title", (LEFT, 34.0), Anchor::Start, &asked);
        canvas.text(
            "soft",
            (LEFT, 56.0),
            Anchor::Start,
            &format!("{} · {}", self.gate.line(), self.started_at),
        );
        canvas.text("soft", (LEFT, 73.0), Anchor::Start, &self.machine.line());
        if self.machine.was_busy() {
            let warning = "The machine was busy before the run began: these numbers say little.";
            canvas.text("head", (LEFT, 91.0), Anchor::Start, warning);
        }
    }

    /// The streams with verdicts, each with its colour's class.
    fn colours(&self) -> Vec<(&'static str, &'static str)> {
        // Swift interactive uploads are what the others are compared with, so they come first.
        let mut streams: Vec<&'static str> = self.distribution.keys().copied().collect();
        streams.sort_by_key(|stream| *stream != crate::profile::INTERACTIVE);
        streams.into_iter().zip(["s0", "s1", "s2", "s3"].into_iter().cycle()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::a_report;
    use super::*;

    #[test]
    fn the_picture_is_well_formed_and_complete() {
        let svg = a_report().svg();
        let document = roxmltree::Document::parse(&svg).unwrap_or_else(|error| panic!("{error}\n{svg}"));
        assert!(document.root_element().has_tag_name(("http://www.w3.org/2000/svg", "svg")));
        let texts: Vec<&str> = document.descendants().filter_map(|node| node.text()).collect();
        for wanted in ["milliseconds", "seconds since the start", "interactive", "bulk", "p99", "refused"] {
            assert!(texts.iter().any(|text| text.contains(wanted)), "no `{wanted}` in {texts:?}");
        }
        assert!(texts.iter().any(|text| text.contains("A <fast> & \"good\" CPU")));
        let lines =
            document.descendants().filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "path")));
        // Three percentiles of two streams.
        assert_eq!(lines.count(), 6);
    }

    #[test]
    fn nothing_lies_outside_or_nowhere() {
        let svg = a_report().svg();
        let document = roxmltree::Document::parse(&svg).expect("well-formed");
        for node in document.descendants() {
            for (name, end) in
                [("x", WIDTH), ("x1", WIDTH), ("x2", WIDTH), ("y", HEIGHT), ("y1", HEIGHT), ("y2", HEIGHT)]
            {
                let Some(text) = node.attribute(name) else { continue };
                let value: f64 = text.parse().unwrap_or_else(|_| panic!("{name}={text}"));
                assert!((0.0..=end).contains(&value), "{name}={text}");
            }
        }
    }

    #[test]
    fn a_run_without_any_verdict_is_drawn_too() {
        let mut report = a_report();
        report.distribution.clear();
        report.verdicts.clear();
        report.over_time.iter_mut().for_each(|moment| moment.latency.clear());
        roxmltree::Document::parse(&report.svg()).expect("well-formed");
        report.over_time.iter_mut().for_each(|moment| moment.fates.clear());
        roxmltree::Document::parse(&report.svg()).expect("well-formed");
    }
}
