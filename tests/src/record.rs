//! The record behind the API: connections to the private Postgres, and the promise every gate must keep.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{Connection as _, PgConnection};

use crate::process::Postmaster;

const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn connect(data_dir: &Path, role: &str) -> anyhow::Result<PgConnection> {
    let postmaster =
        Postmaster::of(data_dir).ok_or_else(|| anyhow::anyhow!("the private Postgres is not running"))?;
    let options = PgConnectOptions::new_without_pgpass()
        .host(&postmaster.socket_dir.to_string_lossy())
        .port(5432)
        .username(role)
        .database("shieldgate")
        .ssl_mode(PgSslMode::Disable);
    Ok(tokio::time::timeout(PATIENCE, PgConnection::connect_with(&options)).await??)
}

/// Nothing unrecorded: a verdict and its audit entry come and go together.
pub(crate) async fn unaudited(data_dir: &Path) -> anyhow::Result<Vec<String>> {
    let mut owner = connect(data_dir, "shieldgate_owner").await?;
    let found = sqlx::query_scalar(
        "select 'verdict ' || id || ' has ' || entries || ' audit entries' from (
             select v.id, (select count(*) from audit a
                           where a.act = 'verdict.recorded' and a.project = v.project and a.target = v.id::text)
                          as entries
             from verdicts v) counted
         where entries <> 1
         union all
         select 'audit entry ' || seq || ' has no verdict' from audit a
         where a.act = 'verdict.recorded' and not exists (select from verdicts v where v.id::text = a.target)
         limit 20",
    )
    .fetch_all(&mut owner)
    .await?;
    owner.close().await?;
    Ok(found)
}

/// For `Drop`, which may run inside a runtime or outside of one.
pub(crate) fn unaudited_blocking(data_dir: &Path) -> anyhow::Result<Vec<String>> {
    let data_dir: PathBuf = data_dir.to_owned();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(unaudited(&data_dir))
    });
    thread.join().map_err(|_| anyhow::anyhow!("the check itself failed"))?
}
