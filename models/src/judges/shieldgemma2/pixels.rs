//! From a picture to the vision tower's input.
//!
//! Reference: transformers 5.23, `Gemma3ImageProcessor` on the torchvision backend (its default), without
//! pan and scan: squashed to a square as torch resamples bytes, then `(sample − mean) / std`.

use crate::Picture;
use crate::checkpoint::preprocessor::Preprocessor;
use crate::resample::resize_like_torch;

/// Channel after channel, rows top to bottom: [3, side, side].
pub(super) fn pixels(picture: &Picture, side: usize, preprocessor: &Preprocessor) -> Vec<f32> {
    let square = squashed(picture, side);
    let Preprocessor { mean, std, .. } = preprocessor;
    let mut samples = Vec::with_capacity(3 * side * side);
    for (channel, (mean, std)) in mean.iter().zip(std).enumerate() {
        let levels = square.rgb().iter().skip(channel).step_by(3);
        samples.extend(levels.map(|level| (f32::from(*level) - mean) / std));
    }
    samples
}

/// All that the tower's input is made of.
pub(super) fn squashed(picture: &Picture, side: usize) -> Picture {
    resize_like_torch(picture, side as u32, side as u32)
}
