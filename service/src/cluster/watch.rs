//! Starts the postmaster and brings it back when it dies, until the service stops it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::watch as signal;
use tokio::time::Instant;

use super::ClusterConfig;
use super::error::ClusterError;
use super::place::Place;
use super::postmaster::{self, Postmaster};
use super::run_as::RunAs;

/// Only part of the socket's name: Postgres listens on no port.
pub(super) const PORT: u16 = 5432;

const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);
/// A postmaster that lived this long did not die of its start.
const HEALTHY: Duration = Duration::from_secs(60);
/// How long a stop waits for the orphans of a killed postmaster.
const ORPHANS_PATIENCE: Duration = Duration::from_secs(5);
const INSPECTION: Duration = Duration::from_secs(5);

/// Everything that is needed to start the postmaster again.
#[derive(Debug)]
pub(super) struct Launcher {
    pub(super) config: ClusterConfig,
    pub(super) place: Place,
    pub(super) run_as: RunAs,
    pub(super) socket_dir: PathBuf,
    /// Shared with the [`super::Cluster`], which tells the postmaster to stop when it is dropped.
    pub(super) pid: Arc<AtomicU32>,
}

impl Launcher {
    /// A ready postmaster: the one that runs already, else a new one. One that was started but did
    /// not become ready is stopped again before the error is returned.
    pub(super) async fn adopt_or_launch(&self) -> Result<Postmaster, ClusterError> {
        let deadline = Instant::now() + self.config.start_timeout;
        let mut postmaster = match self.adopt(deadline).await {
            Some(postmaster) => postmaster,
            None => self.launch(deadline).await?,
        };
        // No await since it was spawned: whoever drops this future finds it here.
        self.pid.store(postmaster.pid(), Ordering::Relaxed);
        match self.ready(&mut postmaster, deadline).await {
            Ok(()) => Ok(postmaster),
            Err(error) => {
                postmaster.stop(self.config.stop_timeout).await;
                self.pid.store(0, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    /// Waits out one that is just stopping; ends one whose socket we could not reach.
    async fn adopt(&self, deadline: Instant) -> Option<Postmaster> {
        let running = postmaster::running(&self.place.data)?;
        let mut found = Postmaster::Adopted { pid: running.pid, data: self.place.data.clone() };
        while Instant::now() < deadline {
            let file = postmaster::running(&self.place.data).filter(|file| file.pid == running.pid)?;
            if file.socket_dir != self.socket_dir || (file.ready && !self.socket().exists()) {
                tracing::warn!(pid = file.pid, "an orphaned Postgres listens elsewhere: restarting it");
                found.stop(self.config.stop_timeout).await;
                return None;
            }
            if file.ready {
                tracing::info!(
                    pid = file.pid,
                    "adopted the private Postgres an earlier service left running"
                );
                return Some(found);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some(found)
    }

    async fn launch(&self, deadline: Instant) -> Result<Postmaster, ClusterError> {
        let data = &self.place.data;
        let failed = |source| ClusterError::DataDir { path: data.clone(), source };
        if tokio::time::timeout_at(deadline, postmaster::outlive_orphans(data)).await.is_err() {
            return Err(self.timed_out());
        }
        self.clear_stale();
        // A start is a good moment for it; the watcher does it as time goes by.
        let _ = self.place.bound_log();
        let log = self.place.open_log().map_err(failed)?;

        let mut command = self.run_as.command(self.config.binaries.join("postgres"));
        command.arg("-D").arg(data).current_dir("/");
        for (name, value) in self.settings() {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.stdout(log.try_clone().map_err(failed)?).stderr(log);
        let program = |error: std::io::Error| ClusterError::Program {
            program: self.config.binaries.join("postgres").display().to_string(),
            output: error.to_string(),
        };
        let child = command.spawn().map_err(program)?;
        // It is only absent once the child was waited for.
        let pid = child.id().ok_or_else(|| program(std::io::ErrorKind::NotFound.into()))?;
        Ok(Postmaster::Child { child, pid })
    }

    /// On the command line, so that they hold whatever the folder's own files say.
    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("listen_addresses", String::new()),
            ("port", PORT.to_string()),
            ("unix_socket_directories", self.socket_dir.display().to_string()),
            ("unix_socket_permissions", "0700".to_owned()),
            ("max_connections", self.config.connections_max.to_string()),
            // An answered verdict is on the disk: never switch these off.
            ("fsync", "on".to_owned()),
            ("full_page_writes", "on".to_owned()),
            ("synchronous_commit", "on".to_owned()),
            ("logging_collector", "off".to_owned()),
            ("log_destination", "stderr".to_owned()),
            ("log_timezone", "UTC".to_owned()),
            ("timezone", "UTC".to_owned()),
            ("log_checkpoints", "off".to_owned()),
            // Details would quote the rows of a failed statement, and rows hold clients' data.
            ("log_error_verbosity", "terse".to_owned()),
            ("cluster_name", "shieldgate".to_owned()),
        ]
    }

    /// Nothing of this cluster runs, so a process that its lock files name is somebody else's by
    /// now (in a restarted container almost surely), and Postgres would refuse to start for it.
    /// Where no process has that number Postgres clears its own files, with checks of its own.
    fn clear_stale(&self) {
        for path in [self.place.data.join("postmaster.pid"), self.socket_lock()] {
            let first = std::fs::read_to_string(&path).unwrap_or_default();
            let pid = first.lines().next().and_then(|line| line.trim().parse::<u32>().ok());
            if pid.is_some_and(|pid| std::fs::exists(format!("/proc/{pid}")).unwrap_or(false)) {
                match std::fs::remove_file(&path) {
                    Ok(()) => {
                        tracing::warn!(path = %path.display(), ?pid, "removed the lock file of a dead Postgres")
                    }
                    Err(error) => {
                        tracing::warn!(path = %path.display(), %error, "cannot remove a stale lock file")
                    }
                }
            }
        }
    }

    async fn ready(&self, postmaster: &mut Postmaster, deadline: Instant) -> Result<(), ClusterError> {
        let pid = postmaster.pid();
        let look = async {
            while !postmaster::running(&self.place.data).is_some_and(|file| file.pid == pid && file.ready) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = look => Ok(()),
            _ = postmaster.ended() => {
                let (log, tail) = (self.place.log.clone(), self.place.log_tail());
                Err(ClusterError::DiedAtStart { log, tail })
            }
            () = tokio::time::sleep_until(deadline) => Err(self.timed_out()),
        }
    }

    fn timed_out(&self) -> ClusterError {
        let (log, tail) = (self.place.log.clone(), self.place.log_tail());
        ClusterError::StartTimeout { waited: self.config.start_timeout, log, tail }
    }

    /// The socket's folder goes with the last Postgres; the data stays. One that was killed left
    /// its socket, which may go once its orphans are gone.
    pub(super) async fn clean(&self) {
        let orphans = postmaster::outlive_orphans(&self.place.data);
        if tokio::time::timeout(ORPHANS_PATIENCE, orphans).await.is_ok() {
            let _ = std::fs::remove_file(self.socket());
            let _ = std::fs::remove_file(self.socket_lock());
            let _ = std::fs::remove_dir(&self.socket_dir);
        }
    }

    fn socket_lock(&self) -> PathBuf {
        let mut path = self.socket().into_os_string();
        path.push(".lock");
        path.into()
    }

    fn socket(&self) -> PathBuf {
        self.socket_dir.join(format!(".s.PGSQL.{PORT}"))
    }
}

/// Owns the postmaster from the first start to the stop.
pub(super) struct Watcher {
    pub(super) launcher: Launcher,
    pub(super) postmaster: Postmaster,
    pub(super) stopped: signal::Receiver<bool>,
}

/// Why the watcher stopped watching.
enum Event {
    Stop,
    Ended(String),
    SocketGone,
}

impl Watcher {
    pub(super) async fn run(mut self) {
        let mut back_off = BACK_OFF_MIN;
        loop {
            let since = Instant::now();
            match self.watch().await {
                Event::Stop => break,
                Event::Ended(how) => {
                    tracing::error!(how, "the private Postgres died: restarting it");
                }
                Event::SocketGone => {
                    tracing::error!("the socket of the private Postgres was removed: restarting it");
                    self.postmaster.stop(self.launcher.config.stop_timeout).await;
                }
            }
            self.launcher.pid.store(0, Ordering::Relaxed);
            if since.elapsed() > HEALTHY {
                back_off = BACK_OFF_MIN;
            }
            if !self.restart(&mut back_off).await {
                return self.launcher.clean().await;
            }
        }
        self.postmaster.stop(self.launcher.config.stop_timeout).await;
        self.launcher.pid.store(0, Ordering::Relaxed);
        self.launcher.clean().await;
    }

    async fn watch(&mut self) -> Event {
        let mut inspection = tokio::time::interval(INSPECTION);
        loop {
            tokio::select! {
                _ = self.stopped.wait_for(|stop| *stop) => return Event::Stop,
                how = self.postmaster.ended() => return Event::Ended(how),
                _ = inspection.tick() => {
                    if let Err(error) = self.launcher.place.bound_log() {
                        tracing::warn!(%error, "cannot bound the log of the private Postgres");
                    }
                    // Cleaners of temporary folders do that.
                    if !self.launcher.socket().exists() {
                        return Event::SocketGone;
                    }
                }
            }
        }
    }

    /// Tries until it runs again; false if the service stops before that.
    async fn restart(&mut self, back_off: &mut Duration) -> bool {
        loop {
            // The pause comes first and grows, also where each start succeeds and each life is short.
            let attempt = async {
                tokio::time::sleep(*back_off).await;
                self.launcher.place.socket_dir(&self.launcher.run_as)?;
                self.launcher.adopt_or_launch().await
            };
            let attempt = tokio::select! {
                _ = self.stopped.wait_for(|stop| *stop) => None,
                attempt = attempt => Some(attempt),
            };
            *back_off = (*back_off * 2).min(BACK_OFF_MAX);
            match attempt {
                None => {
                    self.stop_what_was_started().await;
                    return false;
                }
                Some(Ok(postmaster)) => {
                    tracing::info!(pid = postmaster.pid(), "the private Postgres runs again");
                    self.postmaster = postmaster;
                    return true;
                }
                Some(Err(error)) => {
                    tracing::error!(%error, again_in = ?back_off, "cannot restart the private Postgres");
                }
            }
        }
    }

    /// The stop came while a new postmaster was getting ready; its handle went with the attempt.
    async fn stop_what_was_started(&self) {
        let pid = self.launcher.pid.swap(0, Ordering::Relaxed);
        if pid != 0 {
            let data = self.launcher.place.data.clone();
            Postmaster::Adopted { pid, data }.stop(self.launcher.config.stop_timeout).await;
        }
    }
}
