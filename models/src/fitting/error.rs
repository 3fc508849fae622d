//! What can be wrong with rows, labels and settings of a fit.

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FitError {
    #[error("row {row} has {found} numbers; the others have {expected}")]
    Columns { row: usize, expected: usize, found: usize },
    #[error("number {column} of row {row} is not finite")]
    NotFinite { row: usize, column: usize },
    #[error("there is no row {row}; there are {rows}")]
    NoRow { row: usize, rows: usize },
    #[error("{what} is {found}; expected {expected}")]
    Setting { what: &'static str, found: f64, expected: &'static str },
    #[error(
        "all of the {rows} labelled rows are {}; a fit wants some of both", if *.positive { "positive" } else { "negative" }
    )]
    OneClass { rows: usize, positive: bool },
    #[error("row {row} is labelled harmless, and as breaking category {category}; mend one of the labels")]
    Contradiction { row: usize, category: usize },
    #[error("row {row} has labels for {found} categories; the others have {expected}")]
    Categories { row: usize, expected: usize, found: usize },
    #[error("{found} {what} for {expected} rows")]
    Count { what: &'static str, expected: usize, found: usize },
    #[error(
        "{groups} groups of rows can't be parted into {folds} folds; label more rows, or take fewer folds"
    )]
    TooFewGroups { groups: usize, folds: usize },
    #[error(
        "the fit did not converge: its gradient is {gradient:e} after {steps} steps, {wanted:e} is wanted; regularise more (a smaller C)"
    )]
    NotConverged { gradient: f64, wanted: f64, steps: usize },
    #[error(
        "on rows that it had not seen, the head's answers do not rise with the label (slope {scale}); label more rows"
    )]
    Backwards { scale: f64 },
    #[error("a weight does not fit into 32 bits; features are too small or too large")]
    NotRepresentable,
    #[error("category {category}: {source}")]
    Category {
        category: usize,
        #[source]
        source: Box<FitError>,
    },
}
