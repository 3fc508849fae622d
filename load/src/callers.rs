//! The closed loop: callers that send their next upload when they have the answer to the one before.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;

use crate::tally::{Run, Stream};
use crate::upload::{Bodies, Uploader};

/// A caller that was told to come back later doesn't wait longer than this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// A caller that got no answer at all waits, or it would spin against a gate that is gone.
const AFTER_LOSS: Duration = Duration::from_secs(1);

/// `count` callers until the run's length is over; then their last answers are waited for. Latency counts
/// from the moment of sending. Told `Retry-After`, a caller waits as long.
pub(crate) async fn run(
    count: usize,
    stream: Stream,
    uploader: &Uploader,
    bodies: impl Bodies,
    run: &Run,
    length: Duration,
) -> Result<()> {
    let bodies = Arc::new(Mutex::new(bodies));
    let mut callers = JoinSet::new();
    for _ in 0..count {
        let (bodies, uploader, run) = (Arc::clone(&bodies), uploader.clone(), run.clone());
        callers.spawn(async move {
            while run.now() < length {
                let body = bodies.lock().unwrap_or_else(PoisonError::into_inner).next();
                let due = run.now();
                let answer = uploader.send(body).await;
                let wait = match (&answer.outcome, answer.retry_after) {
                    (outcome, _) if outcome.is_verdict() => None,
                    (_, Some(seconds)) => Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX)),
                    (_, None) => Some(AFTER_LOSS),
                };
                run.answered(stream, due, due, answer);
                if let Some(wait) = wait {
                    tokio::time::sleep_until(run.at(length).min(run.at(run.now() + wait))).await;
                }
            }
        });
    }
    while let Some(done) = callers.join_next().await {
        done?;
    }
    Ok(())
}
