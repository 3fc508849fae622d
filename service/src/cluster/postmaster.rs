//! One running postmaster: started by us or found running, told apart by the folder it works in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Child;

/// How often a postmaster that is not our child is looked at; nobody tells us when it ends.
const LOOK: Duration = Duration::from_millis(200);

/// What `postmaster.pid` says, as far as we need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PidFile {
    pub(super) pid: u32,
    pub(super) socket_dir: PathBuf,
    pub(super) ready: bool,
}

impl PidFile {
    /// Lines: pid, data directory, start time, port, socket directory, address, shared memory, status.
    pub(super) fn read(data: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
        let lines: Vec<&str> = text.lines().collect();
        Some(Self {
            pid: lines.first()?.trim().parse().ok()?,
            socket_dir: PathBuf::from(lines.get(4).copied().unwrap_or_default()),
            ready: lines.get(7).is_some_and(|status| status.trim() == "ready"),
        })
    }
}

#[derive(Debug)]
pub(super) enum Postmaster {
    Child { child: Child, pid: u32 },
    Adopted { pid: u32, data: PathBuf },
}

impl Postmaster {
    pub(super) fn pid(&self) -> u32 {
        match self {
            Self::Child { pid, .. } | Self::Adopted { pid, .. } => *pid,
        }
    }

    /// Waits until it is gone and says how. Dropping the future loses nothing.
    pub(super) async fn ended(&mut self) -> String {
        match self {
            Self::Child { child, .. } => match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            },
            Self::Adopted { pid, data } => {
                while works_in(*pid, data) {
                    tokio::time::sleep(LOOK).await;
                }
                "gone".to_owned()
            }
        }
    }

    /// Ends it: the fast way, which loses nothing; then the immediate one, from which Postgres
    /// recovers at its next start; then by force.
    pub(super) async fn stop(&mut self, patience: Duration) {
        for (signal, patience) in [
            (libc::SIGINT, patience),
            (libc::SIGQUIT, Duration::from_secs(10)),
            (libc::SIGKILL, Duration::from_secs(10)),
        ] {
            send(self.pid(), signal);
            if tokio::time::timeout(patience, self.ended()).await.is_ok() {
                return;
            }
            tracing::warn!(pid = self.pid(), signal, ?patience, "Postgres did not stop in time");
        }
    }
}

/// A live postmaster of this folder, if there is one. The file alone proves nothing: after a crash
/// or in a restarted container its number may be any process's.
pub(super) fn running(data: &Path) -> Option<PidFile> {
    PidFile::read(data).filter(|file| works_in(file.pid, data))
}

/// Whether `pid` is a Postgres process of this cluster: all of them work in its folder.
pub(super) fn works_in(pid: u32, data: &Path) -> bool {
    let process = PathBuf::from(format!("/proc/{pid}"));
    std::fs::read_link(process.join("cwd")).is_ok_and(|folder| folder == data)
        && std::fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim() == "postgres")
}

/// Every process of this cluster, orphans of a killed postmaster included.
pub(super) fn all(data: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| works_in(*pid, data))
        .collect()
}

/// Waits until the processes of a dead postmaster are gone, as a new one refuses to start beside
/// them. They notice its death themselves; one in a long query is told after a while.
pub(super) async fn outlive_orphans(data: &Path) {
    for round in 0_u32.. {
        let orphans = all(data);
        if orphans.is_empty() {
            return;
        }
        match round {
            20 => orphans.iter().for_each(|pid| send(*pid, libc::SIGQUIT)),
            60.. => orphans.iter().for_each(|pid| send(*pid, libc::SIGKILL)),
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(super) fn send(pid: u32, signal: i32) {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return };
    // 0 would be our own group; no child and no pid file has it.
    if pid > 1 {
        // SAFETY: kill takes two numbers and touches no memory of ours. That a process is gone is an
        // error we do not need.
        unsafe { libc::kill(pid, signal) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_is_read_and_a_foreign_process_is_not_taken_for_postgres() {
        let data = tempfile::tempdir().expect("a folder");
        assert_eq!(PidFile::read(data.path()), None);
        let own = std::process::id();
        let text = format!("{own}\n{}\n1\n5432\n/tmp/x\n\n  1 2\nready   \n", data.path().display());
        std::fs::write(data.path().join("postmaster.pid"), text).expect("writes");
        let expected = PidFile { pid: own, socket_dir: "/tmp/x".into(), ready: true };
        assert_eq!(PidFile::read(data.path()), Some(expected));
        assert_eq!(running(data.path()), None);
    }

    #[test]
    fn a_pid_file_cut_short_is_not_ready() {
        let data = tempfile::tempdir().expect("a folder");
        std::fs::write(data.path().join("postmaster.pid"), "77\n/x\n").expect("writes");
        assert!(PidFile::read(data.path()).is_some_and(|file| !file.ready && file.pid == 77));
        std::fs::write(data.path().join("postmaster.pid"), "").expect("writes");
        assert_eq!(PidFile::read(data.path()), None);
    }
}
