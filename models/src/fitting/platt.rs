//! Platt's calibration: `probability = σ(scale · logit + offset)`, fitted on rows that the head has not seen.
//!
//! By Newton's method as Lin, Lin and Weng give it (2007), with Platt's targets: a class of n rows is never
//! called certain, but `1 − 1/(n + 2)`, so that a head which separates all rows stays finite.

use super::FitError;
use super::logistic::{sigmoid, softplus};

const STEPS_MAX: usize = 100;
const HALVINGS_MAX: i32 = 40;
const TOLERANCE: f64 = 1e-10;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Platt {
    pub scale: f64,
    pub offset: f64,
}

impl Platt {
    pub fn probability(&self, logit: f64) -> f64 {
        sigmoid(self.scale * logit + self.offset)
    }
}

/// A head whose answers fall where the label rises is refused: calibration would hide it by turning it over.
pub fn calibrate(logits: &[f64], positive: &[bool]) -> Result<Platt, FitError> {
    if logits.len() != positive.len() {
        return Err(FitError::Count { what: "labels", expected: logits.len(), found: positive.len() });
    }
    if let Some(row) = logits.iter().position(|logit| !logit.is_finite()) {
        return Err(FitError::NotFinite { row, column: 0 });
    }
    let positives = positive.iter().filter(|positive| **positive).count();
    let negatives = positive.len() - positives;
    if positives == 0 || negatives == 0 {
        return Err(FitError::OneClass { rows: positive.len(), positive: positives > 0 });
    }
    let (positives, negatives) = (positives as f64, negatives as f64);
    let target = |positive: bool| {
        if positive { (positives + 1.0) / (positives + 2.0) } else { 1.0 / (negatives + 2.0) }
    };
    // Of one size, whatever the logits' is.
    let size = (logits.iter().map(|x| x * x).sum::<f64>() / logits.len() as f64).sqrt();
    if size == 0.0 {
        return Err(FitError::Backwards { scale: 0.0 });
    }
    let rows: Vec<(f64, f64)> =
        logits.iter().zip(positive).map(|(logit, positive)| (logit / size, target(*positive))).collect();
    let mut here = Look::at(&rows, [0.0, ((positives + 1.0) / (negatives + 1.0)).ln()]);
    let wanted = TOLERANCE * rows.len() as f64;
    for steps in 0..STEPS_MAX {
        if here.steepness() <= wanted {
            let [scale, offset] = here.place;
            let scale = scale / size;
            return if scale > 0.0 {
                Ok(Platt { scale, offset })
            } else {
                Err(FitError::Backwards { scale })
            };
        }
        let step = here.step();
        let slope = step[0] * here.gradient[0] + step[1] * here.gradient[1];
        let better = (0..HALVINGS_MAX).find_map(|halving| {
            let part = 0.5_f64.powi(halving);
            let [scale, offset] = here.place;
            let there = Look::at(&rows, [scale + part * step[0], offset + part * step[1]]);
            let flat = there.loss <= here.loss + 1e-13 * here.loss && there.steepness() < here.steepness();
            (there.loss <= here.loss + 1e-4 * part * slope || flat).then_some(there)
        });
        match better {
            Some(there) => here = there,
            None => return Err(FitError::NotConverged { gradient: here.steepness(), wanted, steps }),
        }
    }
    Err(FitError::NotConverged { gradient: here.steepness(), wanted, steps: STEPS_MAX })
}

/// The loss at one scale and offset.
struct Look {
    place: [f64; 2],
    loss: f64,
    gradient: [f64; 2],
    /// Of its second derivatives: by scale twice, by both, by offset twice.
    curvature: [f64; 3],
}

impl Look {
    fn at(rows: &[(f64, f64)], place: [f64; 2]) -> Self {
        let [scale, offset] = place;
        let mut look = Self { place, loss: 0.0, gradient: [0.0; 2], curvature: [0.0; 3] };
        for (logit, target) in rows {
            let made = scale * logit + offset;
            look.loss += softplus(made) - target * made;
            let p = sigmoid(made);
            let (wrong, bend) = (p - target, p * (1.0 - p));
            look.gradient[0] += wrong * logit;
            look.gradient[1] += wrong;
            look.curvature[0] += bend * logit * logit;
            look.curvature[1] += bend * logit;
            look.curvature[2] += bend;
        }
        look
    }

    fn steepness(&self) -> f64 {
        self.gradient[0].hypot(self.gradient[1])
    }

    fn step(&self) -> [f64; 2] {
        // Logits that are all alike leave one direction flat.
        let [a, b, d] = [self.curvature[0] + 1e-12, self.curvature[1], self.curvature[2] + 1e-12];
        let [g, h] = self.gradient;
        let determinant = a * d - b * b;
        [(b * h - d * g) / determinant, (b * g - a * h) / determinant]
    }
}
