//! The only place that prints: results to stdout, progress and errors to stderr; a closed pipe is no error.
#![expect(clippy::print_stderr, reason = "this is where the program talks to people")]

use std::io::Write as _;
use std::process::ExitCode;

/// A result.
pub(crate) fn result(text: impl std::fmt::Display) {
    // A reader that has enough (`| head`) closes the pipe.
    drop(writeln!(std::io::stdout(), "{text}"));
}

/// What is going on.
pub(crate) fn note(text: impl std::fmt::Display) {
    eprintln!("{text}");
}

/// The fact and its causes.
pub(crate) fn failed(error: &anyhow::Error, code: u8) -> ExitCode {
    let causes: Vec<String> = error.chain().skip(1).map(|cause| format!("\n  because: {cause}")).collect();
    eprintln!("error: {error}{}", causes.concat());
    ExitCode::from(code)
}
