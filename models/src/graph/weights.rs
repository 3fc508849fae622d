//! How a graph takes a checkpoint's weights: plain numbers as external data, straight out of the checkpoint's
//! file; blocks of small whole numbers packed for ONNX Runtime's operators, or unpacked, as the session is made.
//!
//! Blocks are declared as external data too, for a graph names every initializer; the session gets them by name
//! ([`Built::blocks`]) and never reads what the declaration points at.

use super::onnx::{StringStringEntryProto, TensorProto};
use super::{Attribute, Dim, Graph, GraphError, MICROSOFT, Type, Value};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::gguf::PackedForm;
use crate::checkpoint::safetensors::{Storage, Tensor};
use crate::checkpoint::weights::{BlocksAs, Stored};

/// Activations in 8 bits: on CPUs the one way that is faster than single precision (MODELS.md's measurements).
const ACCURACY_LEVEL: i64 = 4;

/// A finished graph.
pub struct Built {
    /// The ONNX file, some ten KB.
    pub onnx: Vec<u8>,
    /// What the session is to be given beside it.
    pub blocks: Vec<Blocks>,
}

/// One weight in blocks, and the initializers that it fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocks {
    /// By which the checkpoint's weights find it.
    pub tensor: String,
    pub filled: Filled,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filled {
    Packed { weights: Initializer, scales: Initializer, zero_points: Option<Initializer> },
    Unpacked(Initializer),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initializer {
    pub name: String,
    pub dims: Vec<usize>,
}

/// A matrix whose rows are looked up.
pub(super) enum Table {
    Numbers(Value),
    Blocks(InBlocks),
}

/// A weight in blocks, as operators take it.
pub(super) struct InBlocks {
    form: PackedForm,
    rows: usize,
    columns: usize,
    weights: Value,
    scales: Value,
    zero_points: Option<Value>,
}

impl InBlocks {
    fn bits_and_block(&self) -> [Attribute; 2] {
        let PackedForm { bits, block, .. } = self.form;
        [Attribute::Int("bits", bits as i64), Attribute::Int("block_size", block as i64)]
    }
}

impl Graph<'_> {
    /// A weight as single-precision numbers; stored narrower, it passes through a cast.
    pub fn weight(&mut self, name: &str, shape: &[usize]) -> Result<Value, GraphError> {
        match self.weights.find(name, shape)? {
            Stored::Numbers(tensor) => {
                let stored = self.numbers(name, &tensor)?;
                if stored.kind == Type::F32 {
                    Ok(stored)
                } else {
                    self.widen(&format!("/cast/{name}"), &stored)
                }
            }
            Stored::Blocks(_) => Err(CheckpointError::WrongDtype {
                name: name.to_owned(),
                dtype: "blocks, which only matrices are read from".to_owned(),
            }
            .into()),
        }
    }

    /// What a norm multiplies by: `1 + w`, which some files have as it is.
    pub(super) fn norm_scale(&mut self, path: &str, name: &str, width: usize) -> Result<Value, GraphError> {
        let weight = self.weight(name, &[width])?;
        if self.weights.norms_include_one() {
            return Ok(weight);
        }
        let one = self.floats(&format!("{path}/one"), &[1.0], &[1])?;
        self.add(&format!("{path}/one_plus_weight"), &weight, &one)
    }

    /// `x · wᵀ` with the weight `name`, [out, in].
    pub(super) fn projected(
        &mut self,
        path: &str,
        x: &Value,
        name: &str,
        shape: [usize; 2],
    ) -> Result<Value, GraphError> {
        let Stored::Blocks(form) = self.weights.find(name, &shape)? else {
            let weight = self.weight(name, &shape)?;
            return self.linear(path, x, &weight);
        };
        if self.weights.blocks() == BlocksAs::Numbers {
            let weight = self.unpacked(name, shape)?;
            return self.linear(path, x, &weight);
        }
        let [out, input] = shape;
        let dims = vec![out, input / form.block, form.block * form.bits / 8];
        let w = self.blocks(name, shape, form, dims)?;
        let Some((_, before)) = x.dims.split_last().filter(|(last, _)| **last == Dim::from(input)) else {
            let reason = format!("product of {:?} by blocks of {shape:?}", x.dims);
            return Err(GraphError::Node { node: path.to_owned(), reason });
        };
        let result = (Type::F32, [before, &[Dim::from(out)]].concat());
        let inputs: Vec<&Value> = [x, &w.weights, &w.scales].into_iter().chain(&w.zero_points).collect();
        let mut attributes = vec![
            Attribute::Int("K", w.columns as i64),
            Attribute::Int("N", w.rows as i64),
            Attribute::Int("accuracy_level", ACCURACY_LEVEL),
        ];
        attributes.extend(w.bits_and_block());
        self.node(path, (MICROSOFT, "MatMulNBits"), &inputs, result, attributes)
    }

    /// The weight `name`, [rows, columns], for [`Self::rows`].
    pub(super) fn table(&mut self, name: &str, shape: [usize; 2]) -> Result<Table, GraphError> {
        match self.weights.find(name, &shape)? {
            Stored::Numbers(tensor) => Ok(Table::Numbers(self.numbers(name, &tensor)?)),
            Stored::Blocks(form) => {
                let dims = vec![shape[0], shape[1] * form.bits / 8];
                Ok(Table::Blocks(self.blocks(name, shape, form, dims)?))
            }
        }
    }

    /// Rows of a table by number, in single precision.
    pub(super) fn rows(&mut self, path: &str, table: &Table, ids: &Value) -> Result<Value, GraphError> {
        match table {
            Table::Numbers(table) => {
                let rows = self.gather(path, table, ids)?;
                if rows.kind == Type::F32 { Ok(rows) } else { self.widen(&format!("{path}/cast"), &rows) }
            }
            Table::Blocks(table) => {
                let result = (Type::F32, [ids.dims.as_slice(), &[Dim::from(table.columns)]].concat());
                let inputs: Vec<&Value> =
                    [&table.weights, ids, &table.scales].into_iter().chain(&table.zero_points).collect();
                let mut attributes =
                    vec![Attribute::Int("gather_axis", 0), Attribute::Int("quantize_axis", 1)];
                attributes.extend(table.bits_and_block());
                self.node(path, (MICROSOFT, "GatherBlockQuantized"), &inputs, result, attributes)
            }
        }
    }

    fn numbers(&mut self, name: &str, tensor: &Tensor) -> Result<Value, GraphError> {
        let kind = match tensor.storage {
            Storage::F32 => Type::F32,
            Storage::F16 => Type::F16,
            Storage::BF16 => Type::BF16,
        };
        self.external(name, kind, &tensor.shape, &tensor.file, tensor.offset, tensor.bytes)
    }

    fn blocks(
        &mut self,
        name: &str,
        [rows, columns]: [usize; 2],
        form: PackedForm,
        dims: Vec<usize>,
    ) -> Result<InBlocks, GraphError> {
        let scales = Initializer { name: format!("{name}/scales"), dims: vec![rows, columns / form.block] };
        let zero_points = form
            .zero_points
            .then(|| Initializer { name: format!("{name}/zero_points"), dims: scales.dims.clone() });
        let weights = Initializer { name: name.to_owned(), dims };
        let in_blocks = InBlocks {
            form,
            rows,
            columns,
            weights: self.declared(&weights, Type::U8)?,
            scales: self.declared(&scales, Type::F32)?,
            zero_points: zero_points.as_ref().map(|zero| self.declared(zero, Type::U8)).transpose()?,
        };
        let filled = Filled::Packed { weights, scales, zero_points };
        self.blocks.push(Blocks { tensor: name.to_owned(), filled });
        Ok(in_blocks)
    }

    fn unpacked(&mut self, name: &str, [rows, columns]: [usize; 2]) -> Result<Value, GraphError> {
        let numbers = Initializer { name: name.to_owned(), dims: vec![rows, columns] };
        let value = self.declared(&numbers, Type::F32)?;
        self.blocks.push(Blocks { tensor: name.to_owned(), filled: Filled::Unpacked(numbers) });
        Ok(value)
    }

    /// An initializer that the session is given.
    fn declared(&mut self, initializer: &Initializer, kind: Type) -> Result<Value, GraphError> {
        let file = self.weights.file_of_blocks();
        let bytes = if kind == Type::U8 { 1 } else { size_of::<f32>() };
        let bytes = bytes * initializer.dims.iter().product::<usize>();
        self.external(&initializer.name, kind, &initializer.dims, &file, 0, bytes as u64)
    }

    /// An initializer whose bytes lie in a file.
    fn external(
        &mut self,
        name: &str,
        kind: Type,
        shape: &[usize],
        file: &str,
        offset: u64,
        bytes: u64,
    ) -> Result<Value, GraphError> {
        self.take_name(name)?;
        let entry = |key: &str, value: String| StringStringEntryProto {
            key: Some(key.to_owned()),
            value: Some(value),
        };
        self.proto.initializer.push(TensorProto {
            dims: shape.iter().map(|side| *side as i64).collect(),
            data_type: Some(kind.number()),
            name: Some(name.to_owned()),
            raw_data: None,
            external_data: vec![
                entry("location", file.to_owned()),
                entry("offset", offset.to_string()),
                entry("length", bytes.to_string()),
            ],
            data_location: Some(1),
        });
        Ok(Value { name: name.to_owned(), kind, dims: shape.iter().map(|side| Dim::from(*side)).collect() })
    }
}
