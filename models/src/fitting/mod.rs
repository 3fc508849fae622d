//! Fitting of linear heads on features: logistic regression, its calibration, and both over folds.
//!
//! Pure, in f64, sequential: the same rows give the same bits at every run. What the features are of, this
//! module does not know.

mod error;
mod folds;
mod logistic;
mod platt;
mod rows;
mod stages;

pub use error::FitError;
pub use folds::folds;
pub use logistic::{Classes, Example, Fit, Linear, fit};
pub use platt::{Platt, calibrate};
pub use rows::Rows;
pub use stages::{Fitted, Known, OutOfFold, Recipe, fit_all};
