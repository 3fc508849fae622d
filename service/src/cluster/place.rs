//! Where a cluster's files lie: data, lock and log under the data directory, the socket in a short one.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::error::ClusterError;
use super::run_as::{RunAs, own_uid};

/// Past this the log is set aside, keeping one older file: a flood of failing statements must not
/// fill the disk.
const LOG_BYTES_MAX: u64 = 8 << 20;

/// A Unix socket's path ends at 107 bytes; `.s.PGSQL.5432.lock` comes on top of the folder.
const SOCKET_DIR_BYTES_MAX: usize = 107 - "/.s.PGSQL.5432.lock".len();

#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The cluster itself, absolute and without links: running processes are recognised by it.
    pub(super) data: PathBuf,
    pub(super) log: PathBuf,
    lock: PathBuf,
}

impl Place {
    pub(super) fn prepare(data_dir: &Path) -> Result<Self, ClusterError> {
        let failed = |source| ClusterError::DataDir { path: data_dir.to_owned(), source };
        let absolute = std::path::absolute(data_dir).map_err(failed)?;
        let name =
            absolute.file_name().ok_or_else(|| ClusterError::NotACluster(absolute.clone()))?.to_owned();
        let parent = absolute.parent().unwrap_or(Path::new("/"));
        DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
        let parent = parent.canonicalize().map_err(failed)?;
        let beside = |suffix: &str| {
            let mut name = name.clone();
            name.push(suffix);
            parent.join(name)
        };
        Ok(Self { data: parent.join(&name), log: beside(".log"), lock: beside(".lock") })
    }

    /// Takes the lock, which the kernel frees when this process ends, however it ends.
    pub(super) fn lock(&self, role: Role) -> Result<Result<File, Holder>, ClusterError> {
        let failed = |source| ClusterError::DataDir { path: self.lock.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.lock)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0).map_err(failed)?;
                writeln!(file, "{} {}", std::process::id(), role.word()).map_err(failed)?;
                Ok(Ok(file))
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Unreadable is only a less helpful message.
                let _ = file.read_to_string(&mut text);
                let mut words = text.split_whitespace();
                let pid = words.next().and_then(|word| word.parse().ok());
                let brief = words.next() == Some(Role::Command.word());
                Ok(Err(Holder { pid, brief }))
            }
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// The log's end, for an error message.
    pub(super) fn log_tail(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(2048)))?;
            let mut bytes = Vec::new();
            file.take(2048).read_to_end(&mut bytes)?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let lines: Vec<&str> = text.trim_end().lines().collect();
            Ok(lines[lines.len().saturating_sub(8)..].join("\n"))
        };
        read().unwrap_or_else(|error| format!("(unreadable: {error})"))
    }

    pub(super) fn open_log(&self) -> std::io::Result<File> {
        OpenOptions::new().append(true).create(true).mode(0o600).open(&self.log)
    }

    /// Sets a large log aside. It is copied and cut, not renamed, because Postgres holds it open;
    /// it appends, so it goes on at the start. Lines written in between are lost.
    pub(super) fn bound_log(&self) -> std::io::Result<()> {
        if self.log.metadata()?.len() <= LOG_BYTES_MAX {
            return Ok(());
        }
        let mut older = self.log.clone().into_os_string();
        older.push(".1");
        std::fs::copy(&self.log, older)?;
        OpenOptions::new().write(true).open(&self.log)?.set_len(0)
    }

    /// A private folder for the socket, named by the cluster's path so that the next start finds
    /// (and cleans) it. Not `XDG_RUNTIME_DIR`: that one vanishes when the user logs out.
    pub(super) fn socket_dir(&self, run_as: &RunAs) -> Result<PathBuf, ClusterError> {
        let digest = Sha256::digest(self.data.as_os_str().as_encoded_bytes());
        let name: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let name = format!("shieldgate-{}-{name}", own_uid());
        let mut refused = Vec::new();
        let run = (own_uid() == 0).then(|| PathBuf::from("/run"));
        for base in
            run.into_iter().chain([std::env::temp_dir(), PathBuf::from("/tmp"), PathBuf::from("/var/tmp")])
        {
            let folder = base.join(&name);
            match private_dir(&folder, run_as) {
                Ok(()) => return Ok(folder),
                Err(why) => refused.push(format!("`{}`: {why}", folder.display())),
            }
        }
        Err(ClusterError::SocketDir(refused.join("; ")))
    }
}

/// Who holds the lock: a service stays, a command is soon done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Service,
    Command,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Command => "command",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Holder {
    pub(super) pid: Option<u32>,
    pub(super) brief: bool,
}

fn private_dir(folder: &Path, run_as: &RunAs) -> Result<(), String> {
    let text = folder.to_str().unwrap_or_default();
    // It stands in a comma-separated setting, where other characters would need quoting.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if !text.starts_with('/') || text.len() > SOCKET_DIR_BYTES_MAX || !text.bytes().all(plain) {
        return Err("too long or with unusual characters".to_owned());
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.to_string()),
    }
    // /tmp is everybody's: a folder that somebody else put there must not be trusted.
    let metadata = folder.symlink_metadata().map_err(|error| error.to_string())?;
    if !metadata.is_dir() || ![own_uid(), run_as.uid()].contains(&metadata.uid()) {
        return Err("belongs to somebody else".to_owned());
    }
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
        .and_then(|()| run_as.own(folder))
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_s_folder_is_short_however_deep_the_data_lies() {
        let root = tempfile::tempdir().expect("a folder");
        let deep = root.path().join("with space/".repeat(12)).join("postgres");
        let place = Place::prepare(&deep).expect("prepares");
        let folder = place.socket_dir(&RunAs::Ourselves).expect("a folder");
        assert!(folder.as_os_str().len() <= SOCKET_DIR_BYTES_MAX, "{folder:?}");
        assert_eq!(folder.metadata().expect("exists").permissions().mode() & 0o777, 0o700);
        std::fs::remove_dir(folder).expect("empty");
    }

    #[test]
    fn a_log_past_its_bound_is_set_aside() {
        let root = tempfile::tempdir().expect("a folder");
        let place = Place::prepare(&root.path().join("postgres")).expect("prepares");
        let mut log = place.open_log().expect("opens");
        log.write_all(&vec![b'x'; LOG_BYTES_MAX as usize + 1]).expect("writes");
        place.bound_log().expect("bounds");
        log.write_all(b"after\n").expect("writes");
        assert_eq!(std::fs::read_to_string(&place.log).expect("reads"), "after\n");
        assert_eq!(place.log_tail(), "after");
    }
}
