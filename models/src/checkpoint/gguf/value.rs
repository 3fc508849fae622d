//! Metadata of a GGUF file: keys and typed values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::checkpoint::CheckpointError;

/// One value. The file's eleven widths of numbers are three kinds here; none loses a digit.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Integer(i128),
    Float(f64),
    Bool(bool),
    Text(String),
    Integers(Vec<i64>),
    Floats(Vec<f64>),
    Bools(Vec<bool>),
    Texts(Vec<Box<str>>),
}

impl Value {
    /// For messages.
    fn kind(&self) -> String {
        let (kind, count) = match self {
            Self::Integer(number) => return number.to_string(),
            Self::Float(number) => return number.to_string(),
            Self::Bool(answer) => return answer.to_string(),
            Self::Text(_) => return "a text".to_owned(),
            Self::Integers(list) => ("whole numbers", list.len()),
            Self::Floats(list) => ("numbers", list.len()),
            Self::Bools(list) => ("booleans", list.len()),
            Self::Texts(list) => ("texts", list.len()),
        };
        format!("a list of {count} {kind}")
    }
}

/// All keys of one file.
#[derive(Debug)]
pub struct Metadata {
    path: PathBuf,
    values: BTreeMap<String, Value>,
}

impl Metadata {
    pub(super) fn new(path: &Path, values: BTreeMap<String, Value>) -> Self {
        Self { path: path.to_path_buf(), values }
    }

    /// The file that said so.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// Says what the key has and what it must have.
    pub(super) fn refuse(&self, key: &str, expected: impl Into<String>) -> CheckpointError {
        let found = self.get(key).map_or_else(|| "nothing".to_owned(), Value::kind);
        CheckpointError::unsupported(&self.path, key, found, expected)
    }

    fn optional<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        pick: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, CheckpointError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        pick(value).map(Some).ok_or_else(|| self.refuse(key, expected))
    }

    pub fn text(&self, key: &str) -> Result<Option<&str>, CheckpointError> {
        self.optional(key, "a text", |value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    pub fn bool(&self, key: &str) -> Result<Option<bool>, CheckpointError> {
        self.optional(key, "true or false", |value| match value {
            Value::Bool(answer) => Some(*answer),
            _ => None,
        })
    }

    /// A number that counts something, or an id.
    pub fn count(&self, key: &str) -> Result<Option<usize>, CheckpointError> {
        self.optional(key, "a whole number", |value| match value {
            Value::Integer(number) => usize::try_from(*number).ok(),
            _ => None,
        })
    }

    pub fn float(&self, key: &str) -> Result<Option<f64>, CheckpointError> {
        self.optional(key, "a number", |value| match value {
            Value::Float(number) => Some(*number),
            Value::Integer(number) => Some(*number as f64),
            _ => None,
        })
    }

    pub fn texts(&self, key: &str) -> Result<Option<&[Box<str>]>, CheckpointError> {
        self.optional(key, "a list of texts", |value| match value {
            Value::Texts(list) => Some(list.as_slice()),
            _ => None,
        })
    }

    pub fn floats(&self, key: &str) -> Result<Option<&[f64]>, CheckpointError> {
        self.optional(key, "a list of numbers", |value| match value {
            Value::Floats(list) => Some(list.as_slice()),
            _ => None,
        })
    }

    pub fn integers(&self, key: &str) -> Result<Option<&[i64]>, CheckpointError> {
        self.optional(key, "a list of whole numbers", |value| match value {
            Value::Integers(list) => Some(list.as_slice()),
            _ => None,
        })
    }
}
