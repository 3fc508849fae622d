//! A checkpoint's weights by one set of names, whatever format their files have.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::CheckpointError;
use super::gguf::{self, Gguf, Packed, PackedForm, names};
use super::safetensors::{self, Storage, Tensor};

/// Weights are asked for as [`safetensors::plain_name`] calls them.
#[derive(Debug)]
pub enum Weights {
    Safetensors(safetensors::Weights),
    Gguf(GgufFile),
}

/// How a weight is stored.
#[derive(Debug, Clone)]
pub enum Stored {
    /// As plain numbers, at their place in a file.
    Numbers(Tensor),
    /// In blocks, which [`Weights::pack`] makes this form of.
    Blocks(PackedForm),
}

/// How weights that are stored in blocks are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlocksAs {
    /// As blocks, by activations in 8 bits.
    Packed,
    /// As the single-precision numbers that the blocks stand for.
    Numbers,
}

/// Of single-precision numbers that blocks are unpacked to: 1 GiB, and as much again in ONNX Runtime's own layout.
const UNPACKED_MAX: u64 = 1 << 28;

impl BlocksAs {
    /// The faster way on this machine for so many numbers: without instructions for products of bytes, blocks take
    /// 1.5 times as long as single precision; with them, two thirds of it (ONNX Runtime 1.32, 200 tokens).
    fn fitting(numbers: u64) -> Self {
        if multiplies_bytes() || numbers > UNPACKED_MAX { Self::Packed } else { Self::Numbers }
    }
}

/// Whether the processor has instructions that multiply bytes and add the products up.
pub fn multiplies_bytes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("avx512vnni") || std::is_x86_feature_detected!("avxvnni");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("dotprod");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return true;
}

/// One GGUF file and where it lies.
#[derive(Debug)]
pub struct GgufFile {
    gguf: Gguf,
    /// As it is named in the checkpoint's folder.
    named: Vec<PathBuf>,
    /// The real file's.
    folder: PathBuf,
    name: Arc<str>,
    blocks: BlocksAs,
}

impl GgufFile {
    /// `named` is the file as the checkpoint's folder has it.
    pub fn open(folder: &Path, named: PathBuf) -> Result<Self, CheckpointError> {
        let path = folder.join(&named);
        let gguf = Gguf::open(&path)?;
        // ONNX Runtime refuses links that lead out of the folder: so the real place counts.
        let real = path.canonicalize().map_err(|source| CheckpointError::Read { path, source })?;
        let name = real.file_name().unwrap_or_default().to_string_lossy().into();
        let folder = real.parent().unwrap_or(Path::new("/")).to_path_buf();
        let in_blocks = gguf.tensors().filter(|tensor| tensor.stored.packed_form().is_some());
        let multiplied = in_blocks.filter(|tensor| names::is_layers(&tensor.name));
        let numbers = multiplied.map(|tensor| (tensor.rows() * tensor.columns()) as u64).sum();
        Ok(Self { gguf, named: vec![named], folder, name, blocks: BlocksAs::fitting(numbers) })
    }

    /// For tests, which compare the two.
    pub(crate) fn with_blocks(self, blocks: BlocksAs) -> Self {
        Self { blocks, ..self }
    }

    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    fn tensor(&self, name: &str) -> Result<&gguf::GgufTensor, CheckpointError> {
        let missing =
            || CheckpointError::MissingTensor { name: name.to_owned(), folder: self.gguf.path().to_owned() };
        self.gguf.tensor(&names::gguf_name(name).ok_or_else(missing)?)
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<Stored, CheckpointError> {
        let found = self.tensor(name)?;
        if found.shape != shape {
            return Err(CheckpointError::WrongShape {
                name: found.name.clone(),
                expected: shape.to_vec(),
                actual: found.shape.clone(),
            });
        }
        if let Some(form) = found.stored.packed_form() {
            return Ok(Stored::Blocks(form));
        }
        let storage = match found.stored {
            gguf::Stored::F16 => Storage::F16,
            gguf::Stored::BF16 => Storage::BF16,
            _ => Storage::F32,
        };
        Ok(Stored::Numbers(Tensor {
            name: found.name.clone(),
            storage,
            shape: found.shape.clone(),
            file: Arc::clone(&self.name),
            offset: found.offset,
            bytes: found.bytes,
        }))
    }
}

impl Weights {
    /// Those of a folder in the form that transformers writes.
    pub fn safetensors(folder: &Path) -> Result<Self, CheckpointError> {
        safetensors::Weights::read(folder).map(Self::Safetensors)
    }

    /// The real folder that the files of [`Stored::Numbers`] are relative to.
    pub fn folder(&self) -> &Path {
        match self {
            Self::Safetensors(weights) => weights.folder(),
            Self::Gguf(file) => &file.folder,
        }
    }

    /// Relative to the checkpoint's folder.
    pub fn files(&self) -> &[PathBuf] {
        match self {
            Self::Safetensors(weights) => weights.files(),
            Self::Gguf(file) => &file.named,
        }
    }

    /// The weight `name` with exactly this shape.
    pub fn find(&self, name: &str, shape: &[usize]) -> Result<Stored, CheckpointError> {
        match self {
            Self::Safetensors(weights) => weights.tensor(name, shape).map(Stored::Numbers),
            Self::Gguf(file) => file.find(name, shape),
        }
    }

    /// Whether norm weights are stored as `1 + w`.
    pub fn norms_include_one(&self) -> bool {
        matches!(self, Self::Gguf(_))
    }

    /// The file that weights in blocks lie in, relative to [`Self::folder`].
    pub(crate) fn file_of_blocks(&self) -> Arc<str> {
        match self {
            // It has none.
            Self::Safetensors(_) => "".into(),
            Self::Gguf(file) => Arc::clone(&file.name),
        }
    }

    /// How matrices in blocks are multiplied.
    pub(crate) fn blocks(&self) -> BlocksAs {
        match self {
            Self::Safetensors(_) => BlocksAs::Numbers,
            Self::Gguf(file) => file.blocks,
        }
    }

    /// The single-precision numbers of a weight that is stored in blocks. Reads it from the file.
    pub fn unpack(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        match self {
            Self::Safetensors(_) => Err(not_in_blocks(name)),
            Self::Gguf(file) => file.gguf.dequantise(file.tensor(name)?),
        }
    }

    /// A weight that is stored in blocks, as ONNX Runtime's operators take it. Reads it from the file.
    pub fn pack(&self, name: &str) -> Result<Packed, CheckpointError> {
        match self {
            Self::Safetensors(_) => Err(not_in_blocks(name)),
            Self::Gguf(file) => file.gguf.pack(file.tensor(name)?)?.ok_or_else(|| not_in_blocks(name)),
        }
    }
}

fn not_in_blocks(name: &str) -> CheckpointError {
    let dtype = "plain numbers, which are in no blocks".to_owned();
    CheckpointError::WrongDtype { name: name.to_owned(), dtype }
}
