//! The signals that mean "stop": SIGTERM, SIGINT, and SIGHUP where nobody asked for it to be ignored.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// While this lives they end nothing by themselves.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// The terminal is gone.
    hangup: Option<Signal>,
}

impl Signals {
    pub(super) fn listen() -> std::io::Result<Self> {
        // `nohup` means: go on. A handler of ours would undo it.
        let hangup = if hangup_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup,
        })
    }

    pub(super) async fn told(&mut self) {
        let hung_up = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = hung_up => {}
        }
    }
}

fn hangup_ignored() -> bool {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a null new action changes nothing; on success the old one is written whole.
    let known = unsafe { libc::sigaction(libc::SIGHUP, std::ptr::null(), now.as_mut_ptr()) } == 0;
    // SAFETY: read only where the call above filled it in.
    known && unsafe { now.assume_init() }.sa_sigaction == libc::SIG_IGN
}
