//! `shieldgate migrate`: brings the database up to date, as its owner.

use std::process::ExitCode;

use super::connect::{Connected, Role};
use super::{Failed, output};
use crate::config::{Common, Database};

pub(super) async fn run(common: &Common, database: &Database) -> Result<ExitCode, Failed> {
    // Opening migrates where that is needed, as `serve` does.
    Connected::open(common, database, Role::Migration).await?.close().await;
    output::line("the database is up to date");
    Ok(ExitCode::SUCCESS)
}
