//! What can keep the private Postgres from running, in words that say what to do.

use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("no Postgres binaries at `{}`\n  hint: `make build` fetches them, or set `DATABASE_URL`", .0.display())]
    NoBinaries(PathBuf),
    #[error("cannot use `{}` for the private Postgres", .path.display())]
    DataDir { path: PathBuf, source: std::io::Error },
    #[error(
        "another shieldgate{} already runs its Postgres in `{}`\n  hint: stop it, or give this one its own `--data-dir`",
        .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default(), .data_dir.display()
    )]
    Busy { data_dir: PathBuf, pid: Option<u32> },
    #[error(
        "`{}` holds a Postgres {found} cluster, but the binaries here are Postgres {expected}\n  hint: dump it with \
         the version {found} it was made with and load it into a fresh data directory, or run a server of version \
         {found} yourself and set `DATABASE_URL`", .data_dir.display()
    )]
    ForeignVersion { data_dir: PathBuf, found: String, expected: u32 },
    #[error(
        "`{}` is neither empty nor a Postgres cluster\n  hint: give another `--data-dir`, or move the folder away",
        .0.display()
    )]
    NotACluster(PathBuf),
    #[error(
        "Postgres does not run as this user ({who}), and no way round it works here:\n{tried}\n  hint: start \
         shieldgate as an ordinary user, or run a server yourself and set `DATABASE_URL`"
    )]
    CannotRun { who: String, tried: String },
    #[error("`{program}` failed: {output}")]
    Program { program: String, output: String },
    #[error("Postgres ended while it was starting; the end of `{}`:\n{tail}", .log.display())]
    DiedAtStart { log: PathBuf, tail: String },
    #[error("Postgres was not ready after {waited:?}; the end of `{}`:\n{tail}", .log.display())]
    StartTimeout { waited: Duration, log: PathBuf, tail: String },
    #[error("no short folder for the socket: {0}")]
    SocketDir(String),
    #[error("the private Postgres runs but does not answer")]
    Unreachable(#[source] sqlx::Error),
}
