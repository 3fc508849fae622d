//! SVG elements as text: escaped, in numbers with one decimal.

use std::fmt::Write as _;

#[derive(Debug, Default)]
pub(super) struct Canvas {
    text: String,
}

/// Where a text begins, ends or has its middle.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Canvas {
    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing into a String doesn't fail.
        let _ = self.text.write_fmt(element);
        self.text.push('\n');
    }

    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        self.add(format_args!(
            r#"<line class="{}" x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}"/>"#,
            escaped(class),
            from.0,
            from.1,
            to.0,
            to.1
        ));
    }

    /// A rectangle with a note that a pointer over it shows.
    pub(super) fn rect(&mut self, class: &str, corner: (f64, f64), size: (f64, f64), note: &str) {
        let title = if note.is_empty() { String::new() } else { format!("<title>{}</title>", escaped(note)) };
        self.add(format_args!(
            r#"<rect class="{}" x="{:.1}" y="{:.1}" width="{:.1}" height="{:.1}">{title}</rect>"#,
            escaped(class),
            corner.0,
            corner.1,
            size.0.max(0.0),
            size.1.max(0.0)
        ));
    }

    /// Points joined by straight lines.
    pub(super) fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        let mut steps = String::new();
        for (at, (x, y)) in points.iter().enumerate() {
            let _ = write!(steps, "{}{x:.1} {y:.1}", if at == 0 { "M" } else { "L" });
        }
        if !steps.is_empty() {
            self.add(format_args!(r#"<path class="{}" d="{steps}"/>"#, escaped(class)));
        }
    }

    pub(super) fn dot(&mut self, class: &str, at: (f64, f64)) {
        self.add(format_args!(
            r#"<circle class="{}" cx="{:.1}" cy="{:.1}" r="2"/>"#,
            escaped(class),
            at.0,
            at.1
        ));
    }

    pub(super) fn text(&mut self, class: &str, at: (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.add(format_args!(
            r#"<text class="{}" x="{:.1}" y="{:.1}" text-anchor="{anchor}">{}</text>"#,
            escaped(class),
            at.0,
            at.1,
            escaped(text)
        ));
    }

    pub(super) fn into_text(self) -> String {
        self.text
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
            // XML has no way to write the others, escaped or not.
            '\t' | '\n' | '\r' => safe.push(' '),
            control if control.is_control() => safe.push('�'),
            other => safe.push(other),
        }
    }
    safe
}
