//! When uploads are due, known before the first is sent: what the answers do never changes it.

use std::time::Duration;

/// How the rate goes over time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Shape {
    /// Uploads a second.
    Steady { rate: f64 },
    /// `rate` for `quiet`, then `times` as much for `burst`, again and again.
    Burst { rate: f64, times: f64, quiet: Duration, burst: Duration },
}

impl Shape {
    /// When the `n`-th upload is due, counted from 0 in fractions: the moment by which the rate has summed
    /// up to `n`. In closed form, so that nothing adds up over a long run.
    fn due(self, n: f64) -> f64 {
        match self {
            Self::Steady { rate } => n / rate,
            Self::Burst { rate, times, quiet, burst } => {
                let (quiet, burst) = (quiet.as_secs_f64(), burst.as_secs_f64());
                let in_quiet = rate * quiet;
                let in_cycle = in_quiet + rate * times * burst;
                let cycles = (n / in_cycle).floor();
                let rest = n - cycles * in_cycle;
                let within =
                    if rest < in_quiet { rest / rate } else { quiet + (rest - in_quiet) / (rate * times) };
                cycles * (quiet + burst) + within
            }
        }
    }
}

/// The moments at which uploads are due, from the start of the run, ascending.
#[derive(Debug)]
pub(crate) struct Arrivals {
    shape: Shape,
    length: Duration,
    next: f64,
    /// Gaps drawn from the exponential distribution; None: even ones.
    random: Option<fastrand::Rng>,
}

impl Arrivals {
    /// Even gaps, as a metronome.
    pub(crate) fn even(shape: Shape, length: Duration) -> Self {
        Self { shape, length, next: 0.0, random: None }
    }

    /// Independent of each other (a Poisson process), as clients that know nothing of each other.
    pub(crate) fn random(shape: Shape, length: Duration, seed: u64) -> Self {
        let mut arrivals = Self { shape, length, next: 0.0, random: Some(fastrand::Rng::with_seed(seed)) };
        arrivals.next = arrivals.gap();
        arrivals
    }

    /// In units of the mean gap: the shape turns them into time, whatever the rate is by then.
    fn gap(&mut self) -> f64 {
        // 1 - [0, 1) is never 0, whose logarithm is none.
        self.random.as_mut().map_or(1.0, |random| -(1.0 - random.f64()).ln())
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let due = Duration::try_from_secs_f64(self.shape.due(self.next)).ok()?;
        self.next += self.gap();
        (due < self.length).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_steady_rate_is_even_and_ends_in_time() {
        let due: Vec<Duration> = Arrivals::even(Shape::Steady { rate: 4.0 }, s(1.0)).collect();
        assert_eq!(due, [s(0.0), s(0.25), s(0.5), s(0.75)]);
        // A rate whose gap has no finite binary form: the last of many is still where it belongs.
        let last = Arrivals::even(Shape::Steady { rate: 30.0 }, s(600.0)).last().expect("some");
        assert!(last.abs_diff(s(600.0 - 1.0 / 30.0)) < Duration::from_micros(1), "{last:?}");
    }

    #[test]
    fn bursts_are_as_often_as_said() {
        let shape = Shape::Burst { rate: 2.0, times: 5.0, quiet: s(3.0), burst: s(1.0) };
        let due: Vec<Duration> = Arrivals::even(shape, s(8.0)).collect();
        let within =
            |from: f64, to: f64| due.iter().copied().filter(|due| (s(from)..s(to)).contains(due)).count();
        assert_eq!((within(0.0, 3.0), within(3.0, 4.0)), (6, 10));
        assert_eq!((within(4.0, 7.0), within(7.0, 8.0)), (6, 10));
        assert!(due.is_sorted());
    }

    #[test]
    fn random_arrivals_keep_the_rate_and_the_seed() {
        let shape = Shape::Burst { rate: 50.0, times: 4.0, quiet: s(2.0), burst: s(1.0) };
        let run = |seed| Arrivals::random(shape, s(300.0), seed).collect::<Vec<_>>();
        let due = run(7);
        // 100 cycles of 300: the standard deviation of their number is its root, 173.
        assert!((29_000..31_000).contains(&due.len()), "{}", due.len());
        assert!(due.is_sorted() && due == run(7) && due != run(8));
        let mean = 300.0 / due.len() as f64;
        let short = due.array_windows().filter(|[a, b]| (*b - *a).as_secs_f64() < mean / 10.0).count();
        assert!(short > due.len() / 20, "gaps are not even: {short}");
    }
}
