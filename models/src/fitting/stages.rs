//! Heads for several categories in two stages: first *any harm*, then each category with that beside it.
//!
//! Categories have few positives each, and all harm is alike in part: the first stage learns that part from
//! all rows. Its logit is one more feature of the second stage, enlarged so that regularisation spares it; as
//! it is linear, what comes out is one linear head again.

use super::logistic::{Classes, Example, Linear, fit};
use super::platt::{Platt, calibrate};
use super::{FitError, Rows, folds};

/// How heads are fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recipe {
    /// The weight of the loss against that of the regularisation.
    pub c: f64,
    pub classes: Classes,
    /// What the logit of any harm is multiplied with where it is a feature.
    pub emphasis: f64,
    pub folds: usize,
    pub seed: u64,
}

/// The best of 80 tried on Gemma 3 270M, read after layers 8, 12 and the last, the mean over tokens.
impl Default for Recipe {
    fn default() -> Self {
        Self { c: 0.002, classes: Classes::AsTheyAre, emphasis: 5.0, folds: 10, seed: 1 }
    }
}

/// What is known of a row. Where a label is absent, the row has no part in that fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    harm: Option<bool>,
    of: Vec<Option<bool>>,
}

impl Known {
    /// `harm`: whether the row is harmful in any way, where somebody said so; `of`: by category. Each says
    /// something of the other: what breaks a category is harmful, what is harmless breaks none.
    pub fn new(row: usize, harm: Option<bool>, mut of: Vec<Option<bool>>) -> Result<Self, FitError> {
        let broken = of.iter().position(|label| *label == Some(true));
        let harm = match (harm, broken) {
            (Some(false), Some(category)) => return Err(FitError::Contradiction { row, category }),
            (_, Some(_)) => Some(true),
            (Some(harm), None) => Some(harm),
            (None, None) => {
                let all = !of.is_empty() && of.iter().all(|label| *label == Some(false));
                all.then_some(false)
            }
        };
        if harm == Some(false) {
            of.fill(Some(false));
        }
        Ok(Self { harm, of })
    }

    /// Rows of one kind are spread evenly over the folds.
    fn kind(&self) -> u64 {
        let labels = [self.harm].into_iter().chain(self.of.iter().copied());
        labels.fold(1, |kind: u64, label| {
            kind.wrapping_mul(3).wrapping_add(label.map_or(0, |label| u64::from(label) + 1))
        })
    }
}

/// One head, and what it said of rows that it had not seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    pub linear: Linear,
    /// Fitted on `out_of_fold`.
    pub platt: Platt,
    pub out_of_fold: Vec<OutOfFold>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OutOfFold {
    pub row: usize,
    pub logit: f64,
    pub positive: bool,
}

/// The head for any harm, then one for each category; `progress` hears how many of how many fits are done.
/// Rows of one group are never on both sides of a trial.
pub fn fit_all<G: Ord>(
    rows: &Rows,
    known: &[Known],
    groups: &[G],
    recipe: &Recipe,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Fitted>, FitError> {
    let expected = rows.count();
    for (what, found) in [("labels", known.len()), ("groups", groups.len())] {
        if found != expected {
            return Err(FitError::Count { what, expected, found });
        }
    }
    let categories = known.first().map_or(0, |known| known.of.len());
    if let Some(row) = known.iter().position(|known| known.of.len() != categories) {
        let found = known.get(row).map_or(0, |known| known.of.len());
        return Err(FitError::Categories { row, expected: categories, found });
    }
    let kinds: Vec<u64> = known.iter().map(Known::kind).collect();
    let fold_of = folds(groups, &kinds, recipe.folds, recipe.seed)?;
    let total = (recipe.folds + 1) * (categories + 1);
    let mut done = 0;
    let mut one_more = || {
        done += 1;
        progress(done, total);
    };
    let mut unseen: Vec<Vec<OutOfFold>> = vec![Vec::new(); categories + 1];
    for fold in 0..recipe.folds {
        let aside = |row: &usize| fold_of.get(*row) == Some(&fold);
        let heads = stages(rows, known, &|row| !aside(row), recipe, &mut one_more)?;
        for (head, (linear, unseen)) in heads.iter().zip(&mut unseen).enumerate() {
            for row in (0..rows.count()).filter(aside) {
                if let Some(positive) = known.get(row).and_then(|known| known.label(head)) {
                    unseen.push(OutOfFold { row, logit: linear.logit(rows.row(row)), positive });
                }
            }
        }
    }
    let heads = stages(rows, known, &|_| true, recipe, &mut one_more)?;
    let calibrated = heads.into_iter().zip(unseen).enumerate().map(|(head, (linear, mut unseen))| {
        unseen.sort_by_key(|one| one.row);
        let logits: Vec<f64> = unseen.iter().map(|one| one.logit).collect();
        let positive: Vec<bool> = unseen.iter().map(|one| one.positive).collect();
        let platt = calibrate(&logits, &positive).map_err(|error| named(head, error))?;
        Ok(Fitted { linear, platt, out_of_fold: unseen })
    });
    calibrated.collect()
}

impl Known {
    /// Of head 0, any harm, and of those of the categories behind it.
    fn label(&self, head: usize) -> Option<bool> {
        match head.checked_sub(1) {
            None => self.harm,
            Some(category) => self.of.get(category).copied().flatten(),
        }
    }
}

/// Both stages on the rows that `seen` takes.
fn stages(
    rows: &Rows,
    known: &[Known],
    seen: &dyn Fn(&usize) -> bool,
    recipe: &Recipe,
    one_more: &mut dyn FnMut(),
) -> Result<Vec<Linear>, FitError> {
    let examples = |head: usize, beside: &dyn Fn(usize) -> f64| -> Vec<Example> {
        let labelled = (0..).zip(known).filter(|(row, _)| seen(row));
        let labelled = labelled.filter_map(|(row, known)| Some((row, known.label(head)?)));
        labelled.map(|(row, positive)| Example { row, positive, weight: 1.0, beside: beside(row) }).collect()
    };
    let any = fit(rows, &examples(0, &|_| 0.0), recipe.c, recipe.classes);
    let any = any.map_err(|error| named(0, error))?.linear;
    one_more();
    let logits: Vec<f64> = (0..rows.count()).map(|row| recipe.emphasis * any.logit(rows.row(row))).collect();
    let beside = |row: usize| logits.get(row).copied().unwrap_or_default();
    let mut heads = vec![any];
    for head in 1..=known.first().map_or(0, |known| known.of.len()) {
        let found = fit(rows, &examples(head, &beside), recipe.c, recipe.classes);
        let found = found.map_err(|error| named(head, error))?;
        let folded = heads.first().map(|any| found.linear.plus(found.beside * recipe.emphasis, any));
        heads.extend(folded);
        one_more();
    }
    Ok(heads)
}

/// Which category it was; any harm needs no number.
fn named(head: usize, error: FitError) -> FitError {
    match head.checked_sub(1) {
        None => error,
        Some(category) => FitError::Category { category, source: Box::new(error) },
    }
}
