//! Checkpoints as transformers and llama.cpp write them: weights, configuration, and what can be wrong with them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

pub mod config;
pub mod gguf;
pub mod preprocessor;
pub mod safetensors;
pub mod weights;

/// No JSON file of a checkpoint is larger, the tokenizer (33 MB for Gemma 3) included.
const TEXT_BYTES_MAX: u64 = 256 << 20;

#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("`{}` is missing: {needed_for}", path.display())]
    FileMissing { path: PathBuf, needed_for: &'static str },
    #[error("`{}` can't be read", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` is not the JSON that belongs there", path.display())]
    Json {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("`{}` has `{key}` = `{found}`; this judge runs `{expected}` only", path.display())]
    WrongArchitecture { path: PathBuf, key: &'static str, found: String, expected: &'static str },
    #[error("`{}` has `{key}` = {found}; supported is {expected}", path.display())]
    Unsupported { path: PathBuf, key: String, found: String, expected: String },
    #[error("`{}` is truncated: its header speaks of {expected} bytes, it has {actual}; download it again", path.display())]
    Truncated { path: PathBuf, expected: u64, actual: u64 },
    #[error("`{}` has no valid safetensors header: {reason}", path.display())]
    Header { path: PathBuf, reason: String },
    #[error("`{}` can't be read as GGUF: at byte {at}, {reason}", path.display())]
    Gguf { path: PathBuf, at: u64, reason: String },
    #[error("tensor `{name}` is missing in `{}`", folder.display())]
    MissingTensor { name: String, folder: PathBuf },
    #[error("tensor `{name}` has the shape {actual:?}; `config.json` makes it {expected:?}")]
    WrongShape { name: String, expected: Vec<usize>, actual: Vec<usize> },
    #[error("tensor `{name}` is stored as {dtype}; supported are F32, BF16 and F16")]
    WrongDtype { name: String, dtype: String },
    #[error("tensor `{name}` is there twice: as `{first}` in `{}` and as `{second}` in `{}`; remove the one that is not the checkpoint's", first_file.display(), second_file.display())]
    TensorTwice { name: String, first: String, first_file: PathBuf, second: String, second_file: PathBuf },
    #[error("`{}` names the shard `{}`, which is missing; download it again", index.display(), shard.display())]
    ShardMissing { index: PathBuf, shard: PathBuf },
    #[error("`{}` puts tensor `{name}` into `{expected}`, where it is not; index and shards are not of one checkpoint: download them again", index.display())]
    TensorElsewhere { index: PathBuf, name: String, expected: String },
    #[error("`{}`: {reason}", path.display())]
    Tokenizer { path: PathBuf, reason: String },
    #[error("`{}`: the chat template can't be used: {reason}", path.display())]
    Template { path: PathBuf, reason: String },
}

impl CheckpointError {
    pub(crate) fn unsupported(
        path: &Path,
        key: impl Into<String>,
        found: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        Self::Unsupported {
            path: path.to_path_buf(),
            key: key.into(),
            found: found.to_string(),
            expected: expected.into(),
        }
    }
}

/// The bytes of a file that a checkpoint may lack.
pub(crate) fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, CheckpointError> {
    let read = |source| CheckpointError::Read { path: path.to_path_buf(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read(error)),
    };
    let bytes = file.metadata().map_err(read)?.len();
    if bytes > TEXT_BYTES_MAX {
        return Err(CheckpointError::unsupported(
            path,
            "size",
            bytes,
            format!("{TEXT_BYTES_MAX} bytes at most"),
        ));
    }
    let mut body = Vec::with_capacity(bytes as usize);
    // The size may have grown since: the bound holds for what is read.
    file.take(TEXT_BYTES_MAX).read_to_end(&mut body).map_err(read)?;
    Ok(Some(body))
}

pub(crate) fn json<T: DeserializeOwned>(path: &Path, body: &[u8]) -> Result<T, CheckpointError> {
    serde_json::from_slice(body).map_err(|source| CheckpointError::Json { path: path.to_path_buf(), source })
}

pub(crate) fn read_json<T: DeserializeOwned>(
    path: &Path,
    needed_for: &'static str,
) -> Result<T, CheckpointError> {
    let body = read_optional(path)?
        .ok_or_else(|| CheckpointError::FileMissing { path: path.to_path_buf(), needed_for })?;
    json(path, &body)
}
