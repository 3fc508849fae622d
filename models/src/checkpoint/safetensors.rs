//! Safetensors shards: which tensors there are and where their bytes lie, without reading any of them.
//!
//! Graphs point into the files as external data, so a header that lies must be found here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::tensor::{Dtype, Metadata};
use serde::Deserialize;

use super::{CheckpointError, json, read_optional};

/// The reference reader's own limit.
const HEADER_BYTES_MAX: u64 = 100_000_000;
const LENGTH_BYTES: u64 = 8;

/// How a tensor's numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    F32,
    BF16,
    F16,
}

/// One tensor and where it lies.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// As the file has it.
    pub name: String,
    pub storage: Storage,
    pub shape: Vec<usize>,
    /// The real file, relative to [`Weights::folder`].
    pub file: Arc<str>,
    /// From the start of the file, in bytes.
    pub offset: u64,
    pub bytes: u64,
}

/// All tensors of a checkpoint, by the name that does not depend on the version that saved them.
#[derive(Debug)]
pub struct Weights {
    folder: PathBuf,
    /// As they are named in the checkpoint's folder, the index first.
    files: Vec<PathBuf>,
    tensors: BTreeMap<String, Found>,
}

#[derive(Debug)]
struct Found {
    shape: Vec<usize>,
    dtype: Dtype,
    name: String,
    file: Arc<str>,
    offset: u64,
    bytes: u64,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// One file of the checkpoint, its header read.
struct Shard {
    /// As the checkpoint's folder has it.
    path: PathBuf,
    real: PathBuf,
    metadata: Metadata,
    /// Where the data begin.
    start: u64,
}

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

impl Weights {
    pub fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let index_path = folder.join(INDEX);
        let Some(body) = read_optional(&index_path)? else {
            let shard = Shard::read(folder.join(SINGLE))?.ok_or_else(|| CheckpointError::FileMissing {
                path: folder.join(SINGLE),
                needed_for: "the weights are read from it",
            })?;
            return Self::of(&[shard], vec![SINGLE.into()]);
        };
        let index: Index = json(&index_path, &body)?;
        let names: BTreeSet<&String> = index.weight_map.values().collect();
        let mut files = vec![PathBuf::from(INDEX)];
        let mut shards = Vec::with_capacity(names.len());
        for name in names {
            if Path::new(name).file_name() != Some(name.as_ref()) {
                let expected = "names of files beside the index";
                return Err(CheckpointError::unsupported(&index_path, "weight_map", name, expected));
            }
            let path = folder.join(name);
            let shard = Shard::read(path.clone())?
                .ok_or_else(|| CheckpointError::ShardMissing { index: index_path.clone(), shard: path })?;
            shards.push(shard);
            files.push(name.into());
        }
        let weights = Self::of(&shards, files)?;
        for (name, expected) in index.weight_map {
            let shard = shards.iter().find(|shard| shard.path.ends_with(&expected));
            if shard.is_none_or(|shard| shard.metadata.info(&name).is_none()) {
                return Err(CheckpointError::TensorElsewhere { index: index_path, name, expected });
            }
        }
        Ok(weights)
    }

    fn of(shards: &[Shard], files: Vec<PathBuf>) -> Result<Self, CheckpointError> {
        let folder = common_folder(shards);
        let mut tensors: BTreeMap<String, (Found, &Shard)> = BTreeMap::new();
        for shard in shards {
            let file: Arc<str> = match shard.real.strip_prefix(&folder).ok().and_then(Path::to_str) {
                Some(file) => file.into(),
                None => {
                    let reason = "its real name is not UTF-8".to_owned();
                    return Err(CheckpointError::Header { path: shard.path.clone(), reason });
                }
            };
            for (name, info) in shard.metadata.tensors() {
                let (from, to) = info.data_offsets;
                let found = Found {
                    shape: info.shape.clone(),
                    dtype: info.dtype,
                    name: name.clone(),
                    file: Arc::clone(&file),
                    offset: shard.start + from as u64,
                    bytes: (to - from) as u64,
                };
                if let Some((other, other_shard)) = tensors.insert(plain_name(&name), (found, shard)) {
                    return Err(CheckpointError::TensorTwice {
                        name: plain_name(&name),
                        first: other.name,
                        first_file: other_shard.path.clone(),
                        second: name,
                        second_file: shard.path.clone(),
                    });
                }
            }
        }
        let tensors = tensors.into_iter().map(|(name, (found, _))| (name, found)).collect();
        Ok(Self { folder, files, tensors })
    }

    /// The real folder that [`Tensor::file`] is relative to.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Relative to the checkpoint's folder.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The tensor `name` (as [`plain_name`] gives it) with exactly this shape.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor, CheckpointError> {
        let found = self.tensors.get(name).ok_or_else(|| CheckpointError::MissingTensor {
            name: name.to_owned(),
            folder: self.folder.clone(),
        })?;
        if found.shape != shape {
            return Err(CheckpointError::WrongShape {
                name: found.name.clone(),
                expected: shape.to_vec(),
                actual: found.shape.clone(),
            });
        }
        let storage = match found.dtype {
            Dtype::F32 => Storage::F32,
            Dtype::BF16 => Storage::BF16,
            Dtype::F16 => Storage::F16,
            other => {
                return Err(CheckpointError::WrongDtype {
                    name: found.name.clone(),
                    dtype: format!("{other:?}"),
                });
            }
        };
        Ok(Tensor {
            name: found.name.clone(),
            storage,
            shape: found.shape.clone(),
            file: Arc::clone(&found.file),
            offset: found.offset,
            bytes: found.bytes,
        })
    }
}

impl Shard {
    /// None: there is no such file, or a link leads nowhere.
    fn read(path: PathBuf) -> Result<Option<Self>, CheckpointError> {
        // ONNX Runtime refuses links that lead out of the folder, as in a Hub cache: so the real place counts.
        let real = match path.canonicalize() {
            Ok(real) => real,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CheckpointError::Read { path, source }),
        };
        let (metadata, start) = header(&path, &real)?;
        Ok(Some(Self { path, real, metadata, start }))
    }
}

/// The deepest real folder that holds every shard: a Hub cache may spread them over folders of its own.
fn common_folder(shards: &[Shard]) -> PathBuf {
    let mut parents = shards.iter().filter_map(|shard| shard.real.parent());
    let Some(first) = parents.next() else { return PathBuf::new() };
    parents
        .fold(first, |common, parent| {
            common.ancestors().find(|ancestor| parent.starts_with(ancestor)).unwrap_or(Path::new("/"))
        })
        .to_path_buf()
}

/// The header, its claims checked against the file's length, and where the data begin.
fn header(path: &Path, real: &Path) -> Result<(Metadata, u64), CheckpointError> {
    let read = |source| CheckpointError::Read { path: path.to_path_buf(), source };
    let invalid = |reason: String| CheckpointError::Header { path: path.to_path_buf(), reason };
    let mut file = File::open(real).map_err(read)?;
    let actual = file.metadata().map_err(read)?.len();
    let truncated = |expected: u64| CheckpointError::Truncated { path: path.to_path_buf(), expected, actual };
    if actual < LENGTH_BYTES {
        return Err(truncated(LENGTH_BYTES));
    }
    let mut length = [0; LENGTH_BYTES as usize];
    file.read_exact(&mut length).map_err(read)?;
    let length = u64::from_le_bytes(length);
    if length > HEADER_BYTES_MAX {
        return Err(invalid(format!("it claims {length} bytes, {HEADER_BYTES_MAX} are allowed")));
    }
    if LENGTH_BYTES + length > actual {
        return Err(truncated(LENGTH_BYTES + length));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(read)?;
    // Reading `Metadata` checks that the tensors' bytes follow each other without gap and fit their shapes.
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| invalid(error.to_string()))?;
    let start = LENGTH_BYTES + length;
    let expected = start + metadata.data_len() as u64;
    if expected > actual {
        return Err(truncated(expected));
    }
    if expected < actual {
        return Err(invalid(format!("{} bytes follow the last tensor", actual - expected)));
    }
    Ok((metadata, start))
}

/// `model.language_model.model.layers.0…`, `language_model.model.layers.0…` and
/// `model.model.language_model.layers.0…` are one tensor, saved by different versions of
/// transformers: here it is `language_model.layers.0…`. Likewise `vision_tower.…`. A model that reads texts
/// only has `model.layers.0…`.
pub fn plain_name(name: &str) -> String {
    if let Some((before, _)) = name.split_once("lm_head.weight")
        && (before.is_empty() || before.ends_with('.'))
    {
        return "lm_head.weight".to_owned();
    }
    for (room, inner) in
        [("language_model.", "model."), ("vision_tower.", "vision_model."), ("multi_modal_projector.", "")]
    {
        let starts = |at: &usize| *at == 0 || name.as_bytes().get(at - 1) == Some(&b'.');
        if let Some(at) = name.find(room).filter(starts) {
            let tail = &name[at + room.len()..];
            let tail = if inner.is_empty() { tail } else { tail.strip_prefix(inner).unwrap_or(tail) };
            return format!("{room}{tail}");
        }
    }
    match name.strip_prefix("model.") {
        Some(tail) if ["embed_tokens.", "layers.", "norm."].iter().any(|part| tail.starts_with(part)) => {
            format!("language_model.{tail}")
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_versions_name_is_the_same_tensor() {
        for name in [
            "model.language_model.model.layers.3.mlp.up_proj.weight",
            "language_model.model.layers.3.mlp.up_proj.weight",
            "model.model.language_model.layers.3.mlp.up_proj.weight",
            "model.language_model.layers.3.mlp.up_proj.weight",
            "model.model.language_model.model.layers.3.mlp.up_proj.weight",
            "model.layers.3.mlp.up_proj.weight",
        ] {
            assert_eq!(plain_name(name), "language_model.layers.3.mlp.up_proj.weight");
        }
        for name in
            ["vision_tower.vision_model.post_layernorm.bias", "model.vision_tower.post_layernorm.bias"]
        {
            assert_eq!(plain_name(name), "vision_tower.post_layernorm.bias");
        }
        assert_eq!(plain_name("model.language_model.lm_head.weight"), "lm_head.weight");
        assert_eq!(plain_name("model.norm.weight"), "language_model.norm.weight");
        for other in ["my_language_model.x", "model.normal.weight", "my_model.layers.0.x"] {
            assert_eq!(plain_name(other), other);
        }
    }

    #[test]
    fn headers_that_lie_are_refused() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join(SINGLE);
        let file = |header: &str, data: usize| {
            let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend(header.as_bytes());
            bytes.extend(vec![0; data]);
            bytes
        };
        let one = r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let cases = [
            (vec![1, 2], "truncated"),
            (u64::MAX.to_le_bytes().to_vec(), "claims"),
            (vec![200, 0, 0, 0, 0, 0, 0, 0, b'{'], "truncated"),
            (file("garbage", 8), "header"),
            (file(one, 7), "truncated"),
            (file(one, 9), "follow"),
            (file(r#"{"x":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, 8), "header"),
            (file(r#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#, 12), "header"),
            (
                file(
                    &r#"{"x":{"dtype":"F32","shape":[N,N,N],"data_offsets":[0,8]}}"#
                        .replace('N', "9999999999"),
                    8,
                ),
                "header",
            ),
        ];
        for (bytes, expected) in cases {
            std::fs::write(&path, bytes)?;
            let error = Weights::read(folder.path()).expect_err(expected).to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
        std::fs::write(&path, file(one, 8))?;
        assert_eq!(Weights::read(folder.path())?.tensor("x", &[2])?.offset, 8 + one.len() as u64);
        Ok(())
    }
}
