//! Ctrl-C and SIGTERM, heard from the first moment on.

use tokio::signal::unix::{SignalKind, signal};

/// Returns when the program is told to stop; never where signals can't be listened to.
pub(crate) async fn told_to_stop() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
