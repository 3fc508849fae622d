//! How good judges are on labelled rows: rows in, each through what an upload goes through but the record,
//! then measures against the labels.
//!
//! Rows are read one by one; what is kept of them are probabilities.

mod collected;
mod folder;
mod labels;
mod lines;
pub mod report;
mod scoring;
mod svg;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use collected::{Collected, Score};
pub use labels::Labels;
pub use report::Report;
pub use scoring::{Judging, RowAnswer, ScoreError};

use crate::policy::Modality;
use crate::policy::active::ActivePolicy;

/// One labelled content.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its line, or its place among the files of a folder; from 1.
    pub number: u64,
    pub content: Content,
    pub labels: Labels,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Text(String),
    Picture(PathBuf),
}

impl Content {
    pub fn modality(&self) -> Modality {
        match self {
            Self::Text(_) => Modality::Text,
            Self::Picture(_) => Modality::Image,
        }
    }
}

/// Labelled rows that can't be read as such.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("`{}` can't be read", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{}:{line}: {message}", path.display())]
    Line { path: PathBuf, line: u64, message: String },
    #[error("`{}`: {message}", path.display())]
    Folder { path: PathBuf, message: String },
}

/// What all rows are, found before the first of them is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overview {
    pub modality: Modality,
    pub rows: u64,
    /// Every name that a row is labelled by, spelt as [`labels`] compares them.
    pub names: BTreeSet<String>,
}

/// A file of labelled rows, or a folder of labelled pictures.
#[derive(Debug, Clone)]
pub struct Data {
    path: PathBuf,
    /// Of a folder.
    files: Option<Vec<Row>>,
}

impl Data {
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let read = |source| DataError::Read { path: path.to_path_buf(), source };
        let files =
            std::fs::metadata(path).map_err(read)?.is_dir().then(|| folder::read(path)).transpose()?;
        Ok(Self { path: path.to_path_buf(), files })
    }

    /// The first row that is none is the error.
    pub fn rows(&self) -> Result<Box<dyn Iterator<Item = Result<Row, DataError>> + Send>, DataError> {
        Ok(match &self.files {
            Some(files) => Box::new(files.clone().into_iter().map(Ok)),
            None => Box::new(lines::read(&self.path)?),
        })
    }

    /// Reads every row once: one that is wrong must not end a run of an hour.
    pub fn overview(&self) -> Result<Overview, DataError> {
        let mut found: Option<Overview> = None;
        for row in self.rows()? {
            let row = row?;
            let modality = row.content.modality();
            let overview =
                found.get_or_insert_with(|| Overview { modality, rows: 0, names: BTreeSet::new() });
            if overview.modality != modality {
                let message = format!(
                    "this row is of {}s, those before it are of {}s; evaluate them apart",
                    modality.word(),
                    overview.modality.word()
                );
                return Err(DataError::Line { path: self.path.clone(), line: row.number, message });
            }
            overview.rows += 1;
            overview.names.extend(row.labels.names().map(str::to_owned));
        }
        let message = "there are no rows in it".to_owned();
        found.ok_or_else(|| DataError::Folder { path: self.path.clone(), message })
    }

    /// Names among `names` that are of none of `policies`.
    pub fn of_no_policy(names: &BTreeSet<String>, policies: &[ActivePolicy]) -> Vec<String> {
        let known = |name: &&String| policies.iter().any(|active| labels::is_of(name, &active.policy));
        names.iter().filter(|name| !known(name)).cloned().collect()
    }

    /// How an error or a table names a row.
    pub fn place(&self, row: &Row) -> String {
        match (&self.files, &row.content) {
            (Some(_), Content::Picture(file)) => file.display().to_string(),
            _ => format!("{}:{}", self.path.display(), row.number),
        }
    }
}
