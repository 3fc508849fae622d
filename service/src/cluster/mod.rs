//! The private Postgres: made on the first start, kept running, stopped last.
//!
//! `serve` calls [`Cluster::start`] where no `DATABASE_URL` is set; other commands call
//! [`Cluster::attach_or_start`], which works beside a running service and without one. The socket's
//! place never changes while a [`Cluster`] lives, so a pool made from its options finds Postgres
//! again after a restart.
//!
//! Who may be running when we start: nobody; an orphaned postmaster whose service was killed (we
//! adopt it); another service (refused, by a lock the kernel frees with its holder).

mod create;
mod error;
mod place;
mod postmaster;
mod run_as;
mod watch;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::sync::watch as signal;
use tokio::task::JoinHandle;

pub use error::ClusterError;
use place::{Place, Role};
use postmaster::Postmaster;
use run_as::RunAs;
use watch::{Launcher, Watcher};

use crate::store::provision;

/// A holder of the lock that is about to end (a restart, a command) gets this long.
const HANDOVER: Duration = Duration::from_secs(3);
const COMMANDS_PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// The folder with `initdb` and `postgres`.
    pub binaries: PathBuf,
    /// The cluster's own folder (`DIR/postgres`); its lock and its log lie beside it.
    pub data_dir: PathBuf,
    pub connections_max: u16,
    /// Bounds the start, recovery after a crash included.
    pub start_timeout: Duration,
    /// How long open transactions may hold up a stop before Postgres is ended the hard way (and
    /// recovers at its next start).
    pub stop_timeout: Duration,
    /// How Postgres may be run where not as ourselves; decided here for tests only.
    ways: Option<Vec<RunAs>>,
}

impl ClusterConfig {
    pub fn new(binaries: PathBuf, data_dir: PathBuf) -> Self {
        Self {
            binaries,
            data_dir,
            connections_max: 100,
            start_timeout: Duration::from_secs(600),
            stop_timeout: Duration::from_secs(20),
            ways: None,
        }
    }
}

/// A running private Postgres.
#[derive(Debug)]
pub struct Cluster {
    socket_dir: PathBuf,
    /// The postmaster as it is now; 0 while there is none.
    pid: Arc<AtomicU32>,
    /// None where a service beside us keeps it.
    keeper: Option<Keeper>,
}

#[derive(Debug)]
struct Keeper {
    stop: signal::Sender<bool>,
    watcher: JoinHandle<()>,
    /// Held, not read: the next start may come when it is dropped.
    _lock: File,
}

impl Cluster {
    /// Makes, starts or adopts the cluster and keeps it running until [`Cluster::stop`].
    pub async fn start(config: ClusterConfig) -> Result<Self, ClusterError> {
        let place = Place::prepare(&config.data_dir)?;
        let lock = wait_for_lock(&place).await?;
        Self::keep(config, place, lock).await
    }

    /// False where a service beside us keeps it.
    pub fn is_ours(&self) -> bool {
        self.keeper.is_some()
    }

    /// For a command: uses the cluster of the service that runs beside it, or starts it for as long
    /// as the command takes.
    pub async fn attach_or_start(config: ClusterConfig) -> Result<Self, ClusterError> {
        let place = Place::prepare(&config.data_dir)?;
        let since = tokio::time::Instant::now();
        loop {
            // A service may come or go while we look, so the lock is asked again on every round.
            let problem = match place.lock(Role::Command)? {
                Ok(lock) => return Self::keep(config, place, lock).await,
                Err(holder) if holder.brief => None,
                Err(_) => match Self::attach(&place).await {
                    Some(Ok(cluster)) => return Ok(cluster),
                    Some(Err(error)) => Some(error),
                    None => None,
                },
            };
            if since.elapsed() > COMMANDS_PATIENCE {
                return Err(match problem {
                    Some(error) => ClusterError::Unreachable(error),
                    None => ClusterError::StartTimeout {
                        waited: COMMANDS_PATIENCE,
                        tail: place.log_tail(),
                        log: place.log,
                    },
                });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// None: it is not up yet.
    async fn attach(place: &Place) -> Option<Result<Self, sqlx::Error>> {
        let running = postmaster::running(&place.data).filter(|file| file.ready)?;
        let pid = Arc::new(AtomicU32::new(running.pid));
        let cluster = Self { socket_dir: running.socket_dir, pid, keeper: None };
        Some(provision::answers(&cluster.owner_options()).await.map(|()| cluster))
    }

    async fn keep(config: ClusterConfig, place: Place, lock: File) -> Result<Self, ClusterError> {
        if !config.binaries.join("postgres").is_file() || !config.binaries.join("initdb").is_file() {
            return Err(ClusterError::NoBinaries(config.binaries));
        }
        let run_as = create::ensure(&config, &place.data).await?;
        let socket_dir = place.socket_dir(&run_as)?;
        create::write_access_rules(&run_as, &place.data).await?;

        let pid = Arc::new(AtomicU32::new(0));
        let cancelled = StopWhenCancelled(pid.clone());
        let launcher = Launcher { config, place, run_as, socket_dir: socket_dir.clone(), pid: pid.clone() };
        let postmaster = match Self::launch(&launcher).await {
            Ok(postmaster) => postmaster,
            Err(error) => {
                launcher.clean().await;
                return Err(error);
            }
        };
        cancelled.disarm();
        let (stop, stopped) = signal::channel(false);
        let watcher = tokio::spawn(Watcher { launcher, postmaster, stopped }.run());
        Ok(Self { socket_dir, pid, keeper: Some(Keeper { stop, watcher, _lock: lock }) })
    }

    /// A postmaster that has the database and the roles.
    async fn launch(launcher: &Launcher) -> Result<Postmaster, ClusterError> {
        let mut postmaster = launcher.adopt_or_launch().await?;
        let superuser = options(&launcher.socket_dir, create::SUPERUSER, "postgres");
        match provision::provision(&superuser).await {
            Ok(()) => Ok(postmaster),
            Err(error) => {
                postmaster.stop(launcher.config.stop_timeout).await;
                launcher.pid.store(0, Ordering::Relaxed);
                Err(ClusterError::Unreachable(error))
            }
        }
    }

    /// For migrations: owns the database, is no superuser.
    pub fn owner_options(&self) -> PgConnectOptions {
        options(&self.socket_dir, provision::OWNER, provision::DATABASE)
    }

    /// For everything else: what the migrations grant.
    pub fn service_options(&self) -> PgConnectOptions {
        options(&self.socket_dir, provision::SERVICE, provision::DATABASE)
    }

    /// The superuser's URL, for tests that make databases of their own.
    pub fn superuser_url(&self) -> String {
        format!("postgres://{}@localhost/postgres?host={}", create::SUPERUSER, self.socket_dir.display())
    }

    /// The postmaster's process id as it is now; none while it is being restarted.
    pub fn postmaster_pid(&self) -> Option<u32> {
        match self.pid.load(Ordering::Relaxed) {
            0 => None,
            pid => Some(pid),
        }
    }

    /// Stops Postgres and waits until it is gone. Call it last: after the pools are closed, so that
    /// nothing holds it up. A cluster that a service beside us keeps stays up.
    pub async fn stop(mut self) {
        let Some(keeper) = self.keeper.take() else { return };
        keeper.stop.send_replace(true);
        if let Err(error) = keeper.watcher.await {
            tracing::error!(%error, "the watcher of the private Postgres had ended");
            if let Some(pid) = self.postmaster_pid() {
                postmaster::send(pid, libc::SIGINT);
            }
        }
    }
}

impl Drop for Cluster {
    /// An early exit without [`Cluster::stop`]: tell Postgres, as nobody can wait here.
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            keeper.watcher.abort();
            drop(StopWhenCancelled(self.pid.clone()));
        }
    }
}

/// A start that is given up half-way (Ctrl-C) must not leave its postmaster behind.
struct StopWhenCancelled(Arc<AtomicU32>);

impl StopWhenCancelled {
    fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for StopWhenCancelled {
    fn drop(&mut self) {
        // 0 where there is none is not sent to.
        postmaster::send(self.0.load(Ordering::Relaxed), libc::SIGINT);
    }
}

async fn wait_for_lock(place: &Place) -> Result<File, ClusterError> {
    let since = tokio::time::Instant::now();
    loop {
        match place.lock(Role::Service)? {
            Ok(lock) => return Ok(lock),
            Err(holder) => {
                let patience = if holder.brief { COMMANDS_PATIENCE } else { HANDOVER };
                if since.elapsed() > patience {
                    return Err(ClusterError::Busy { data_dir: place.data.clone(), pid: holder.pid });
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Every field is set: what is not would come from the operator's `PG…` environment.
fn options(socket_dir: &Path, user: &str, database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(socket_dir)
        .port(watch::PORT)
        .username(user)
        .database(database)
        .ssl_mode(PgSslMode::Disable)
        .application_name("shieldgate")
}

#[cfg(test)]
mod tests;
