//! Which rows stand aside together when a fit is tried on what it has not seen.

use std::collections::BTreeMap;

use super::FitError;
use crate::seeded::Seeded;

/// The fold of each row. Rows of one group (a text and its near-duplicates) are in one fold, or a fit would be
/// tried on what it had seen. Folds are alike in size and, as far as groups allow, in what rows they have of
/// each `kind` (say, of each set of labels).
pub fn folds<G: Ord>(groups: &[G], kinds: &[u64], folds: usize, seed: u64) -> Result<Vec<usize>, FitError> {
    if groups.len() != kinds.len() {
        return Err(FitError::Count { what: "kinds", expected: groups.len(), found: kinds.len() });
    }
    if folds < 2 {
        return Err(FitError::Setting {
            what: "the number of folds",
            found: folds as f64,
            expected: "2 or more",
        });
    }
    let mut rows_of: BTreeMap<&G, Vec<usize>> = BTreeMap::new();
    for (row, group) in groups.iter().enumerate() {
        rows_of.entry(group).or_default().push(row);
    }
    if rows_of.len() < folds {
        return Err(FitError::TooFewGroups { groups: rows_of.len(), folds });
    }
    let mut rows_of: Vec<Vec<usize>> = rows_of.into_values().collect();
    Seeded::new(seed).shuffle(&mut rows_of);
    // The largest first, while there is still room to even them out.
    rows_of.sort_by_key(|rows| std::cmp::Reverse(rows.len()));
    let mut fold_of = vec![0; groups.len()];
    let mut sizes = vec![0; folds];
    let mut of_kind: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for rows in rows_of {
        let kind_of = |row: &usize| kinds.get(*row).copied().unwrap_or_default();
        let kind = rows.first().map(kind_of).unwrap_or_default();
        let alike = of_kind.entry(kind).or_insert_with(|| vec![0; folds]);
        let each = alike.iter().zip(&sizes).enumerate();
        let fold = each.min_by_key(|(_, counts)| *counts).map(|(fold, _)| fold).unwrap_or_default();
        for row in rows {
            if let Some(place) = fold_of.get_mut(row) {
                *place = fold;
            }
            let counts = of_kind.entry(kind_of(&row)).or_insert_with(|| vec![0; folds]);
            [counts, &mut sizes].into_iter().filter_map(|counts| counts.get_mut(fold)).for_each(|n| *n += 1);
        }
    }
    Ok(fold_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_stay_together_and_folds_are_alike() {
        // 1000 rows in 400 groups; a tenth of them is of kind 1.
        let groups: Vec<usize> = (0..1000).map(|row| (row * row) % 401).collect();
        let kinds: Vec<u64> = groups.iter().map(|group| u64::from(group % 10 == 0)).collect();
        let found = folds(&groups, &kinds, 5, 7).expect("folds");
        for (row, group) in groups.iter().enumerate() {
            let same = groups.iter().zip(&found).filter(|(other, _)| *other == group);
            assert!(same.clone().all(|(_, fold)| *fold == found[row]));
        }
        let of_kind = kinds.iter().filter(|kind| **kind == 1).count();
        for fold in 0..5 {
            let size = found.iter().filter(|other| **other == fold).count();
            let rare =
                found.iter().zip(&kinds).filter(|(other, kind)| **other == fold && **kind == 1).count();
            assert!((190..=210).contains(&size), "{size}");
            assert!(rare.abs_diff(of_kind / 5) <= 5, "{rare} of {of_kind}");
        }
        assert_eq!(folds(&groups, &kinds, 5, 7), Ok(found.clone()));
        assert_ne!(folds(&groups, &kinds, 5, 8), Ok(found));
    }

    #[test]
    fn what_can_t_be_parted_is_refused() {
        assert_eq!(
            folds(&["a", "a", "b"], &[0; 3], 3, 1),
            Err(FitError::TooFewGroups { groups: 2, folds: 3 })
        );
        assert!(matches!(folds(&["a"], &[0], 1, 1), Err(FitError::Setting { .. })));
        assert!(matches!(folds(&["a", "b"], &[0], 2, 1), Err(FitError::Count { .. })));
    }
}
