//! The wire contract and the command line, black-box: every promise of DESIGN.md that a client can see.

#![expect(clippy::expect_used, reason = "this is all tests")]

mod access;
mod bad_input;
mod bad_requests;
mod command_line;
mod eval;
mod hub;
mod idempotency;
mod image_urls;
mod images;
mod kept;
mod limits;
mod models;
mod moderations;
mod operations;
mod overrides;
mod pictures;
mod policies;
mod recall;
mod start;
mod telemetry;
mod texts;
mod verdicts;
