//! What became of every upload of a run, counted as it comes; its size doesn't grow with the number of uploads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

use crate::upload::{Answer, Outcome};

/// A group of uploads that is reported for itself: a lane, or a kind of client.
pub(crate) type Stream = &'static str;

/// Slices of a run, at most.
const SLICES_MAX: u32 = 60;
const SLICE_MIN: Duration = Duration::from_secs(1);

/// What became of an upload, as coarse as a picture can show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    Judged,
    Recalled,
    /// An answer that says no: too much at once, too slow, not an image.
    Refused,
    /// A 500 or another fault of the gate's, or no answer.
    Failed,
    /// The generator had too many open.
    NotSent,
}

impl Fate {
    pub(crate) const ALL: [Self; 5] =
        [Self::Judged, Self::Recalled, Self::Refused, Self::Failed, Self::NotSent];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Judged => "judged",
            Self::Recalled => "recalled",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::NotSent => "not sent",
        }
    }

    pub(crate) fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Judged => Self::Judged,
            Outcome::Recalled => Self::Recalled,
            // 503 is how the gate says that it has no verdict and why; any other 5xx is a fault.
            Outcome::Refused(503 | 400..=499, _) => Self::Refused,
            Outcome::Refused(..) | Outcome::Lost(_) => Self::Failed,
        }
    }
}

/// Latencies in microseconds, three digits exact.
pub(crate) type Latencies = Histogram<u64>;

#[expect(clippy::expect_used, reason = "the number of digits is a constant within 0 to 5")]
pub(crate) fn latencies() -> Latencies {
    Histogram::new(3).expect("three digits")
}

/// Adds a value; the histogram grows with its magnitude, up to the bound.
pub(crate) fn put(histogram: &mut Histogram<u64>, value: u64) {
    // It resizes itself, which fails only where the address space ends. (`saturating_record` doesn't.)
    let _ = histogram.record(value.min(VALUE_MAX));
}

/// All of them as one.
pub(crate) fn together<'a>(parts: impl IntoIterator<Item = &'a Latencies>) -> Latencies {
    let mut all = latencies();
    for part in parts {
        // It resizes itself, so it has room for whatever the other has.
        let _ = all.add(part);
    }
    all
}

/// An hour in microseconds, above every patience here.
const VALUE_MAX: u64 = 3_600_000_000;

/// Uploads of one stream that ended alike.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) latency: Latencies,
    /// Of those, the ones whose answer came before the run's length was over.
    pub(crate) in_time: u64,
}

/// Uploads that were due in the same stretch of the run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slice {
    /// Of verdicts.
    pub(crate) latency: BTreeMap<Stream, Latencies>,
    pub(crate) fates: BTreeMap<Fate, u64>,
}

#[derive(Debug, Clone)]
pub(crate) struct Tally {
    pub(crate) length: Duration,
    pub(crate) slice_length: Duration,
    pub(crate) rows: BTreeMap<(Stream, Outcome), Row>,
    pub(crate) slices: Vec<Slice>,
    pub(crate) not_sent: BTreeMap<Stream, u64>,
    /// How much later than due uploads were sent, in microseconds: the generator's own slowness.
    pub(crate) lag: Latencies,
    /// `Retry-After` in seconds, by status.
    pub(crate) retry_after: BTreeMap<u16, Histogram<u64>>,
    /// Breaches of the wire contract, and how often.
    pub(crate) faults: BTreeMap<&'static str, u64>,
}

impl Tally {
    fn new(length: Duration) -> Self {
        let slice_length = (length / SLICES_MAX).max(SLICE_MIN);
        let slices = length.as_nanos().div_ceil(slice_length.as_nanos()).max(1);
        Self {
            length,
            slice_length,
            rows: BTreeMap::new(),
            slices: vec![Slice::default(); usize::try_from(slices).unwrap_or(1)],
            not_sent: BTreeMap::new(),
            lag: latencies(),
            retry_after: BTreeMap::new(),
            faults: BTreeMap::new(),
        }
    }

    fn slice(&mut self, due: Duration) -> &mut Slice {
        let at = (due.as_nanos() / self.slice_length.as_nanos()) as usize;
        let last = self.slices.len() - 1;
        &mut self.slices[at.min(last)]
    }

    fn add(&mut self, stream: Stream, due: Duration, latency: Duration, answered: Duration, answer: Answer) {
        let micros = micros(latency);
        let in_time = u64::from(answered <= self.length);
        let slice = self.slice(due);
        *slice.fates.entry(Fate::of(&answer.outcome)).or_default() += 1;
        if answer.outcome.is_verdict() {
            put(slice.latency.entry(stream).or_insert_with(latencies), micros);
        }
        if let (Outcome::Refused(status, _), Some(seconds)) = (&answer.outcome, answer.retry_after) {
            put(self.retry_after.entry(*status).or_insert_with(latencies), seconds);
        }
        for fault in answer.faults {
            *self.faults.entry(fault).or_default() += 1;
        }
        let row = self.rows.entry((stream, answer.outcome));
        let row = row.or_insert_with(|| Row { latency: latencies(), in_time: 0 });
        put(&mut row.latency, micros);
        row.in_time += in_time;
    }

    /// Latencies of one stream's verdicts, judged and recalled alike.
    pub(crate) fn verdicts(&self, stream: Stream) -> Latencies {
        let rows = self.rows.iter().filter(|((of, outcome), _)| *of == stream && outcome.is_verdict());
        together(rows.map(|(_, row)| &row.latency))
    }

    /// A stream's verdicts a second, of those answered before the run's length was over.
    pub(crate) fn verdict_rate(&self, stream: Stream) -> f64 {
        let rows = self.rows.iter().filter(|((of, outcome), _)| *of == stream && outcome.is_verdict());
        rows.map(|(_, row)| row.in_time).sum::<u64>() as f64 / self.length.as_secs_f64()
    }

    /// How many uploads came to another end than those expected, never to be sent included; by that end.
    pub(crate) fn other_ends(&self, expected: impl Fn(&Outcome) -> bool) -> BTreeMap<String, u64> {
        let mut ends = BTreeMap::new();
        for ((_, outcome), row) in self.rows.iter().filter(|((_, outcome), _)| !expected(outcome)) {
            *ends.entry(outcome.to_string()).or_default() += row.latency.len();
        }
        let not_sent: u64 = self.not_sent.values().sum();
        if not_sent > 0 {
            ends.insert("not sent".to_owned(), not_sent);
        }
        ends
    }

    /// Every stream that anything is known of.
    pub(crate) fn streams(&self) -> Vec<Stream> {
        let mut streams: Vec<Stream> =
            self.rows.keys().map(|(stream, _)| *stream).chain(self.not_sent.keys().copied()).collect();
        streams.sort_unstable();
        streams.dedup();
        streams
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A run under way: the clock that all its uploads go by, and the count.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    began: Instant,
    tally: Arc<Mutex<Tally>>,
}

impl Run {
    /// Begins now.
    pub(crate) fn begin(length: Duration) -> Self {
        Self { began: Instant::now(), tally: Arc::new(Mutex::new(Tally::new(length))) }
    }

    pub(crate) fn at(&self, offset: Duration) -> Instant {
        self.began + offset
    }

    /// The counterpart of [`Self::at`].
    pub(crate) fn offset(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.began)
    }

    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn with<T>(&self, change: impl FnOnce(&mut Tally) -> T) -> T {
        change(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// An upload is sent now that was due at `due`.
    pub(crate) fn sending(&self, due: Duration) {
        let lag = micros(self.now().saturating_sub(due));
        self.with(|tally| put(&mut tally.lag, lag));
    }

    /// An upload that was due at `due` has its answer now; its latency counts from `since`.
    pub(crate) fn answered(&self, stream: Stream, due: Duration, since: Duration, answer: Answer) {
        let now = self.now();
        self.with(|tally| tally.add(stream, due, now.saturating_sub(since), now, answer));
    }

    pub(crate) fn not_sent(&self, stream: Stream, due: Duration) {
        self.with(|tally| {
            *tally.not_sent.entry(stream).or_default() += 1;
            *tally.slice(due).fates.entry(Fate::NotSent).or_default() += 1;
        });
    }

    pub(crate) fn tally(&self) -> Tally {
        self.with(|tally| tally.clone())
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A minute with two lanes: latencies from 1 to 1000 ms, every tenth upload refused, one lost.
    pub(crate) fn a_run() -> Tally {
        let mut tally = Tally::new(Duration::from_secs(60));
        for n in 0..1_000_u64 {
            let due = Duration::from_millis(n * 60);
            let latency = Duration::from_millis(n + 1);
            let mut answer = Answer::lost("timed out");
            answer.outcome = match n % 10 {
                3 => Outcome::Refused(429, "overloaded".to_owned()),
                _ if n == 500 => answer.outcome,
                _ => Outcome::Judged,
            };
            answer.retry_after = matches!(answer.outcome, Outcome::Refused(..)).then_some(2);
            let stream = if n % 2 == 0 { "bulk" } else { "interactive" };
            tally.add(stream, due, latency, due + latency, answer);
        }
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_are_counted_by_stream_and_outcome_and_slice() {
        let tally = testing::a_run();
        assert_eq!(tally.slices.len(), 60);
        assert_eq!(tally.streams(), ["bulk", "interactive"]);
        let verdicts = tally.verdicts("bulk").len() + tally.verdicts("interactive").len();
        assert_eq!(verdicts, 899);
        let ends = tally.other_ends(Outcome::is_verdict);
        let ends: Vec<(&str, u64)> = ends.iter().map(|(end, count)| (end.as_str(), *count)).collect();
        assert_eq!(ends, [("429 overloaded", 100), ("no answer: timed out", 1)]);
        assert_eq!(tally.other_ends(|outcome| *outcome != Outcome::Judged).values().sum::<u64>(), 899);
        let fates = |fate| tally.slices.iter().filter_map(|slice| slice.fates.get(&fate)).sum::<u64>();
        assert_eq!((fates(Fate::Judged), fates(Fate::Refused), fates(Fate::Failed)), (899, 100, 1));
        assert_eq!(tally.retry_after[&429].len(), 100);
        // Due at 59.94 s and answered at 60.94 s: not within the minute.
        let rate = tally.verdict_rate("bulk") + tally.verdict_rate("interactive");
        assert!((14.5..14.98).contains(&rate), "{rate}");
    }

    #[test]
    fn percentiles_are_those_of_the_latencies() {
        let tally = testing::a_run();
        let latencies = tally.verdicts("interactive");
        for (quantile, expected) in [(0.5, 500_000.0), (0.95, 950_000.0), (0.99, 990_000.0)] {
            let found = latencies.value_at_quantile(quantile) as f64;
            assert!((found / expected - 1.0).abs() < 0.02, "{quantile}: {found}");
        }
        assert!(latencies.max().abs_diff(1_000_000) < 1_000);
    }

    #[test]
    fn a_short_run_has_one_slice_and_a_late_answer_does_not_fall_out() {
        let mut tally = Tally::new(Duration::from_millis(300));
        let (due, latency) = (Duration::from_millis(299), Duration::from_secs(9));
        tally.add("s", due, latency, due + latency, Answer::lost("timed out"));
        assert_eq!((tally.slices.len(), tally.other_ends(Outcome::is_verdict).len()), (1, 1));
    }
}
