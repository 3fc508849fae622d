//! What the gate's `/metrics` say about its judges, as far as the benchmarks need it.

/// A judge's counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct JudgeNow {
    batches: f64,
    pictures: f64,
    a_picture: Taken,
}

/// How long one picture takes a judge, smoothed; in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Taken {
    /// As it is now.
    Gauge(f64),
    /// A gate that gives it as a histogram puts the value of the moment into it each time it is asked.
    Asked { sum: f64, times: f64 },
}

impl JudgeNow {
    /// None: the text has nothing about this judge.
    pub(crate) fn read(text: &str, judge: &str) -> Option<Self> {
        let of = |name| value(text, name, judge);
        let a_picture = match of("shieldgate_judge_run_seconds") {
            Some(now) => Taken::Gauge(now),
            None => Taken::Asked {
                sum: of("shieldgate_judge_run_seconds_sum")?,
                times: of("shieldgate_judge_run_seconds_count")?,
            },
        };
        Some(Self {
            batches: of("shieldgate_judge_batches_total")?,
            pictures: of("shieldgate_judge_pictures_total")?,
            a_picture,
        })
    }

    /// Pictures a batch since `before`; None where no batch ran.
    pub(crate) fn pictures_a_batch(&self, before: &Self) -> Option<f64> {
        let batches = self.batches - before.batches;
        (batches > 0.0).then(|| (self.pictures - before.pictures) / batches)
    }

    /// How long one picture takes by now, in seconds; `before` is what was read the time before. None where
    /// nothing was ever judged.
    pub(crate) fn a_picture(&self, before: &Self) -> Option<f64> {
        let seconds = match (self.a_picture, before.a_picture) {
            (Taken::Gauge(now), _) => now,
            (Taken::Asked { sum, times }, Taken::Asked { sum: sum_before, times: times_before }) => {
                (sum - sum_before) / (times - times_before)
            }
            (Taken::Asked { sum, times }, Taken::Gauge(_)) => sum / times,
        };
        (seconds > 0.0 && seconds.is_finite()).then_some(seconds)
    }
}

/// Of `name{…,judge="judge",…} value`.
fn value(text: &str, name: &str, judge: &str) -> Option<f64> {
    let wanted = format!("judge=\"{judge}\"");
    text.lines().find_map(|line| {
        let (labels, value) = line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once('}')?;
        // No label's value of ours holds a comma.
        labels.split(',').any(|label| label == wanted).then(|| value.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_judge_s_counters_are_found_among_others() {
        let text = "# HELP shieldgate_judge_batches_total Batches\n\
            shieldgate_judge_batches_total{judge=\"other\",otel_scope_name=\"s\"} 9\n\
            shieldgate_judge_batches_total{judge=\"nsfw\",otel_scope_name=\"s\"} 4\n\
            shieldgate_judge_pictures_total{judge=\"nsfw\"} 10\n\
            shieldgate_judge_run_seconds{judge=\"nsfw\"} 0.025\n";
        let now = JudgeNow::read(text, "nsfw").expect("it is there");
        assert_eq!(now.pictures_a_batch(&JudgeNow { batches: 2.0, pictures: 3.0, ..now }), Some(3.5));
        assert_eq!(now.pictures_a_batch(&now), None);
        assert_eq!(now.a_picture(&now), Some(0.025));
        assert_eq!(JudgeNow::read(text, "other"), None);
    }
    #[test]
    fn a_histogram_of_moments_gives_the_latest() {
        let text = |sum: f64, times: u32| {
            format!(
                "shieldgate_judge_batches_total{{judge=\"n\"}} 1\nshieldgate_judge_pictures_total{{judge=\"n\"}} 1\n\
                 shieldgate_judge_run_seconds_bucket{{judge=\"n\",le=\"1\"}} 1\n\
                 shieldgate_judge_run_seconds_sum{{judge=\"n\"}} {sum}\n\
                 shieldgate_judge_run_seconds_count{{judge=\"n\"}} {times}\n"
            )
        };
        let (before, now) = (JudgeNow::read(&text(0.5, 3), "n"), JudgeNow::read(&text(0.75, 4), "n"));
        let (before, now) = (before.expect("read"), now.expect("read"));
        assert_eq!((now.a_picture(&before), now.a_picture(&now)), (Some(0.25), None));
    }
}
