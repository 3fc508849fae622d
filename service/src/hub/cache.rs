//! The Hub's cache on disk, as the Python tools lay it out.
//!
//! ```text
//! models--ORG--NAME/
//!   blobs/DIGEST                  the bytes, once
//!   blobs/DIGEST.incomplete       as far as they came
//!   snapshots/COMMIT/config.json  → ../../blobs/DIGEST
//!   refs/main                     COMMIT
//! .locks/models--ORG--NAME/DIGEST.lock
//! ```

use std::fs::{File, TryLockError};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::digest::{Expected, is_hex};
use super::listing::RemoteFile;
use super::{HubError, Reference, Snapshot, Watch};

const LOOK: Duration = Duration::from_millis(200);

pub struct Cache {
    root: PathBuf,
    /// `models--ORG--NAME`
    model: String,
}

impl Cache {
    pub fn of(root: &Path, reference: &Reference) -> Self {
        Self { root: root.to_path_buf(), model: format!("models--{}--{}", reference.org(), reference.name()) }
    }

    fn folder(&self) -> PathBuf {
        self.root.join(&self.model)
    }

    pub(super) fn snapshot_folder(&self, commit: &str) -> PathBuf {
        self.folder().join("snapshots").join(commit)
    }

    pub(super) fn blob(&self, digest: &Expected) -> PathBuf {
        self.folder().join("blobs").join(digest.hex())
    }

    pub(super) fn incomplete(&self, digest: &Expected) -> PathBuf {
        self.folder().join("blobs").join(format!("{}.incomplete", digest.hex()))
    }

    /// Another size is what a broken copy left: it is fetched anew.
    pub(super) fn has(&self, file: &RemoteFile) -> bool {
        std::fs::metadata(self.blob(&file.digest)).is_ok_and(|found| found.len() == file.bytes)
    }

    /// How many bytes of it are still to come.
    pub(super) fn missing(&self, file: &RemoteFile) -> u64 {
        if self.has(file) {
            return 0;
        }
        let there = std::fs::metadata(self.incomplete(&file.digest)).map_or(0, |found| found.len());
        file.bytes.saturating_sub(there)
    }

    pub(super) fn check_room(&self, need: u64) -> Result<(), HubError> {
        if need == 0 {
            return Ok(());
        }
        let folder = self.make(self.folder().join("blobs"))?;
        // Where it can't be asked, the disk itself says so in time.
        let free = rustix::fs::statvfs(&folder).map_or(u64::MAX, |disk| disk.f_bavail * disk.f_frsize);
        if free < need {
            return Err(HubError::NoRoom { folder, need, free });
        }
        Ok(())
    }

    fn make(&self, folder: PathBuf) -> Result<PathBuf, HubError> {
        match std::fs::create_dir_all(&folder) {
            Ok(()) => Ok(folder),
            Err(error) => Err(HubError::write(&folder, error)),
        }
    }

    /// Held while a blob is written, by whichever tool; ends with the returned file.
    pub(super) async fn lock(
        &self,
        name: &str,
        digest: &Expected,
        watch: &dyn Watch,
    ) -> Result<File, HubError> {
        self.make(self.folder().join("blobs"))?;
        let path = self.make(self.root.join(".locks").join(&self.model))?;
        let path = path.join(format!("{}.lock", digest.hex()));
        let write = |source| HubError::write(&path, source);
        let file = File::options().create(true).append(true).open(&path).map_err(write)?;
        let mut said = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(source)) => return Err(write(source)),
                Err(TryLockError::WouldBlock) if said => {}
                Err(TryLockError::WouldBlock) => {
                    watch.note(&format!("another process downloads {name}; waiting for it"));
                    said = true;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(super) fn link(&self, commit: &str, name: &str, file: &RemoteFile) -> Result<(), HubError> {
        let snapshot = self.snapshot_folder(commit);
        let link = snapshot.join(name);
        let target = Path::new("../../blobs").join(file.digest.hex());
        // Where links were not to be had, other tools put the file itself.
        let there = match std::fs::symlink_metadata(&link) {
            Ok(found) if found.is_file() => found.len() == file.bytes,
            Ok(_) => std::fs::read_link(&link).is_ok_and(|found| found == target),
            Err(_) => false,
        };
        if there {
            return Ok(());
        }
        self.make(snapshot)?;
        replace(&link, |path| std::os::unix::fs::symlink(&target, path))
    }

    /// The commit that a branch or tag stood at when it was last asked for.
    pub(super) fn write_ref(&self, reference: &Reference, commit: &str) -> Result<(), HubError> {
        if reference.revision() == commit || self.read_ref(reference)?.as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.ref_path(reference);
        if let Some(parent) = path.parent() {
            self.make(parent.to_path_buf())?;
        }
        replace(&path, |path| std::fs::write(path, commit))
    }

    fn ref_path(&self, reference: &Reference) -> PathBuf {
        self.folder().join("refs").join(reference.revision())
    }

    fn read_ref(&self, reference: &Reference) -> Result<Option<String>, HubError> {
        let path = self.ref_path(reference);
        let mut commit = String::new();
        match File::open(&path).and_then(|file| file.take(64).read_to_string(&mut commit)) {
            Ok(_) => Ok(Some(commit.trim().to_owned()).filter(|commit| is_hex(commit, 40))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(HubError::Read { path, source }),
        }
    }

    /// None: nothing of it was ever downloaded.
    pub(super) fn snapshot(&self, reference: &Reference) -> Result<Option<Snapshot>, HubError> {
        let commit = match reference.revision() {
            commit if is_hex(commit, 40) => Some(commit.to_owned()),
            _ => self.read_ref(reference)?,
        };
        let found = commit.map(|commit| Snapshot { folder: self.snapshot_folder(&commit), commit });
        Ok(found.filter(|snapshot| snapshot.folder.is_dir()))
    }
}

/// Under another name first: whoever looks finds the old one or the new one, whole.
fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), HubError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    if let Err(error) = std::fs::remove_file(&beside)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(HubError::write(&beside, error));
    }
    make(&beside).and_then(|()| std::fs::rename(&beside, path)).map_err(|error| HubError::write(path, error))
}

/// Holds files in a snapshot against the SHA-256 that their blobs are named by, where they are.
pub fn check_links<'a>(
    snapshot: &Path,
    files: impl Iterator<Item = (&'a Path, String)>,
) -> Result<(), HubError> {
    for (name, sha256) in files {
        let link = snapshot.join(name);
        let Ok(target) = std::fs::read_link(&link) else { continue };
        let named = target.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if is_hex(named, 64) && named != sha256 {
            return Err(HubError::Damaged { blob: snapshot.join(target), link });
        }
    }
    Ok(())
}
