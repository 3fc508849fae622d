//! The three charts, each into its frame.

use super::axis::{Axis, label, time_label};
use super::canvas::{Anchor, Canvas};
use crate::report::{Bar, Percentiles, Report};
use crate::tally::Fate;

/// Where a chart's area lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
}

type Read = fn(&Percentiles) -> f64;

/// A percentile's name, which is its line's class as well, and where it stands; in milliseconds.
const PERCENTILES: [(&str, Read); 3] =
    [("p50", |all| all.p50_ms), ("p95", |all| all.p95_ms), ("p99", |all| all.p99_ms)];

/// Above the highest bar, so that it doesn't touch the frame.
const HEADROOM: f64 = 1.05;

/// The same where labels stand above the bars.
const LABEL_ROOM: f64 = 1.35;

impl Frame {
    fn heading(&self, canvas: &mut Canvas, text: &str, unit: &str) {
        canvas.text("head", (self.left, self.top - 26.0), Anchor::Start, text);
        canvas.text("soft", (self.left, self.top - 9.0), Anchor::Start, unit);
    }

    fn time(&self, canvas: &mut Canvas, seconds: f64) -> Axis {
        let axis = Axis::linear((0.0, seconds), (self.left, self.right));
        for tick in axis.ticks(12) {
            let at = axis.place(tick);
            canvas.line("axis", (at, self.bottom), (at, self.bottom + 4.0));
            canvas.text("soft", (at, self.bottom + 18.0), Anchor::Middle, &label(tick));
        }
        canvas.text("soft", (self.right, self.bottom + 36.0), Anchor::End, "seconds since the start");
        self.floor(canvas);
        axis
    }

    fn rows(&self, canvas: &mut Canvas, axis: &Axis, ticks: usize, label: fn(f64) -> String) {
        for tick in axis.ticks(ticks) {
            let at = axis.place(tick);
            canvas.line("grid", (self.left, at), (self.right, at));
            canvas.text("soft", (self.left - 8.0, at + 4.0), Anchor::End, &label(tick));
        }
    }

    fn floor(&self, canvas: &mut Canvas) {
        canvas.line("axis", (self.left, self.bottom), (self.right, self.bottom));
    }

    fn empty(&self, canvas: &mut Canvas, text: &str) {
        let middle = ((self.left + self.right) / 2.0, (self.top + self.bottom) / 2.0);
        canvas.text("soft", middle, Anchor::Middle, text);
    }

    /// Entries from the right end of the heading's line leftwards.
    fn key(&self, canvas: &mut Canvas, entries: &[(&str, Key<'_>)]) {
        let mut right = self.right;
        for (text, key) in entries.iter().rev() {
            canvas.text("soft", (right, self.top - 26.0), Anchor::End, text);
            // About what a letter takes; fonts differ.
            right -= text.chars().count() as f64 * 6.6 + 8.0;
            let middle = self.top - 30.0;
            match key {
                Key::Line(class) => canvas.line(class, (right - 26.0, middle), (right, middle)),
                Key::Box(class) => canvas.rect(class, (right - 12.0, middle - 6.0), (12.0, 12.0), ""),
            }
            right -= match key {
                Key::Line(_) => 44.0,
                Key::Box(_) => 30.0,
            };
        }
    }
}

enum Key<'a> {
    Line(&'a str),
    Box(&'a str),
}

/// Percentiles of verdicts by the time at which their uploads were due; a line each.
pub(super) fn latency(canvas: &mut Canvas, frame: Frame, report: &Report) {
    frame.heading(
        canvas,
        "Latency of verdicts over time",
        "milliseconds from when an upload was due, or was sent where callers wait for each other; logarithmic",
    );
    let time = frame.time(canvas, report.seconds);
    let colours = report.colours();
    let mut key: Vec<(&str, Key<'_>)> =
        colours.iter().map(|(stream, class)| (*stream, Key::Box(class))).collect();
    key.extend([("p50", Key::Line("key")), ("p95", Key::Line("key p95")), ("p99", Key::Line("key p99"))]);
    frame.key(canvas, &key);

    let all = report.over_time.iter().flat_map(|moment| moment.latency.values());
    let (low, high) = all.fold((f64::MAX, 0.0_f64), |(low, high), percentiles| {
        (low.min(percentiles.p50_ms), high.max(percentiles.p99_ms))
    });
    if high <= 0.0 {
        return frame.empty(canvas, "no verdict");
    }
    let axis = Axis::logarithmic((low.max(0.001), high.max(0.001)), (frame.bottom, frame.top));
    frame.rows(canvas, &axis, 9, time_label);
    for (stream, class) in &colours {
        for (name, percentile) in &PERCENTILES {
            let moments = report.over_time.iter().filter_map(|moment| {
                let percentiles = moment.latency.get(stream)?;
                let middle = (moment.from_s + moment.to_s) / 2.0;
                Some((time.place(middle), axis.place(percentile(percentiles))))
            });
            let points: Vec<(f64, f64)> = moments.collect();
            canvas.path(&format!("{class} {name}"), &points);
            // A line of one point isn't seen.
            if let [point] = points.as_slice() {
                canvas.dot(class, *point);
            }
        }
    }
}

/// What became of the uploads that were due in each stretch, stacked; as a rate.
pub(super) fn fates(canvas: &mut Canvas, frame: Frame, report: &Report) {
    frame.heading(
        canvas,
        "What became of the uploads",
        "uploads a second, by the time at which they were due",
    );
    let present = |fate: &Fate| report.over_time.iter().any(|moment| moment.fates.contains_key(fate.name()));
    let fates: Vec<Fate> = Fate::ALL.into_iter().filter(present).collect();
    let key: Vec<(&str, Key<'_>)> = fates.iter().map(|fate| (fate.name(), Key::Box(class(*fate)))).collect();
    frame.key(canvas, &key);
    let time = frame.time(canvas, report.seconds);
    let rate = |moment: &crate::report::Moment, count: u64| count as f64 / (moment.to_s - moment.from_s);
    let totals = report.over_time.iter().map(|moment| rate(moment, moment.fates.values().sum()));
    let highest = totals.fold(0.0, f64::max);
    if highest <= 0.0 {
        return frame.empty(canvas, "nothing was due");
    }
    let axis = Axis::linear((0.0, highest * HEADROOM), (frame.bottom, frame.top));
    frame.rows(canvas, &axis, 5, label);
    for moment in &report.over_time {
        let (left, right) = (time.place(moment.from_s), time.place(moment.to_s));
        let mut below = 0.0;
        for fate in &fates {
            let Some(count) = moment.fates.get(fate.name()).copied() else { continue };
            let above = below + rate(moment, count);
            let (top, bottom) = (axis.place(above), axis.place(below));
            let note = format!("{count} {} of those due from {:.0} s on", fate.name(), moment.from_s);
            canvas.rect(class(*fate), (left + 0.5, top), (right - left - 1.0, bottom - top), &note);
            below = above;
        }
    }
    frame.floor(canvas);
}

fn class(fate: Fate) -> &'static str {
    match fate {
        Fate::Judged => "judged",
        Fate::Recalled => "recalled",
        Fate::Refused => "refused",
        Fate::Failed => "failed",
        Fate::NotSent => "unsent",
    }
}

/// Each stream's latencies, as shares of its own verdicts, with its percentiles marked.
pub(super) fn distribution(canvas: &mut Canvas, frame: Frame, report: &Report) {
    frame.heading(canvas, "How latencies are distributed", "share of a stream's verdicts, in percent");
    let colours = report.colours();
    let key: Vec<(&str, Key<'_>)> =
        colours.iter().map(|(stream, class)| (*stream, Key::Box(class))).collect();
    frame.key(canvas, &key);
    frame.floor(canvas);
    let bars = || report.distribution.values().flatten();
    let low = bars().map(|bar| bar.from_ms).fold(f64::MAX, f64::min);
    let high = bars().map(|bar| bar.to_ms).fold(0.0, f64::max);
    if high <= 0.0 {
        return frame.empty(canvas, "no verdict");
    }
    let across = Axis::logarithmic((low, high), (frame.left, frame.right));
    for tick in across.ticks(12) {
        let at = across.place(tick);
        canvas.line("grid", (at, frame.top), (at, frame.bottom));
        canvas.text("soft", (at, frame.bottom + 18.0), Anchor::Middle, &time_label(tick));
    }
    canvas.text(
        "soft",
        (frame.right, frame.bottom + 36.0),
        Anchor::End,
        "latency, milliseconds or seconds; logarithmic",
    );

    let share = |bars: &[Bar], bar: &Bar| {
        bar.count as f64 * 100.0 / bars.iter().map(|bar| bar.count).sum::<u64>().max(1) as f64
    };
    let shares = report.distribution.values().flat_map(|bars| bars.iter().map(|bar| share(bars, bar)));
    let axis = Axis::linear((0.0, shares.fold(1.0, f64::max) * LABEL_ROOM), (frame.bottom, frame.top));
    frame.rows(canvas, &axis, 4, label);
    for (row, (stream, class)) in colours.iter().enumerate() {
        let Some(bars) = report.distribution.get(stream) else { continue };
        for bar in bars.iter().filter(|bar| bar.count > 0) {
            let (left, right) = (across.place(bar.from_ms), across.place(bar.to_ms));
            let top = axis.place(share(bars, bar));
            let note =
                format!("{stream}: {} verdicts in {:.0} to {:.0} ms", bar.count, bar.from_ms, bar.to_ms);
            canvas.rect(&format!("bar {class}"), (left, top), (right - left, frame.bottom - top), &note);
        }
        // A row of marks a stream, above the bars, so that labels of two don't meet.
        let at = frame.top + 8.0 + row as f64 * 15.0;
        let mut free_from = 0.0;
        let Some(percentiles) = report.verdicts.get(stream) else { continue };
        for (name, percentile) in &PERCENTILES {
            let ms = percentile(percentiles);
            let place = across.place(ms);
            canvas.line(&format!("mark {class} {name}"), (place, at - 4.0), (place, frame.bottom));
            // Two percentiles that are nearly one get one label.
            if place >= free_from {
                let text = format!("{name} {}", time_label(ms.round()));
                canvas.text(class, (place + 4.0, at + 5.0), Anchor::Start, &text);
                free_from = place + text.len() as f64 * 7.0;
            }
        }
    }
}
