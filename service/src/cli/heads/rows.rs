//! Labelled texts as a fit takes them: features by the model, labels by the policies, near-duplicates in groups.

use std::path::{Path, PathBuf};

use shieldgate_models::fitting::{FitError, Known, Rows};
use shieldgate_models::judges::gemma3::Reader;
use shieldgate_models::{Digest, Stop};

use super::super::Failed;
use crate::evaluation::{Content, Data, DataError, Row};
use crate::policy::{Modality, Policy};
use crate::text::fold;

/// Texts that are read together; the model takes them by length.
const BATCH: usize = 64;

/// Features of so many rows take 1.5 GB for Gemma 3 270M.
const ROWS_MAX: u64 = 200_000;

/// Characters, folded and letters alone, by which texts count as one: what differs behind is a variation.
const ALIKE: usize = 160;

/// One file of rows.
pub(super) struct Source {
    path: PathBuf,
    data: Data,
    pub(super) rows: u64,
    pub(super) sha256: Digest,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum RowsError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("`{}` has rows of pictures; heads are fitted on texts", path.display())]
    Pictures { path: PathBuf },
    #[error("there are {rows} rows; at most {ROWS_MAX} are fitted at once")]
    TooMany { rows: u64 },
    #[error("`{}` can't be read", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{place}: the text can't be read by the model")]
    Text {
        place: String,
        #[source]
        source: shieldgate_models::Failure,
    },
    #[error("{place}: a fit can't take it")]
    Row {
        place: String,
        #[source]
        source: FitError,
    },
}

impl Source {
    /// Every row is looked at before the first is read by the model: one that is wrong must not end an hour's run.
    pub(super) fn open(path: &Path) -> Result<Self, RowsError> {
        let read = |source| RowsError::Read { path: path.to_path_buf(), source };
        let data = Data::open(path)?;
        let overview = data.overview()?;
        if overview.modality != Modality::Text {
            return Err(RowsError::Pictures { path: path.to_path_buf() });
        }
        let sha256 = Digest::of(&std::fs::read(path).map_err(read)?);
        Ok(Self { path: path.to_path_buf(), data, rows: overview.rows, sha256 })
    }

    /// Its file's name, for the record: where it lay says nothing to others.
    pub(super) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// All rows, ready to be fitted on.
pub(super) struct Read {
    pub(super) sources: Vec<Source>,
    pub(super) features: Rows,
    pub(super) known: Vec<Known>,
    pub(super) groups: Vec<String>,
}

pub(super) fn read(
    reader: &Reader,
    sources: Vec<Source>,
    policies: &[&Policy],
    progress: &dyn Fn(),
) -> Result<Read, Failed> {
    let rows: u64 = sources.iter().map(|source| source.rows).sum();
    if rows > ROWS_MAX {
        return Err(RowsError::TooMany { rows }.into());
    }
    let (mut features, mut known, mut groups) = (None, Vec::new(), Vec::new());
    for source in &sources {
        let mut rows = source.data.rows()?;
        loop {
            let batch = rows.by_ref().take(BATCH).collect::<Result<Vec<Row>, _>>()?;
            if batch.is_empty() {
                break;
            }
            let texts: Vec<&str> = batch.iter().map(text).collect();
            let found = reader.features(&texts, &Stop::default());
            for ((row, text), found) in batch.iter().zip(&texts).zip(found) {
                let place = || source.data.place(row);
                let found = found.map_err(|source| RowsError::Text { place: place(), source })?;
                let fits = |source| RowsError::Row { place: place(), source };
                features.get_or_insert_with(|| Rows::new(found.len())).push(&found).map_err(fits)?;
                let labels = policies.iter().map(|policy| row.labels.of_policy(policy)).collect();
                known.push(Known::new(known.len(), row.labels.harm(), labels).map_err(fits)?);
                groups.push(alike(text));
                progress();
            }
        }
    }
    let features = features.unwrap_or_else(|| Rows::new(0));
    Ok(Read { sources, features, known, groups })
}

fn text(row: &Row) -> &str {
    match &row.content {
        Content::Text(text) => text,
        Content::Picture(_) => "",
    }
}

/// What near-duplicates have in common.
fn alike(text: &str) -> String {
    let letters = fold(text).to_lowercase();
    letters.chars().filter(|character| character.is_alphanumeric()).take(ALIKE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variations_of_a_text_are_alike() {
        assert_eq!(alike("You are ｂａｄ!!"), alike("you   are bad"));
        assert_ne!(alike("You are bad"), alike("You are mad"));
        let long = "a b c ".repeat(100);
        assert_eq!(alike(&long), alike(&format!("{long} and more")));
    }
}
