//! Everything of a GGUF file before its weights, every length checked before it is used.
//!
//! Reference: `gguf.cpp` of llama.cpp. Version 3 is version 2 with room for big-endian files; version 1
//! has other widths and is long gone. Memory stays within a small multiple of [`BYTES_MAX`] whatever the
//! file claims.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use super::block::Stored;
use super::value::Value;
use crate::checkpoint::CheckpointError;

/// Gemma 3's header, vocabulary included, has 6 MB.
const BYTES_MAX: u64 = 128 << 20;
const KEYS_MAX: u64 = 1 << 16;
const TENSORS_MAX: u64 = 1 << 16;
/// Over all lists of the file; Gemma 3 has three of 262 144.
const ELEMENTS_MAX: u64 = 1 << 22;
const NAME_BYTES_MAX: u64 = 1 << 16;
/// A chat template is the longest text there is.
const TEXT_BYTES_MAX: u64 = 16 << 20;
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
        let mut source = Source { path, reader, at: 0, length, elements: ELEMENTS_MAX };
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

/// The file as it is read, from front to back.
struct Source<'p, R> {
    path: &'p Path,
    reader: R,
    at: u64,
    length: u64,
    /// So many more list elements may come.
    elements: u64,
}

impl<R: Read> Source<'_, R> {
    fn refuse(&self, reason: impl Into<String>) -> CheckpointError {
        self.refuse_at(self.at, reason)
    }

    fn refuse_at(&self, at: u64, reason: impl Into<String>) -> CheckpointError {
        CheckpointError::Gguf { path: self.path.to_path_buf(), at, reason: reason.into() }
    }

    fn truncated(&self, expected: u64) -> CheckpointError {
        CheckpointError::Truncated { path: self.path.to_path_buf(), expected, actual: self.length }
    }

    /// That `bytes` more are there, before anything is made for them.
    fn expect(&self, bytes: u64) -> Result<(), CheckpointError> {
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
        self.expect(bytes.len() as u64)?;
        self.reader
            .read_exact(bytes)
            .map_err(|source| CheckpointError::Read { path: self.path.to_path_buf(), source })?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], CheckpointError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, CheckpointError> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn u64(&mut self) -> Result<u64, CheckpointError> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    fn text(&mut self, max: u64) -> Result<String, CheckpointError> {
        let at = self.at;
        let length = self.u64()?;
        if length > max {
            return Err(self.refuse_at(at, format!("a text claims {length} bytes; {max} are allowed")));
        }
        self.expect(length)?;
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| self.refuse_at(at, "a text is not UTF-8"))
    }

    fn values(&mut self, keys: u64) -> Result<BTreeMap<String, Value>, CheckpointError> {
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
        self.expect(count * least)?;
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

/// A name for a message: hostile ones may be long.
fn shown(name: &str) -> String {
    let mut shown: String = name.chars().take(100).collect();
    if shown.len() < name.len() {
        shown.push('…');
    }
    shown.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file in the making; `data` is what its tensors' bytes fill.
    struct Made {
        keys: Vec<Vec<u8>>,
        tensors: Vec<Vec<u8>>,
        data: usize,
    }

    fn text(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
    }

    fn key(name: &str, kind: u32, value: &[u8]) -> Vec<u8> {
        [&text(name), kind.to_le_bytes().as_slice(), value].concat()
    }

    fn list(kind: u32, count: u64, elements: &[u8]) -> Vec<u8> {
        [kind.to_le_bytes().as_slice(), &count.to_le_bytes(), elements].concat()
    }

    fn tensor(name: &str, sides: &[u64], kind: u32, offset: u64) -> Vec<u8> {
        let mut bytes = text(name);
        bytes.extend((sides.len() as u32).to_le_bytes());
        bytes.extend(sides.iter().flat_map(|side| side.to_le_bytes()));
        bytes.extend(kind.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        bytes
    }

    impl Made {
        fn bytes(&self) -> Vec<u8> {
            let mut bytes = b"GGUF".to_vec();
            bytes.extend(3u32.to_le_bytes());
            bytes.extend((self.tensors.len() as u64).to_le_bytes());
            bytes.extend((self.keys.len() as u64).to_le_bytes());
            bytes.extend(self.keys.concat());
            bytes.extend(self.tensors.concat());
            bytes.resize(bytes.len().next_multiple_of(32) + self.data, 0);
            bytes
        }
    }

    fn read(bytes: &[u8]) -> Result<Header, CheckpointError> {
        Header::read(Path::new("x.gguf"), bytes, bytes.len() as u64)
    }

    fn with_key(key: Vec<u8>) -> Vec<u8> {
        Made { keys: vec![key], tensors: vec![], data: 0 }.bytes()
    }

    fn with_tensors(tensors: Vec<Vec<u8>>) -> Vec<u8> {
        Made { keys: vec![], tensors, data: 256 }.bytes()
    }

    #[test]
    fn all_kinds_of_values_are_read() {
        let keys = vec![
            key("u8", 0, &[255]),
            key("i8", 1, &[255]),
            key("u64", 10, &u64::MAX.to_le_bytes()),
            key("i64", 11, &i64::MIN.to_le_bytes()),
            key("f32", 6, &0.5f32.to_le_bytes()),
            key("f64", 12, &0.1f64.to_le_bytes()),
            key("bool", 7, &[1]),
            key("text", 8, &text("Grüße")),
            key("texts", 9, &list(8, 2, &[text("a"), text("")].concat())),
            key("i16s", 9, &list(3, 2, &[255, 255, 1, 0])),
            key("f32s", 9, &list(6, 1, &0.5f32.to_le_bytes())),
            key("bools", 9, &list(7, 2, &[0, 1])),
            key("none", 9, &list(5, 0, &[])),
        ];
        let values = read(&Made { keys, tensors: vec![], data: 0 }.bytes()).unwrap().values;
        let expected = [
            ("u8", Value::Integer(255)),
            ("i8", Value::Integer(-1)),
            ("u64", Value::Integer(u64::MAX.into())),
            ("i64", Value::Integer(i64::MIN.into())),
            ("f32", Value::Float(0.5)),
            ("f64", Value::Float(0.1)),
            ("bool", Value::Bool(true)),
            ("text", Value::Text("Grüße".to_owned())),
            ("texts", Value::Texts(vec!["a".into(), "".into()])),
            ("i16s", Value::Integers(vec![-1, 1])),
            ("f32s", Value::Floats(vec![0.5])),
            ("bools", Value::Bools(vec![false, true])),
            ("none", Value::Integers(vec![])),
        ];
        assert_eq!(values, expected.map(|(key, value)| (key.to_owned(), value)).into());
    }

    #[test]
    fn tensors_lie_where_the_table_says() {
        let alignment = key(ALIGNMENT_KEY, 4, &64u32.to_le_bytes());
        let tensors = vec![tensor("b", &[32, 2, 3], 8, 64), tensor("a", &[4], 0, 0)];
        let made = Made { keys: vec![alignment], tensors, data: 64 + 6 * 34 + 64 };
        let tensors = read(&made.bytes()).unwrap().tensors;
        let (a, b) = (&tensors["a"], &tensors["b"]);
        assert!(a.offset.is_multiple_of(64) && b.offset == a.offset + 64);
        assert_eq!((a.rows(), a.columns(), a.bytes), (1, 4, 16));
        assert_eq!((b.shape.as_slice(), b.rows(), b.columns()), ([3, 2, 32].as_slice(), 6, 32));
        assert_eq!((b.bytes, b.row_bytes(), b.stored), (204, 34, Stored::Q8_0));
    }

    #[test]
    fn headers_that_lie_are_refused() {
        let good = with_tensors(vec![tensor("x", &[8], 0, 0)]);
        let at = |offset: usize, new: &[u8]| {
            let mut bytes = good.clone();
            bytes[offset..offset + new.len()].copy_from_slice(new);
            bytes
        };
        let huge = u64::MAX.to_le_bytes();
        let half = (1u64 << 63).to_le_bytes();
        let cases = [
            (vec![], "truncated"),
            (b"GGML".to_vec(), "`GGUF`"),
            (at(4, &1u32.to_le_bytes()), "version is 1"),
            (at(4, &3u32.to_be_bytes()), "big-endian"),
            (at(8, &huge), "tensors"),
            (at(16, &huge), "metadata keys"),
            (at(8, &60_000u64.to_le_bytes()), "truncated"),
            (with_key(huge.to_vec()), "a text claims"),
            (with_key(60_000u64.to_le_bytes().to_vec()), "truncated"),
            (with_key(key("k", 8, &half)), "a text claims"),
            (with_key(key("k", 8, &(1u64 << 20).to_le_bytes())), "truncated"),
            (with_key(key("k", 8, &[&2u64.to_le_bytes()[..], &[0xc3, 0x28]].concat())), "not UTF-8"),
            (with_key(key("k", 7, &[2])), "0 or 1"),
            (with_key(key("k", 13, &[0; 8])), "type 13"),
            (with_key(key("k", 9, &list(9, 1, &list(0, 1, &[1])))), "list of lists"),
            (with_key(key("k", 9, &list(77, 1, &[1]))), "type 77"),
            (with_key(key("k", 9, &list(0, u64::MAX, &[]))), "a list claims"),
            (with_key(key("k", 9, &list(8, 1 << 22, &[]))), "truncated"),
            (with_key(key("k", 9, &list(10, 1, &huge))), "2^63"),
            (
                Made { keys: vec![key("k", 0, &[1]), key("k", 0, &[1])], tensors: vec![], data: 0 }.bytes(),
                "`k` is there twice",
            ),
            (with_key(key(ALIGNMENT_KEY, 4, &48u32.to_le_bytes())), "no power of two"),
            (with_key(key(ALIGNMENT_KEY, 4, &0u32.to_le_bytes())), "no power of two"),
            (with_key(key(ALIGNMENT_KEY, 11, &i64::MIN.to_le_bytes())), "no power of two"),
            (with_key(key(ALIGNMENT_KEY, 8, &text("32"))), "is no number"),
            (with_tensors(vec![tensor("x", &[], 0, 0)]), "0 sides"),
            (with_tensors(vec![tensor("x", &[1; 5], 0, 0)]), "5 sides"),
            (with_tensors(vec![tensor("x", &[0], 0, 0)]), "side of 0"),
            (with_tensors(vec![tensor("x", &[u64::MAX], 0, 0)]), "has a side"),
            (with_tensors(vec![tensor("x", &[1 << 32, 1 << 32], 0, 0)]), "has a side"),
            (with_tensors(vec![tensor("x", &[1 << 47], 0, 0)]), "truncated"),
            (with_tensors(vec![tensor("x", &[256], 10, 0)]), "stored as Q2_K; supported are F32"),
            (with_tensors(vec![tensor("x", &[256], 4_000_000_000, 0)]), "type 4000000000"),
            (with_tensors(vec![tensor("x", &[33], 8, 0)]), "no multiple of Q8_0's 32"),
            (with_tensors(vec![tensor("x", &[8], 0, 4)]), "no multiple of 32"),
            (with_tensors(vec![tensor("x", &[8], 0, 1 << 40)]), "truncated"),
            (with_tensors(vec![tensor("x", &[8], 0, u64::MAX - 31)]), "truncated"),
            (with_tensors(vec![tensor("x", &[16], 0, 0), tensor("y", &[8], 0, 32)]), "`y` overlaps"),
            (with_tensors(vec![tensor("x", &[8], 0, 0), tensor("x", &[8], 0, 32)]), "twice"),
        ];
        for (bytes, expected) in cases {
            let error = read(&bytes).expect_err(expected).to_string();
            assert!(error.contains(expected), "{expected}: {error}");
            assert!(error.len() < 600, "{error}");
        }
        assert_eq!(read(&good).unwrap().tensors.len(), 1);
    }

    /// Every byte of a header turned into others: any answer will do that is one.
    #[test]
    fn no_byte_brings_it_down() {
        let keys = vec![
            key("a", 9, &list(8, 2, &[text("b"), text("c")].concat())),
            key(ALIGNMENT_KEY, 4, &32u32.to_le_bytes()),
            key("d", 9, &list(6, 2, &[0; 8])),
        ];
        let good = Made { keys, tensors: vec![tensor("x", &[32, 2], 8, 0)], data: 96 }.bytes();
        let mut refused = 0;
        for at in 0..good.len() - 96 {
            for new in [0, 1, 9, 0x20, 0x7f, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = new;
                refused += usize::from(read(&bytes).is_err());
            }
        }
        assert!(refused > 500, "{refused}");
    }
}
