//! Everything of a GGUF file before its weights, every length checked before it is used.
//!
//! Reference: `gguf.cpp` of llama.cpp. Version 3 is version 2 with room for big-endian files; version 1
//! has other widths and is long gone. Memory stays within a small multiple of 128 MiB whatever the file claims.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use super::block::Stored;
use super::value::Value;
use crate::checkpoint::CheckpointError;

mod source;
#[cfg(test)]
mod tests;

use source::{NAME_BYTES_MAX, Source, shown};

const KEYS_MAX: u64 = 1 << 16;
const TENSORS_MAX: u64 = 1 << 16;
/// As llama.cpp.
const DIMENSIONS_MAX: u32 = 4;
const ALIGNMENT_KEY: &str = "general.alignment";
const ALIGNMENT_DEFAULT: u64 = 32;
const ALIGNMENT_MAX: u64 = 1 << 20;

/// One tensor and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufTensor {
    pub name: String,
    /// Rows before columns, as in a safetensors file; the GGUF itself has them the other way round.
    pub shape: Vec<usize>,
    pub stored: Stored,
    /// From the start of the file, in bytes.
    pub offset: u64,
    pub bytes: u64,
}

impl GgufTensor {
    /// The length of a row: the last side.
    pub fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// All sides but the last.
    pub fn rows(&self) -> usize {
        self.shape.iter().rev().skip(1).product()
    }

    pub(super) fn row_bytes(&self) -> u64 {
        (self.columns() / self.stored.numbers() * self.stored.bytes()) as u64
    }
}

#[derive(Debug)]
pub(super) struct Header {
    pub(super) values: BTreeMap<String, Value>,
    pub(super) tensors: BTreeMap<String, GgufTensor>,
}

impl Header {
    /// `length` is the whole file's, in bytes.
    pub(super) fn read(path: &Path, reader: impl Read, length: u64) -> Result<Self, CheckpointError> {
        let mut source = Source::new(path, reader, length);
        if source.take::<4>()? != *b"GGUF" {
            return Err(source.refuse("it does not begin with `GGUF`"));
        }
        match source.u32()? {
            2 | 3 => {}
            version if matches!(version.swap_bytes(), 2 | 3) => {
                return Err(source.refuse("it is big-endian; take the little-endian file"));
            }
            version => return Err(source.refuse(format!("its version is {version}; 2 and 3 are read"))),
        }
        let (tensors, keys) = (source.u64()?, source.u64()?);
        for (count, max, of) in [(tensors, TENSORS_MAX, "tensors"), (keys, KEYS_MAX, "metadata keys")] {
            if count > max {
                return Err(source.refuse(format!("it claims {count} {of}; {max} are allowed")));
            }
        }
        let values = source.values(keys)?;
        let claims = (0..tensors).map(|_| source.claim()).collect::<Result<Vec<_>, _>>()?;
        let alignment = match values.get(ALIGNMENT_KEY) {
            None => ALIGNMENT_DEFAULT,
            Some(Value::Integer(sides)) => match u64::try_from(*sides) {
                Ok(sides) if sides.is_power_of_two() && sides <= ALIGNMENT_MAX => sides,
                _ => return Err(source.refuse(format!("`{ALIGNMENT_KEY}` is {sides}, no power of two"))),
            },
            Some(_) => return Err(source.refuse(format!("`{ALIGNMENT_KEY}` is no number"))),
        };
        let start = source.at.next_multiple_of(alignment);
        let tensors = source.place(claims, start, alignment)?;
        Ok(Self { values, tensors })
    }
}

/// A tensor as the table has it, its place not yet checked.
struct Claim {
    tensor: GgufTensor,
    /// Where the table says it, for messages.
    at: u64,
}

impl<R: Read> Source<'_, R> {
    fn claim(&mut self) -> Result<Claim, CheckpointError> {
        let at = self.at;
        let name = self.text(NAME_BYTES_MAX)?;
        let refuse = |source: &Self, reason: String| {
            source.refuse_at(at, format!("tensor `{}` {reason}", shown(&name)))
        };
        let dimensions = self.u32()?;
        if dimensions == 0 || dimensions > DIMENSIONS_MAX {
            return Err(refuse(self, format!("has {dimensions} sides; 1 to {DIMENSIONS_MAX} are allowed")));
        }
        let mut shape = Vec::with_capacity(DIMENSIONS_MAX as usize);
        let mut numbers: usize = 1;
        for _ in 0..dimensions {
            let side = self.u64()?;
            // Beyond 2^48 numbers nothing fits a file; below, no sum of sizes overflows.
            let product = usize::try_from(side).ok().and_then(|side| numbers.checked_mul(side));
            match product.filter(|product| (1..1 << 48).contains(product)) {
                Some(product) => numbers = product,
                None => return Err(refuse(self, format!("has a side of {side}"))),
            }
            shape.push(side as usize);
        }
        let kind = self.u32()?;
        let stored = Stored::from_number(kind).map_err(|name| {
            refuse(self, format!("is stored as {name}; supported are {}", Stored::names()))
        })?;
        let columns = shape.first().copied().unwrap_or(1);
        if !columns.is_multiple_of(stored.numbers()) {
            let reason =
                format!("has rows of {columns}, no multiple of {}'s {}", stored.name(), stored.numbers());
            return Err(refuse(self, reason));
        }
        shape.reverse();
        let offset = self.u64()?;
        let bytes = (numbers / stored.numbers() * stored.bytes()) as u64;
        Ok(Claim { tensor: GgufTensor { name, shape, stored, offset, bytes }, at })
    }

    /// That every tensor lies in the file, aligned, and on bytes of its own.
    fn place(
        &self,
        mut claims: Vec<Claim>,
        start: u64,
        alignment: u64,
    ) -> Result<BTreeMap<String, GgufTensor>, CheckpointError> {
        claims.sort_by_key(|claim| claim.tensor.offset);
        let mut end = start;
        let mut tensors = BTreeMap::new();
        for Claim { mut tensor, at } in claims {
            let refuse =
                |reason: &str| self.refuse_at(at, format!("tensor `{}` {reason}", shown(&tensor.name)));
            if !tensor.offset.is_multiple_of(alignment) {
                return Err(refuse(&format!("begins at {}, no multiple of {alignment}", tensor.offset)));
            }
            let from = start.saturating_add(tensor.offset);
            let to = from.saturating_add(tensor.bytes);
            if to > self.length {
                return Err(self.truncated(to));
            }
            if from < end {
                return Err(refuse("overlaps the one before it"));
            }
            if tensors.contains_key(&tensor.name) {
                return Err(refuse("is there twice"));
            }
            (tensor.offset, end) = (from, to);
            tensors.insert(tensor.name.clone(), tensor);
        }
        Ok(tensors)
    }
}
