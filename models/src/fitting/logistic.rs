//! Logistic regression: minimises `½|w|² + C Σ weight · loss` over standardised features, by Newton's method.
//!
//! The convention is scikit-learn's `LogisticRegression`: the intercept is free. Newton's steps are solved by
//! conjugate gradients, so that a step needs some passes over the rows and no matrix of columns by columns.
//! Features are standardised on the fly: the rows are never copied, and folds can share them.

use super::FitError;
use super::rows::{Rows, add_scaled, dot};

/// The gradient's length at the end, as a part of that at the start or of 1. The objective curves as `½|w|²`
/// does at least, so the weights are then about as near to the best ones.
const TOLERANCE: f64 = 1e-9;

const STEPS_MAX: usize = 100;

/// Passes over the rows in one step.
const PASSES_MAX: usize = 500;

/// A step that makes nothing better is halved so often.
const HALVINGS_MAX: usize = 30;

/// One row of a fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Example {
    /// Its number in [`Rows`].
    pub row: usize,
    pub positive: bool,
    /// How often it counts; 1 for most.
    pub weight: f64,
    /// One more feature, taken as it is; 0 where there is none.
    pub beside: f64,
}

/// How positives and negatives count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Classes {
    #[default]
    AsTheyAre,
    /// Both the same together.
    Balanced,
}

/// `weights · row + bias`, over features as they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    pub weights: Vec<f64>,
    pub bias: f64,
    /// Where the rows of its fit lie.
    centre: Vec<f64>,
}

/// What a fit found.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    pub linear: Linear,
    /// The weight of [`Example::beside`].
    pub beside: f64,
    pub steps: usize,
    /// Over the rows, for each a multiplication with every feature there and one back.
    pub passes: usize,
}

impl Linear {
    pub fn logit(&self, row: &[f32]) -> f64 {
        dot(row, &self.weights) + self.bias
    }

    /// As heads hold it. The bias makes good what the rounding of the weights does to the average row.
    pub fn rounded(&self) -> Result<(Vec<f32>, f32), FitError> {
        let weights: Vec<f32> = self.weights.iter().map(|weight| *weight as f32).collect();
        let each = self.weights.iter().zip(&weights).zip(&self.centre);
        let lost: f64 = each.map(|((exact, rounded), x)| (exact - f64::from(*rounded)) * x).sum();
        let bias = (self.bias + lost) as f32;
        if bias.is_finite() && weights.iter().all(|weight| weight.is_finite()) {
            Ok((weights, bias))
        } else {
            Err(FitError::NotRepresentable)
        }
    }

    /// `self + factor · other`
    pub(super) fn plus(&self, factor: f64, other: &Self) -> Self {
        let weights = self.weights.iter().zip(&other.weights).map(|(own, of)| own + factor * of).collect();
        Self { weights, bias: self.bias + factor * other.bias, centre: self.centre.clone() }
    }
}

/// `c` is the weight of the loss against that of the regularisation.
pub fn fit(rows: &Rows, examples: &[Example], c: f64, classes: Classes) -> Result<Fit, FitError> {
    let problem = Problem::new(rows, examples, c, classes)?;
    let mut at = vec![0.0; rows.columns() + 2];
    let mut here = problem.look(&at);
    let mut passes = 1;
    let wanted = TOLERANCE * norm(&here.gradient).max(1.0);
    let first = norm(&here.gradient);
    for steps in 0..STEPS_MAX {
        let length = norm(&here.gradient);
        if length <= wanted {
            return Ok(problem.folded(&at, steps, passes));
        }
        // Far from the end a rough direction does as well.
        let exact = (length / first.max(1.0)).sqrt().min(0.1) * length;
        let (direction, of_step) = problem.direction(&here, exact);
        passes += of_step;
        let slope = inner(&here.gradient, &direction);
        let mut size = 1.0;
        let mut better = None;
        for _ in 0..HALVINGS_MAX {
            let next: Vec<f64> = at.iter().zip(&direction).map(|(x, step)| x + size * step).collect();
            let there = problem.look(&next);
            passes += 1;
            // Near the end the loss is flat to its last digit, and only the gradient tells.
            let flat = there.loss <= here.loss + 1e-13 * here.loss.abs() && norm(&there.gradient) < length;
            if there.loss <= here.loss + 1e-4 * size * slope || flat {
                better = Some((next, there));
                break;
            }
            size /= 2.0;
        }
        match better {
            Some((next, there)) => (at, here) = (next, there),
            None => return Err(FitError::NotConverged { gradient: length, wanted, steps }),
        }
    }
    Err(FitError::NotConverged { gradient: norm(&here.gradient), wanted, steps: STEPS_MAX })
}

/// The rows as the method sees them.
struct Problem<'a> {
    rows: &'a Rows,
    examples: Vec<Weighted>,
    /// Of each column.
    mean: Vec<f64>,
    /// One over the standard deviation; 0 for a column that is constant, whose weight stays 0.
    inverse: Vec<f64>,
}

/// An [`Example`] with everything that its loss is multiplied with.
struct Weighted {
    row: usize,
    positive: bool,
    weight: f64,
    beside: f64,
}

/// The objective at one place: weights of the standardised columns, of what stands beside them, intercept.
struct Look {
    loss: f64,
    gradient: Vec<f64>,
    /// Of each row's loss.
    curvature: Vec<f64>,
}

impl<'a> Problem<'a> {
    fn new(rows: &'a Rows, examples: &[Example], c: f64, classes: Classes) -> Result<Self, FitError> {
        let setting = |what, found: f64, expected| Err(FitError::Setting { what, found, expected });
        if !(c.is_finite() && c > 0.0) {
            return setting("C", c, "a number above 0");
        }
        let mut of_class = [0.0; 2];
        for example in examples {
            if example.row >= rows.count() {
                return Err(FitError::NoRow { row: example.row, rows: rows.count() });
            }
            if !(example.weight.is_finite() && example.weight >= 0.0) {
                return setting("the weight of a row", example.weight, "a number not below 0");
            }
            if !example.beside.is_finite() {
                return setting("the feature beside a row", example.beside, "a finite number");
            }
            let [negative, positive] = &mut of_class;
            *(if example.positive { positive } else { negative }) += example.weight;
        }
        let [negative, positive] = of_class;
        if negative == 0.0 || positive == 0.0 {
            return Err(FitError::OneClass { rows: examples.len(), positive: positive > 0.0 });
        }
        let total = negative + positive;
        let of_class = |is_positive: bool| match classes {
            Classes::AsTheyAre => 1.0,
            Classes::Balanced => total / (2.0 * if is_positive { positive } else { negative }),
        };
        let examples = examples.iter().map(|example| Weighted {
            row: example.row,
            positive: example.positive,
            weight: c * example.weight * of_class(example.positive),
            beside: example.beside,
        });
        let examples: Vec<Weighted> = examples.collect();
        let (mean, inverse) = scales(rows, examples.iter().map(|example| example.row));
        Ok(Self { rows, examples, mean, inverse })
    }

    /// One pass over the rows. `each` gets an example and what `x` makes of it, and says how much of the
    /// example there is in the sum that comes back.
    fn pass(&self, x: &[f64], mut each: impl FnMut(usize, &Weighted, f64) -> f64) -> Vec<f64> {
        let columns = self.rows.columns();
        let scaled: Vec<f64> = x.iter().zip(&self.inverse).map(|(x, inverse)| x * inverse).collect();
        let (beside, intercept) = (at(x, columns), at(x, columns + 1));
        let shift = intercept - inner(&scaled, &self.mean);
        let mut sums = vec![0.0; columns];
        let (mut of_beside, mut of_intercept) = (0.0, 0.0);
        for (number, example) in self.examples.iter().enumerate() {
            let row = self.rows.row(example.row);
            let made = dot(row, &scaled) + beside * example.beside + shift;
            let factor = each(number, example, made);
            add_scaled(&mut sums, factor, row);
            of_beside += factor * example.beside;
            of_intercept += factor;
        }
        for ((sum, mean), inverse) in sums.iter_mut().zip(&self.mean).zip(&self.inverse) {
            *sum = (*sum - mean * of_intercept) * inverse;
        }
        sums.extend([of_beside, of_intercept]);
        sums
    }

    fn look(&self, x: &[f64]) -> Look {
        let penalised = x.get(..self.rows.columns() + 1).unwrap_or_default();
        let mut loss = inner(penalised, penalised) / 2.0;
        let mut curvature = Vec::with_capacity(self.examples.len());
        let mut gradient = self.pass(x, |_, example, logit| {
            let against = if example.positive { -logit } else { logit };
            loss += example.weight * softplus(against);
            let wrong = sigmoid(against);
            curvature.push(example.weight * wrong * (1.0 - wrong));
            example.weight * if example.positive { -wrong } else { wrong }
        });
        add_to(&mut gradient, 1.0, penalised);
        Look { loss, gradient, curvature }
    }

    /// Newton's, to where what is left of its equation is shorter than `exact`; and how many passes it took.
    fn direction(&self, here: &Look, exact: f64) -> (Vec<f64>, usize) {
        let mut direction = vec![0.0; here.gradient.len()];
        let mut left: Vec<f64> = here.gradient.iter().map(|x| -x).collect();
        let mut search = left.clone();
        let mut length = inner(&left, &left);
        for passes in 0..PASSES_MAX {
            if length.sqrt() <= exact {
                return (direction, passes);
            }
            let curved = |number: usize| here.curvature.get(number).copied().unwrap_or_default();
            let mut turned = self.pass(&search, |number, _, made| curved(number) * made);
            add_to(&mut turned, 1.0, search.get(..self.rows.columns() + 1).unwrap_or_default());
            let bend = inner(&search, &turned);
            // Flat: all rows are far out, and only the intercept is left to move.
            if bend <= 0.0 {
                break;
            }
            let size = length / bend;
            add_to(&mut direction, size, &search);
            add_to(&mut left, -size, &turned);
            let next = inner(&left, &left);
            search.iter_mut().zip(&left).for_each(|(search, left)| *search = left + next / length * *search);
            length = next;
        }
        (direction, PASSES_MAX)
    }

    /// Over features as they are.
    fn folded(&self, x: &[f64], steps: usize, passes: usize) -> Fit {
        let columns = self.rows.columns();
        let weights: Vec<f64> = x.iter().zip(&self.inverse).map(|(x, inverse)| x * inverse).collect();
        let bias = at(x, columns + 1) - inner(&weights, &self.mean);
        let linear = Linear { weights, bias, centre: self.mean.clone() };
        Fit { linear, beside: at(x, columns), steps, passes }
    }
}

/// Mean, and one over the standard deviation, of each column.
fn scales(rows: &Rows, chosen: impl Iterator<Item = usize> + Clone) -> (Vec<f64>, Vec<f64>) {
    let mut mean = vec![0.0; rows.columns()];
    let mut count = 0.0;
    for row in chosen.clone() {
        add_scaled(&mut mean, 1.0, rows.row(row));
        count += 1.0;
    }
    mean.iter_mut().for_each(|sum| *sum /= count);
    let mut variance = vec![0.0; rows.columns()];
    for row in chosen {
        for ((sum, mean), x) in variance.iter_mut().zip(&mean).zip(rows.row(row)) {
            *sum += (f64::from(*x) - mean).powi(2);
        }
    }
    let inverse = variance.iter().zip(&mean).map(|(sum, mean)| {
        let variance = sum / count;
        // Beyond this it is the rounding of the mean that varies.
        let rounding = (count * f64::EPSILON * mean).powi(2);
        if variance > rounding { 1.0 / variance.sqrt() } else { 0.0 }
    });
    let inverse = inverse.collect();
    (mean, inverse)
}

pub(super) fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// `ln(1 + eˣ)`
pub(super) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn norm(x: &[f64]) -> f64 {
    inner(x, x).sqrt()
}

fn at(x: &[f64], place: usize) -> f64 {
    x.get(place).copied().unwrap_or_default()
}

/// `to += factor · x`, as far as `x` goes.
fn add_to(to: &mut [f64], factor: f64, x: &[f64]) {
    to.iter_mut().zip(x).for_each(|(to, x)| *to += factor * x);
}
