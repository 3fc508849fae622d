//! When this process last lost a connection: those that were last used before are asked whether they live.
//!
//! One that was used a moment ago is trusted, for a round trip more for each request is dear. But where one
//! was lost, the server may be gone, and with it all others that were open then.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

static LAST: Mutex<Option<Instant>> = Mutex::new(None);

/// For so long after its last use a connection is taken to be alive.
const TRUSTED_FOR: Duration = Duration::from_millis(500);

pub(super) fn note() {
    *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
}

/// Whether a connection that has been idle for so long must be asked.
pub(super) fn is_doubtful(idle_for: Duration) -> bool {
    let last = *LAST.lock().unwrap_or_else(PoisonError::into_inner);
    idle_for > TRUSTED_FOR || last.is_some_and(|loss| loss.elapsed() <= idle_for)
}
