//! Work that nobody in particular waits for: on a thread of its own that gives way to all others.

use tokio::sync::oneshot;

/// The weakest claim on a core there is.
const NICENESS: libc::c_int = 19;

/// Runs `work` at the lowest priority; none where it panicked or no thread could be had. A priority can be
/// given up but not taken back, so the thread ends with the work.
pub async fn run<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (tell, told) = oneshot::channel();
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        give_way();
        // Whoever waited may have left.
        drop(tell.send(work()));
    });
    if let Err(error) = thread {
        tracing::warn!(%error, "no thread for work in the background");
        return None;
    }
    told.await.ok()
}

/// On Linux a priority is the thread's own: 0 names the calling one.
fn give_way() {
    // SAFETY: plain numbers, no memory; a failure leaves the priority as it was.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_answers_at_the_lowest_priority_and_a_panic_is_no_answer() {
        // SAFETY: plain numbers, no memory.
        let niceness = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let before = niceness();
        assert_eq!(run("test", niceness).await, Some(NICENESS));
        assert_eq!(niceness(), before, "the thread's own, not the process's");
        let panics = || -> u8 { std::panic::resume_unwind(Box::new("on purpose")) };
        assert_eq!(run("test", panics).await, None);
    }
}
