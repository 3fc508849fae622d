//! Which rows go through the model together: those of nearly one length, so that little is padding.

/// Positions of a batch, those before the rows included: what its keys, values and activations take.
const POSITIONS_MAX: usize = 4096;

/// Rows of a batch; more gain nothing once the matrices are large.
const ROWS_MAX: usize = 32;

/// Batches of rows by number; `before` are the positions that each row continues. Every row is in one.
pub(super) fn packs(lengths: &[usize], before: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<(usize, usize)> = lengths.iter().copied().zip(0..).collect();
    // Longest first: the first row of a batch says how long it is.
    order.sort_unstable_by(|(a, first), (b, second)| b.cmp(a).then_with(|| first.cmp(second)));
    let mut packs: Vec<Vec<usize>> = Vec::new();
    let mut longest = 0;
    for (length, row) in order {
        // An eighth of padding costs less than a pass of its own; of a few tokens, a few.
        let near = longest - length.min(longest) <= (longest / 8).max(4);
        match packs.last_mut() {
            Some(pack)
                if near
                    && pack.len() < ROWS_MAX
                    && (pack.len() + 1) * (before + longest) <= POSITIONS_MAX =>
            {
                pack.push(row);
            }
            _ => {
                longest = length;
                packs.push(vec![row]);
            }
        }
    }
    packs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_batch_of_its_length() {
        let lengths: Vec<usize> = (0..500).map(|at| 1 + at * at * 7919 % 3000).collect();
        for before in [0, 300, 10_000] {
            let packs = packs(&lengths, before);
            let mut rows: Vec<usize> = packs.iter().flatten().copied().collect();
            rows.sort_unstable();
            assert_eq!(rows, (0..500).collect::<Vec<_>>());
            for pack in &packs {
                let longest = pack.iter().map(|row| lengths[*row]).max().unwrap_or_default();
                assert!(pack.iter().all(|row| longest - lengths[*row] <= (longest / 8).max(4)), "{pack:?}");
                assert!(pack.len() == 1 || pack.len() * (before + longest) <= POSITIONS_MAX, "{pack:?}");
                assert!(pack.len() <= ROWS_MAX);
            }
        }
    }

    #[test]
    fn equal_lengths_go_together() {
        assert_eq!(packs(&[9, 200, 9, 200, 9], 0), [vec![1, 3], vec![0, 2, 4]]);
        assert_eq!(packs(&[], 0), Vec::<Vec<usize>>::new());
    }
}
