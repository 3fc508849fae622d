//! The black-box harness: the real binary on a free port, with its own private Postgres, driven over HTTP
//! and the command line.
//!
//! ```no_run
//! # async fn example() {
//! use shieldgate_tests::{Gate, samples};
//! let gate = Gate::start().await;
//! let key = gate.key("moderate,read");
//! let answer = gate.caller(&key).upload(&samples::coffee()).await;
//! assert_eq!(answer.status, 200);
//! # }
//! ```
//!
//! A start costs a second, so one test asks one gate many things about one subject. A gate that is
//! dropped checks that every verdict has its audit entry and that nothing panicked, then ends its service by
//! SIGTERM and sees that Postgres went with it. It ends only what it started, by process id.
//!
//! `make build` must have been run: the binary and its assets are found beside the test's own file.

#![expect(clippy::expect_used, reason = "a harness that fails is a test that fails, with the reason at hand")]

mod assets;
mod binary;
mod caller;
mod collector;
mod gate;
mod process;
mod record;
mod setup;
mod template;

pub mod hostile;
pub mod hub;
pub mod mutate;
pub mod openapi;
pub mod raw;
pub mod samples;
pub mod texts;

pub use assets::{all_assets, assets_with};
pub use binary::{Done, binary, shieldgate, target_dir};
pub use caller::{Answer, Caller, Upload, send, try_send};
pub use collector::Collector;
pub use gate::Gate;
pub use setup::{Failed, Setup};
