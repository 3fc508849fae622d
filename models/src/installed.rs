//! Models this machine has: checked once when added, recorded with digests, found again at start.
//!
//! A record is `<data dir>/models/<name>.json`. The weights are read where they lie, never copied.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::Digest;
use crate::judges::KINDS;

/// Names end up in file names, policies and metrics.
const NAME_BYTES_MAX: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("`{}` is no model folder that shieldgate knows; expected {}", folder.display(), expected.join(", or "))]
    NotAModel { folder: PathBuf, expected: Vec<&'static str> },
    #[error("this build knows no judge kind `{kind}`; the model was added by another version: add it again")]
    UnknownKind { kind: String },
    #[error(
        "`{name}` is no model name: expected 1 to 64 of a–z, 0–9, `-`, `_` and `.`, starting with a letter or digit; name it with `--name`"
    )]
    Name { name: String },
    #[error("`{}`: {reason}", path.display())]
    Broken { path: PathBuf, reason: String },
    #[error("`{}` can't be read", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` can't be written", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` is not the file that was added ({why}); restore it, or add the model again with `shieldgate models add`", path.display())]
    Changed { path: PathBuf, why: String },
    #[error("`{}`: the head for `{policy}` belongs to the model {expected}, this is {found}; heads are fitted on one model and mean nothing to another", path.display())]
    HeadOfAnotherModel { path: PathBuf, policy: String, expected: Digest, found: Digest },
    #[error(transparent)]
    Runtime(#[from] crate::runtime::RuntimeError),
    /// What a kind's own reader found wrong.
    #[error(transparent)]
    Checkpoint(#[from] crate::checkpoint::CheckpointError),
}

impl ModelError {
    pub(crate) fn broken(path: &Path, reason: impl Into<String>) -> Self {
        Self::Broken { path: path.to_path_buf(), reason: reason.into() }
    }
}

/// One file that a judge reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Relative to the model's folder.
    pub path: PathBuf,
    pub bytes: u64,
    pub sha256: Digest,
    /// Modification time in nanoseconds since 1970: a cheap sign that the bytes may have changed.
    pub modified_ns: u128,
}

impl FileRecord {
    pub fn of(folder: &Path, relative: impl Into<PathBuf>) -> Result<Self, ModelError> {
        let relative = relative.into();
        let path = folder.join(&relative);
        let read = |source| ModelError::Read { path: path.clone(), source };
        let mut file = File::open(&path).map_err(read)?;
        let (bytes, modified_ns) = size_and_time(&file).map_err(read)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = file.read(&mut buffer).map_err(read)?;
            match buffer.get(..count) {
                Some([]) | None => break,
                Some(chunk) => hasher.update(chunk),
            }
        }
        Ok(Self { path: relative, bytes, sha256: Digest::from_bytes(hasher.finalize().into()), modified_ns })
    }
}

fn size_and_time(file: &File) -> io::Result<(u64, u128)> {
    let metadata = file.metadata()?;
    let modified = metadata.modified()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    Ok((metadata.len(), modified))
}

/// What a kind found in a folder.
#[derive(Debug, Clone)]
pub struct Checked {
    /// What the folder calls itself, if it does.
    pub name: Option<String>,
    pub demo: bool,
    pub files: Vec<FileRecord>,
}

/// The record of one model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Installed {
    pub name: String,
    pub kind: String,
    pub demo: bool,
    /// Absolute.
    pub folder: PathBuf,
    pub files: Vec<FileRecord>,
}

impl Installed {
    /// Checks the folder whole. The name is `name`, else what the folder calls itself, else its file name.
    pub fn check(folder: &Path, name: Option<&str>) -> Result<Self, ModelError> {
        Self::check_or(folder, name, None)
    }

    /// [`Self::check`] for a folder whose file name says nothing, as a commit's in a Hub cache: `otherwise`
    /// stands for it.
    pub fn check_or(folder: &Path, name: Option<&str>, otherwise: Option<&str>) -> Result<Self, ModelError> {
        let folder = folder
            .canonicalize()
            .map_err(|source| ModelError::Read { path: folder.to_path_buf(), source })?;
        let kind =
            KINDS.iter().find(|kind| (kind.recognises)(&folder)).ok_or_else(|| ModelError::NotAModel {
                folder: folder.clone(),
                expected: KINDS.iter().map(|kind| kind.looks_like).collect(),
            })?;
        let checked = (kind.check)(&folder)?;
        let name = name
            .map(str::to_owned)
            .or(checked.name)
            .or_else(|| otherwise.map(str::to_owned))
            .or_else(|| folder.file_name().map(|name| name.to_string_lossy().into_owned()))
            .unwrap_or_default();
        if !is_name(&name) {
            return Err(ModelError::Name { name });
        }
        Ok(Self { name, kind: kind.name.to_owned(), demo: checked.demo, folder, files: checked.files })
    }

    /// Compares sizes and times, and hashes where a time differs; none of the `optional` files may have come.
    pub fn check_unchanged(&self, optional: &[&str]) -> Result<(), ModelError> {
        for recorded in &self.files {
            let path = self.folder.join(&recorded.path);
            let read = |source| ModelError::Read { path: path.clone(), source };
            let (bytes, modified_ns) = size_and_time(&File::open(&path).map_err(read)?).map_err(read)?;
            if bytes != recorded.bytes {
                let why = format!("{} bytes, {bytes} now", recorded.bytes);
                return Err(ModelError::Changed { path, why });
            }
            if modified_ns != recorded.modified_ns {
                self.check_hash(recorded)?;
            }
        }
        let new = |name: &&&str| self.files.iter().all(|recorded| recorded.path != Path::new(**name));
        match optional.iter().filter(new).map(|name| self.folder.join(name)).find(|path| path.exists()) {
            Some(path) => Err(ModelError::Changed { path, why: "it was not there then".to_owned() }),
            None => Ok(()),
        }
    }

    /// Hashes every file again.
    pub fn verify(&self) -> Result<(), ModelError> {
        self.files.iter().try_for_each(|recorded| self.check_hash(recorded))
    }

    fn check_hash(&self, recorded: &FileRecord) -> Result<(), ModelError> {
        let now = FileRecord::of(&self.folder, &recorded.path)?;
        if now.sha256 == recorded.sha256 {
            return Ok(());
        }
        Err(ModelError::Changed {
            path: self.folder.join(&recorded.path),
            why: format!("its SHA-256 is {}, {} now", recorded.sha256.hex(), now.sha256.hex()),
        })
    }

    /// Removes the record, never the model; false where there is none.
    pub fn forget(models_dir: &Path, name: &str) -> Result<bool, ModelError> {
        if !is_name(name) {
            return Err(ModelError::Name { name: name.to_owned() });
        }
        let path = models_dir.join(format!("{name}.json"));
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(ModelError::Write { path, source }),
        }
    }

    /// Writes the record; replaces one of the same name.
    pub fn save(&self, models_dir: &Path) -> Result<PathBuf, ModelError> {
        let path = models_dir.join(format!("{}.json", self.name));
        let write = |source| ModelError::Write { path: path.clone(), source };
        std::fs::create_dir_all(models_dir).map_err(write)?;
        let body = serde_json::to_vec_pretty(self).map_err(|error| write(error.into()))?;
        let partial = path.with_extension(format!("json.{}", std::process::id()));
        std::fs::write(&partial, body).and_then(|()| std::fs::rename(&partial, &path)).map_err(write)?;
        Ok(path)
    }

    /// Every record under `models_dir`, by name; none where the folder does not exist.
    pub fn list(models_dir: &Path) -> Result<Vec<Self>, ModelError> {
        let read = |path: &Path, source| ModelError::Read { path: path.to_path_buf(), source };
        let entries = match std::fs::read_dir(models_dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(read(models_dir, error)),
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| read(models_dir, error))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let body = std::fs::read(&path).map_err(|error| read(&path, error))?;
                let record: Self = serde_json::from_slice(&body).map_err(|error| {
                    ModelError::broken(&path, format!("no model record ({error}); add the model again"))
                })?;
                all.push(record);
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// The models that came with the build: each folder below `shipped_dir`, checked whole.
    pub fn shipped(shipped_dir: &Path) -> Result<Vec<Self>, ModelError> {
        let read = |source| ModelError::Read { path: shipped_dir.to_path_buf(), source };
        let mut folders = Vec::new();
        for entry in std::fs::read_dir(shipped_dir).map_err(read)? {
            let path = entry.map_err(read)?.path();
            if path.is_dir() {
                folders.push(path);
            }
        }
        folders.sort();
        folders.iter().map(|folder| Self::check(folder, None)).collect()
    }
}

fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() <= NAME_BYTES_MAX
        && name.bytes().next().is_some_and(allowed)
        && name.bytes().all(|b| allowed(b) || matches!(b, b'-' | b'_' | b'.'))
}
