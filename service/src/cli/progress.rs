//! What takes long as people see it: a bar on a terminal, plain lines elsewhere; both on stderr.

use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output;
use crate::hub::Watch;

const BAR: &str = "{msg} {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
/// Plain lines: of files above this, one a tenth.
const LARGE_BYTES: u64 = 64 << 20;

pub(super) struct Progress {
    terminal: bool,
    now: Mutex<Option<Now>>,
}

/// The file under way.
struct Now {
    bar: ProgressBar,
    file: String,
    bytes: u64,
    there: u64,
    tenths_said: u64,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), now: Mutex::new(None) }
    }

    fn now(&self) -> std::sync::MutexGuard<'_, Option<Now>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch for Progress {
    fn note(&self, text: &str) {
        match &*self.now() {
            Some(now) => now.bar.suspend(|| output::note(text)),
            None => output::note(text),
        }
    }

    fn begin(&self, file: &str, bytes: u64, there: u64) {
        let mut now = self.now();
        if let Some(before) = now.take() {
            before.bar.finish_and_clear();
        }
        let bar = if self.terminal { ProgressBar::new(bytes) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template(BAR) {
            bar.set_style(style);
        }
        bar.set_message(file.to_owned());
        bar.set_position(there);
        // Speed and rest are of what comes now.
        bar.reset_eta();
        if !self.terminal {
            let from = if there > 0 { format!(" from byte {there} on") } else { String::new() };
            output::note(format_args!("downloading {file} ({}){from}", HumanBytes(bytes)));
        }
        let tenths_said = tenths(there, bytes);
        *now = Some(Now { bar, file: file.to_owned(), bytes, there, tenths_said });
    }

    fn advance(&self, bytes: u64) {
        let mut now = self.now();
        let Some(now) = now.as_mut() else { return };
        now.there += bytes;
        now.bar.inc(bytes);
        let reached = tenths(now.there, now.bytes);
        if !self.terminal && now.bytes >= LARGE_BYTES && reached > now.tenths_said {
            output::note(format_args!("{}: {} %", now.file, reached * 10));
            now.tenths_said = reached;
        }
    }

    fn end(&self, file: &str) {
        if let Some(now) = self.now().take() {
            now.bar.finish_and_clear();
        }
        if self.terminal {
            output::note(format_args!("{file} is there"));
        }
    }
}

const COUNT: &str = "{msg} {bar:30} {pos} of {len}, {per_sec}, {eta} left";
/// Plain lines: not for what is done before anybody looks.
const LONG: Duration = Duration::from_secs(10);

/// Things that are done one after the other, as rows of a file.
pub(super) struct Counting {
    bar: ProgressBar,
    what: &'static str,
    all: u64,
    /// Of plain lines, when it began and how much was said; none on a terminal.
    plain: Option<Mutex<(Instant, u64)>>,
}

impl Counting {
    pub(super) fn new(what: &'static str, all: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(Some(all), ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template(COUNT) {
            bar.set_style(style);
        }
        bar.set_message(what);
        if terminal {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        Self { bar, what, all, plain: (!terminal).then(|| Mutex::new((Instant::now(), 0))) }
    }

    pub(super) fn advance(&self) {
        self.bar.inc(1);
        let Some(plain) = &self.plain else { return };
        let mut plain = plain.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, reached) = (self.bar.position(), tenths(self.bar.position(), self.all));
        if reached > plain.1 {
            if plain.0.elapsed() >= LONG {
                output::note(format_args!("{done} of {} {}", self.all, self.what));
            }
            plain.1 = reached;
        }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn tenths(there: u64, bytes: u64) -> u64 {
    there.saturating_mul(10).checked_div(bytes).unwrap_or(10)
}
