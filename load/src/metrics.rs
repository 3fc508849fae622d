//! What the gate's `/metrics` say about its judges, as far as the benchmarks need it.

/// A judge's counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct JudgeNow {
    pub(crate) batches: f64,
    pub(crate) pictures: f64,
    /// How long one picture takes it, smoothed; in seconds.
    pub(crate) a_picture: f64,
}

impl JudgeNow {
    /// None: the text has nothing about this judge.
    pub(crate) fn read(text: &str, judge: &str) -> Option<Self> {
        Some(Self {
            batches: value(text, "shieldgate_judge_batches_total", judge)?,
            pictures: value(text, "shieldgate_judge_pictures_total", judge)?,
            a_picture: value(text, "shieldgate_judge_run_seconds", judge)?,
        })
    }

    /// Pictures a batch since `before`; None where no batch ran.
    pub(crate) fn pictures_a_batch(&self, before: &Self) -> Option<f64> {
        let batches = self.batches - before.batches;
        (batches > 0.0).then(|| (self.pictures - before.pictures) / batches)
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
        assert_eq!(now, JudgeNow { batches: 4.0, pictures: 10.0, a_picture: 0.025 });
        let before = JudgeNow { batches: 2.0, pictures: 3.0, a_picture: 0.0 };
        assert_eq!(now.pictures_a_batch(&before), Some(3.5));
        assert_eq!(now.pictures_a_batch(&now), None);
        assert_eq!(JudgeNow::read(text, "other"), None);
    }
}
