//! The only place that prints: results to stdout, errors to stderr; a closed pipe is not an error.
#![expect(clippy::print_stderr, reason = "this is where a command talks to people")]

use std::io::Write as _;
use std::process::ExitCode;

/// One line of result.
pub(super) fn line(text: impl std::fmt::Display) {
    // A reader that has enough (`| head`) closes the pipe.
    drop(writeln!(std::io::stdout(), "{text}"));
}

/// A line that is nowhere else: whether it was written matters.
pub(super) fn secret(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{text}")?;
    out.flush()
}

pub(super) fn json(value: &impl serde::Serialize) -> Result<(), super::Failed> {
    line(serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Something worth saying that is no result.
pub(super) fn note(text: impl std::fmt::Display) {
    eprintln!("{text}");
}

/// The fact and its causes, each once.
pub(super) fn failed(error: &dyn std::error::Error, code: u8) -> ExitCode {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // A transparent error repeats its cause word for word.
        if !text.ends_with(&cause_text) {
            text.push_str("\n  because: ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    eprintln!("error: {text}");
    ExitCode::from(code)
}

/// Columns under a heading, separated by two blanks.
pub(super) fn table(heading: &[&str], rows: &[Vec<String>]) {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(heading.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for row in table.lines() {
        // The library pads both sides of every column.
        line(row.strip_prefix(' ').unwrap_or(&row).trim_end());
    }
}
