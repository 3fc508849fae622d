//! GGUF files, llama.cpp's format: what they hold, and their weights as numbers or as ONNX Runtime's operators take them.
//!
//! The file stays open and is read where it is asked, never mapped: a file cut short while it is in use is
//! an error, not a signal. Of the crates that read the container, gguf-rs-lib 0.3 is careful but reads version 3
//! only and is thirteen thousand lines, ggus 0.5 panics on a text of 2^63 bytes, and gguf-rs 0.1 brings a
//! command line; none says where in the file it went wrong.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::CheckpointError;

mod block;
mod config;
mod header;
pub mod names;
mod pack;
mod value;
mod vocabulary;

pub use block::Stored;
pub use header::GgufTensor;
pub use pack::{Packed, PackedForm};
pub use value::{Metadata, Value};
pub use vocabulary::{ChatTemplate, anybody_may_write};

use header::Header;

/// So much is read at a time, so that a tensor's stored form is never in memory as a whole.
const CHUNK_BYTES: u64 = 1 << 20;

/// One open file.
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    tensors: BTreeMap<String, GgufTensor>,
}

impl Gguf {
    /// Reads and checks everything but the weights.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let read = |source| CheckpointError::Read { path: path.to_path_buf(), source };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let needed_for = "the weights are read from it";
                return Err(CheckpointError::FileMissing { path: path.to_path_buf(), needed_for });
            }
            Err(error) => return Err(read(error)),
        };
        let length = file.metadata().map_err(read)?.len();
        let header = Header::read(path, BufReader::new(&file), length)?;
        let metadata = Metadata::new(path, header.values);
        Ok(Self { path: path.to_path_buf(), file, metadata, tensors: header.tensors })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// By name.
    pub fn tensors(&self) -> impl Iterator<Item = &GgufTensor> {
        self.tensors.values()
    }

    /// `name` is the file's own; see [`names`] for the others.
    pub fn tensor(&self, name: &str) -> Result<&GgufTensor, CheckpointError> {
        self.tensors.get(name).ok_or_else(|| CheckpointError::MissingTensor {
            name: name.to_owned(),
            folder: self.path.clone(),
        })
    }

    /// The whole tensor in single precision, row by row.
    pub fn dequantise(&self, tensor: &GgufTensor) -> Result<Vec<f32>, CheckpointError> {
        self.dequantise_rows(tensor, 0..tensor.rows())
    }

    /// Some rows, such as those of two tokens in the head. Rows beyond the last are left out.
    pub fn dequantise_rows(
        &self,
        tensor: &GgufTensor,
        rows: Range<usize>,
    ) -> Result<Vec<f32>, CheckpointError> {
        let rows = rows.start.min(tensor.rows())..rows.end.min(tensor.rows());
        let mut numbers = Vec::with_capacity(rows.len() * tensor.columns());
        self.chunks(tensor, rows, |bytes| block::dequantise(tensor.stored, bytes, &mut numbers))?;
        Ok(numbers)
    }

    /// The tensor as blocks with scales; none where it is stored as plain numbers.
    pub fn pack(&self, tensor: &GgufTensor) -> Result<Option<Packed>, CheckpointError> {
        let Some(form) = tensor.stored.packed_form() else { return Ok(None) };
        let mut packed = Packed::new(form, tensor.rows(), tensor.columns());
        self.chunks(tensor, 0..tensor.rows(), |bytes| packed.push(tensor.stored, bytes))?;
        if packed.is_finite() {
            return Ok(Some(packed));
        }
        let reason = format!("tensor `{}` has a scale that is no finite number", tensor.name);
        Err(CheckpointError::Gguf { path: self.path.clone(), at: tensor.offset, reason })
    }

    /// Whole blocks, in order.
    fn chunks(
        &self,
        tensor: &GgufTensor,
        rows: Range<usize>,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), CheckpointError> {
        let block = tensor.stored.bytes() as u64;
        let row = tensor.row_bytes();
        let chunk = CHUNK_BYTES / block * block;
        let (mut at, end) = (rows.start as u64 * row, rows.end as u64 * row);
        let mut bytes = vec![0; chunk.min(end.saturating_sub(at)) as usize];
        while at < end {
            let part = &mut bytes[..chunk.min(end - at) as usize];
            self.file
                .read_exact_at(part, tensor.offset + at)
                .map_err(|source| CheckpointError::Read { path: self.path.clone(), source })?;
            each(part);
            at += part.len() as u64;
        }
        Ok(())
    }
}
