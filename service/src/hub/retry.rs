//! How long to wait before the same request is made again, and when to stop.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

use super::{HubError, Watch};

const TRIES: usize = 5;
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// The Hub counts requests in windows of five minutes.
const RATE_LIMIT_WAIT_MAX: Duration = Duration::from_secs(300);

pub(super) struct Retry {
    waits: ExponentialBackoff,
}

impl Retry {
    pub(super) fn new() -> Self {
        Self { waits: waits() }
    }

    /// The server does give something: its earlier failures are forgiven.
    pub(super) fn forgive(&mut self) {
        self.waits = waits();
    }

    /// Waits, or returns the error if it will not pass or came too often.
    pub(super) async fn after(&mut self, error: HubError, watch: &dyn Watch) -> Result<(), HubError> {
        let wait = if error.may_pass() { self.waits.next() } else { None };
        let asked = match &error {
            HubError::RateLimited { seconds, .. } => seconds.map(Duration::from_secs),
            _ => None,
        };
        let wait = match (wait, asked) {
            (Some(wait), Some(asked)) if asked <= RATE_LIMIT_WAIT_MAX => wait.max(asked),
            (Some(wait), None) => wait,
            _ => return Err(error),
        };
        watch.note(&format!("{}; trying again in {:.1} s", error.brief(), wait.as_secs_f32()));
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

fn waits() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_WAIT)
        .with_max_delay(LONGEST_WAIT)
        .with_factor(2.0)
        .with_max_times(TRIES - 1)
        .with_jitter()
        .build()
}
