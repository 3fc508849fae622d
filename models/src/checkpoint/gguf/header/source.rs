//! The bytes of a header as numbers, texts and values, none of them made before it is there.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use crate::checkpoint::CheckpointError;
use crate::checkpoint::gguf::value::Value;

/// Gemma 3's header, vocabulary included, has 6 MB.
const BYTES_MAX: u64 = 128 << 20;
/// Over all lists of the file; Gemma 3 has three of 262 144.
const ELEMENTS_MAX: u64 = 1 << 22;
pub(super) const NAME_BYTES_MAX: u64 = 1 << 16;
/// A chat template is the longest text there is.
const TEXT_BYTES_MAX: u64 = 16 << 20;

/// The file as it is read, from front to back.
pub(super) struct Source<'p, R> {
    path: &'p Path,
    reader: R,
    pub(super) at: u64,
    pub(super) length: u64,
    /// So many more list elements may come.
    elements: u64,
}

impl<'p, R: Read> Source<'p, R> {
    /// `length` is the whole file's, in bytes.
    pub(super) fn new(path: &'p Path, reader: R, length: u64) -> Self {
        Self { path, reader, at: 0, length, elements: ELEMENTS_MAX }
    }

    pub(super) fn refuse(&self, reason: impl Into<String>) -> CheckpointError {
        self.refuse_at(self.at, reason)
    }

    pub(super) fn refuse_at(&self, at: u64, reason: impl Into<String>) -> CheckpointError {
        CheckpointError::Gguf { path: self.path.to_path_buf(), at, reason: reason.into() }
    }

    pub(super) fn truncated(&self, expected: u64) -> CheckpointError {
        CheckpointError::Truncated { path: self.path.to_path_buf(), expected, actual: self.length }
    }

    /// That `bytes` more are there, before anything is made for them.
    fn needs(&self, bytes: u64) -> Result<(), CheckpointError> {
        let end = self.at.saturating_add(bytes);
        if end > self.length {
            return Err(self.truncated(end));
        }
        if end > BYTES_MAX {
            return Err(self.refuse(format!("its header has more than {BYTES_MAX} bytes")));
        }
        Ok(())
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), CheckpointError> {
        self.needs(bytes.len() as u64)?;
        self.reader
            .read_exact(bytes)
            .map_err(|source| CheckpointError::Read { path: self.path.to_path_buf(), source })?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], CheckpointError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, CheckpointError> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, CheckpointError> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    pub(super) fn text(&mut self, max: u64) -> Result<String, CheckpointError> {
        let at = self.at;
        let length = self.u64()?;
        if length > max {
            return Err(self.refuse_at(at, format!("a text claims {length} bytes; {max} are allowed")));
        }
        self.needs(length)?;
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| self.refuse_at(at, "a text is not UTF-8"))
    }

    pub(super) fn values(&mut self, keys: u64) -> Result<BTreeMap<String, Value>, CheckpointError> {
        let mut values = BTreeMap::new();
        for _ in 0..keys {
            let at = self.at;
            let key = self.text(NAME_BYTES_MAX)?;
            let kind = self.u32()?;
            let value = self.value(kind)?;
            if values.contains_key(&key) {
                return Err(self.refuse_at(at, format!("the key `{}` is there twice", shown(&key))));
            }
            values.insert(key, value);
        }
        Ok(values)
    }

    fn value(&mut self, kind: u32) -> Result<Value, CheckpointError> {
        Ok(match kind {
            8 => Value::Text(self.text(TEXT_BYTES_MAX)?),
            9 => self.list()?,
            7 => Value::Bool(self.bool()?),
            6 | 12 => Value::Float(self.float(kind)?),
            _ => Value::Integer(self.integer(kind)?),
        })
    }

    fn bool(&mut self) -> Result<bool, CheckpointError> {
        match self.take()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(self.refuse_at(self.at - 1, format!("{other} stands where 0 or 1 must"))),
        }
    }

    fn float(&mut self, kind: u32) -> Result<f64, CheckpointError> {
        Ok(if kind == 6 {
            f64::from(f32::from_le_bytes(self.take()?))
        } else {
            f64::from_le_bytes(self.take()?)
        })
    }

    fn integer(&mut self, kind: u32) -> Result<i128, CheckpointError> {
        Ok(match kind {
            0 => u8::from_le_bytes(self.take()?).into(),
            1 => i8::from_le_bytes(self.take()?).into(),
            2 => u16::from_le_bytes(self.take()?).into(),
            3 => i16::from_le_bytes(self.take()?).into(),
            4 => u32::from_le_bytes(self.take()?).into(),
            5 => i32::from_le_bytes(self.take()?).into(),
            10 => u64::from_le_bytes(self.take()?).into(),
            11 => i64::from_le_bytes(self.take()?).into(),
            other => return Err(self.refuse(format!("a value has the type {other}, which is none"))),
        })
    }

    fn list(&mut self) -> Result<Value, CheckpointError> {
        let at = self.at;
        let (kind, count) = (self.u32()?, self.u64()?);
        let least = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => return Err(self.refuse_at(at, "a list of lists, which no model has")),
            other => return Err(self.refuse_at(at, format!("a list of type {other}, which is none"))),
        };
        if count > self.elements {
            let reason = format!("a list claims {count} elements; {} are allowed", self.elements);
            return Err(self.refuse_at(at, reason));
        }
        self.elements -= count;
        self.needs(count * least)?;
        let range = 0..count;
        Ok(match kind {
            8 => {
                let texts = range.map(|_| self.text(TEXT_BYTES_MAX).map(String::into_boxed_str));
                Value::Texts(texts.collect::<Result<_, _>>()?)
            }
            7 => Value::Bools(range.map(|_| self.bool()).collect::<Result<_, _>>()?),
            6 | 12 => Value::Floats(range.map(|_| self.float(kind)).collect::<Result<_, _>>()?),
            _ => {
                let whole = |number| i64::try_from(number).map_err(|_| "a number of a list is beyond 2^63");
                let numbers = range.map(|_| {
                    let number = self.integer(kind)?;
                    whole(number).map_err(|reason| self.refuse(reason))
                });
                Value::Integers(numbers.collect::<Result<_, _>>()?)
            }
        })
    }
}

/// A name for a message: hostile ones may be long.
pub(super) fn shown(name: &str) -> String {
    let mut shown: String = name.chars().take(100).collect();
    if shown.len() < name.len() {
        shown.push('…');
    }
    shown.escape_debug().to_string()
}
