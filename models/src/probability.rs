//! A probability that is finite and in 0..=1 by construction, so that a NaN can't be compared into an allow.

use serde::Serialize;

/// Unitless, 0 ≤ p ≤ 1. `TryFrom<f32>` is the only place in the house where a NaN is met.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Probability(f32);

#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("`{0}` is not a probability: expected a finite number in 0..=1")]
pub struct NotAProbability(pub f32);

/// Softmax outputs may leave 0..=1 by rounding; anything beyond this is a defect, not rounding.
const ROUNDING: f32 = 1e-5;

impl TryFrom<f32> for Probability {
    type Error = NotAProbability;

    fn try_from(value: f32) -> Result<Self, NotAProbability> {
        if value.is_finite() && (-ROUNDING..=1.0 + ROUNDING).contains(&value) {
            Ok(Self(value.clamp(0.0, 1.0)))
        } else {
            Err(NotAProbability(value))
        }
    }
}

impl Probability {
    pub fn get(self) -> f32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_infinity_and_out_of_range_are_refused() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.1, 1.1] {
            assert!(Probability::try_from(bad).is_err(), "{bad} must be refused");
        }
    }

    #[test]
    fn rounding_is_clamped() {
        assert_eq!(Probability::try_from(1.000_001).map(Probability::get), Ok(1.0));
        assert_eq!(Probability::try_from(-0.000_001).map(Probability::get), Ok(0.0));
    }
}
