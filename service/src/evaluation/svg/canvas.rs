//! SVG elements as text: escaped, in numbers with one decimal.

use std::fmt::Write as _;

#[derive(Debug, Default)]
pub(super) struct Canvas(String);

impl Canvas {
    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing into a String doesn't fail.
        let _ = writeln!(self.0, "{element}");
    }

    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.add(format_args!(
            r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#
        ));
    }

    /// Points joined by straight lines, with a note that a pointer over them shows.
    pub(super) fn path(&mut self, class: &str, points: &[(f64, f64)], note: &str) {
        let mut steps = String::new();
        for (at, (x, y)) in points.iter().enumerate() {
            let _ = write!(steps, "{}{x:.1} {y:.1}", if at == 0 { "M" } else { "L" });
        }
        if !steps.is_empty() {
            let note = escaped(note);
            self.add(format_args!(r#"<path class="{class}" d="{steps}"><title>{note}</title></path>"#));
        }
    }

    pub(super) fn dot(&mut self, class: &str, (x, y): (f64, f64), radius: f64, note: &str) {
        let note = escaped(note);
        self.add(format_args!(
            r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="{radius:.1}"><title>{note}</title></circle>"#
        ));
    }

    /// `anchor` says which of the text's ends is at the place: `start`, `middle`, `end`.
    pub(super) fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: &str, text: &str) {
        let text = escaped(text);
        self.add(format_args!(
            r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#
        ));
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\t' | '\n' | '\r' => safe.push(' '),
            // XML has no way to write these, escaped or not.
            control if control.is_control() => safe.push('\u{fffd}'),
            '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            other => safe.push(other),
        }
    }
    safe
}
