//! Features of many contents in one block of memory, a row each.

use super::FitError;

/// All finite, all of one length.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    columns: usize,
    count: usize,
    numbers: Vec<f32>,
}

impl Rows {
    pub fn new(columns: usize) -> Self {
        Self { columns, count: 0, numbers: Vec::new() }
    }

    pub fn push(&mut self, row: &[f32]) -> Result<(), FitError> {
        if row.len() != self.columns {
            return Err(FitError::Columns { row: self.count, expected: self.columns, found: row.len() });
        }
        if let Some(column) = row.iter().position(|number| !number.is_finite()) {
            return Err(FitError::NotFinite { row: self.count, column });
        }
        self.numbers.extend_from_slice(row);
        self.count += 1;
        Ok(())
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// Empty where there is none of that number.
    pub fn row(&self, row: usize) -> &[f32] {
        self.numbers.get(row * self.columns..(row + 1) * self.columns).unwrap_or_default()
    }
}

/// Eight sums side by side, for a single one would wait for each addition; always in the same order.
pub(super) fn dot(row: &[f32], weights: &[f64]) -> f64 {
    const LANES: usize = 8;
    let ((rows, rest), (weighted, of_rest)) = (row.as_chunks::<LANES>(), weights.as_chunks::<LANES>());
    let mut lanes = [0.0; LANES];
    for (row, weights) in rows.iter().zip(weighted) {
        // An array, or the compiler does one after the other.
        let products: [f64; LANES] = std::array::from_fn(|at| f64::from(row[at]) * weights[at]);
        lanes.iter_mut().zip(products).for_each(|(lane, product)| *lane += product);
    }
    let rest: f64 = rest.iter().zip(of_rest).map(|(x, w)| f64::from(*x) * w).sum();
    lanes.iter().sum::<f64>() + rest
}

/// `sums += factor · row`
pub(super) fn add_scaled(sums: &mut [f64], factor: f64, row: &[f32]) {
    for (sum, x) in sums.iter_mut().zip(row) {
        *sum += factor * f64::from(*x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_row_is_refused() {
        let mut rows = Rows::new(2);
        rows.push(&[1.0, 2.0]).expect("a row");
        assert_eq!(rows.push(&[1.0]), Err(FitError::Columns { row: 1, expected: 2, found: 1 }));
        assert_eq!(rows.push(&[1.0, f32::NAN]), Err(FitError::NotFinite { row: 1, column: 1 }));
        assert_eq!(rows.push(&[f32::INFINITY, 1.0]), Err(FitError::NotFinite { row: 1, column: 0 }));
        assert_eq!((rows.count(), rows.row(0), rows.row(1)), (1, &[1.0, 2.0][..], &[][..]));
    }

    #[test]
    fn sums_take_every_number() {
        let row: Vec<f32> = (1_u8..=19).map(f32::from).collect();
        let weights: Vec<f64> = (1_u8..=19).map(f64::from).collect();
        assert_eq!(dot(&row, &weights), 2470.0);
        let mut sums = weights.clone();
        add_scaled(&mut sums, 2.0, &row);
        assert!(sums.iter().zip(&weights).all(|(sum, weight)| *sum == 3.0 * weight));
    }
}
