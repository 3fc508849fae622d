//! From values to places in a picture, and the values that are worth a tick.

/// A span of values along a span of places.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axis {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
    logarithmic: bool,
}

impl Axis {
    /// `from` is below `to`.
    pub(super) fn linear((from, to): (f64, f64), (start, end): (f64, f64)) -> Self {
        Self { from, to, start, end, logarithmic: false }
    }

    /// Widened to ticks on both sides; both values are above 0.
    pub(super) fn logarithmic((from, to): (f64, f64), (start, end): (f64, f64)) -> Self {
        let from = round_below(from);
        let to = round_above(to);
        let to = if to > from { to } else { from * 10.0 };
        Self { from, to, start, end, logarithmic: true }
    }

    /// Where a value lies; beyond the ends at the end.
    pub(super) fn place(&self, value: f64) -> f64 {
        let scale = |value: f64| if self.logarithmic { value.max(self.from).log10() } else { value };
        let share = (scale(value) - scale(self.from)) / (scale(self.to) - scale(self.from));
        self.start + share.clamp(0.0, 1.0) * (self.end - self.start)
    }

    /// Round values, ascending: some `count`, on a logarithmic axis 1, 2, 5 or powers of ten.
    pub(super) fn ticks(&self, count: usize) -> Vec<f64> {
        if !self.logarithmic {
            let step = round_above((self.to - self.from) / count.max(1) as f64);
            let first = (self.from / step).ceil() as i64;
            let last = (self.to / step + 1e-9).floor() as i64;
            return (first..=last).map(|n| n as f64 * step).collect();
        }
        let decades = (self.to / self.from).log10();
        let leads: &[f64] = if decades * 3.0 <= count as f64 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let first = self.from.log10().floor() as i32;
        let last = self.to.log10().ceil() as i32;
        let all = (first..=last).flat_map(|power| leads.iter().map(move |lead| lead * 10_f64.powi(power)));
        all.filter(|tick| (self.from * 0.999..=self.to * 1.001).contains(tick)).collect()
    }
}

/// The lead digits of round values.
const LEADS: [f64; 4] = [1.0, 2.0, 5.0, 10.0];

/// The highest of 1, 2 or 5 times a power of ten that isn't above; `value` is above 0.
fn round_below(value: f64) -> f64 {
    let power = 10_f64.powi(value.log10().floor() as i32);
    let fitting = LEADS.iter().rev().find(|lead| **lead <= value / power * 1.0001);
    fitting.copied().unwrap_or(1.0) * power
}

/// The lowest of those that isn't below.
fn round_above(value: f64) -> f64 {
    let power = 10_f64.powi(value.log10().floor() as i32);
    let fitting = LEADS.iter().find(|lead| **lead >= value / power * 0.9999);
    fitting.copied().unwrap_or(10.0) * power
}

/// A tick's label: no more digits than it needs.
pub(super) fn label(value: f64) -> String {
    let text = if value.abs() >= 10.0 { format!("{value:.0}") } else { format!("{value:.3}") };
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A duration in milliseconds, in the unit that people would say it in.
pub(super) fn time_label(ms: f64) -> String {
    if ms >= 1000.0 { format!("{} s", label(ms / 1000.0)) } else { format!("{} ms", label(ms)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_axis_has_round_ticks_at_their_places() {
        let axis = Axis::linear((0.0, 30.0), (100.0, 400.0));
        assert_eq!(axis.ticks(6), [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0]);
        assert_eq!((axis.place(0.0), axis.place(15.0), axis.place(99.0)), (100.0, 250.0, 400.0));
    }

    #[test]
    fn a_logarithmic_axis_is_widened_to_ticks() {
        // Down a page: the larger, the higher.
        let axis = Axis::logarithmic((13.0, 870.0), (300.0, 0.0));
        let ticks: Vec<String> = axis.ticks(9).into_iter().map(time_label).collect();
        assert_eq!(ticks, ["10 ms", "20 ms", "50 ms", "100 ms", "200 ms", "500 ms", "1 s"]);
        assert_eq!((axis.place(10.0), axis.place(1000.0)), (300.0, 0.0));
        assert!((axis.place(100.0) - 150.0).abs() < 1e-9);
        assert_eq!(axis.place(0.0), 300.0);
    }

    #[test]
    fn one_value_alone_still_makes_an_axis() {
        let axis = Axis::logarithmic((20.0, 20.0), (0.0, 10.0));
        assert!(axis.ticks(5).len() >= 2 && axis.place(20.0).is_finite());
    }
}
