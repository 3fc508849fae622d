//! Block-quantised weights as ONNX Runtime's `MatMulNBits` and `GatherBlockQuantized` take them.
//!
//! | stored | packed as | difference to the dequantised numbers |
//! | --- | --- | --- |
//! | Q4_0 | 4 bits, blocks of 32 | none |
//! | Q5_0, Q8_0 | 8 bits, blocks of 32 | none |
//! | Q6_K | 8 bits, blocks of 16 | none |
//! | Q4_K, Q5_K | 8 bits, blocks of 32, zero points | at most 1/34 (Q4_K) or 1/16 (Q5_K) of a step where the minimum is within the range of the quants |
//!
//! Q4_K and Q5_K subtract a minimum that is no multiple of the scale. `MatMulNBits` takes such a zero
//! point as a float with 4 bits only, and then unpacks the weight for every call (25 × slower for one row,
//! ONNX Runtime 1.32 on CPU). So the scale is divided by the whole number up to 17 (8 for five bits) that
//! brings the minimum closest to a multiple: relative L2 0.002 on the real Gemma 3 270M, where plain
//! rounding to 8 bits has 0.0056 and the activations' own rounding at accuracy level 4 has 0.005.

use super::block::{Group, Offset, Stored, groups};

/// A matrix of weights in blocks along its rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Packed {
    /// `N` of `MatMulNBits`.
    pub rows: usize,
    /// `K` of `MatMulNBits`.
    pub columns: usize,
    pub form: PackedForm,
    /// `rows × columns / block × (block × bits / 8)` bytes; of two weights in a byte, the first is low.
    pub weights: Vec<u8>,
    /// `rows × columns / block`
    pub scales: Vec<f32>,
    /// As many as scales, or empty: then each is `2^(bits - 1)`, which is what an absent input means to
    /// `MatMulNBits`; `GatherBlockQuantized` with 8 bits takes it likewise.
    pub zero_points: Vec<u8>,
}

/// How the weights of a type are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedForm {
    pub bits: usize,
    pub block: usize,
    pub zero_points: bool,
}

impl Stored {
    /// None for plain numbers, which need no packing.
    pub fn packed_form(self) -> Option<PackedForm> {
        let form = |bits, block, zero_points| Some(PackedForm { bits, block, zero_points });
        match self {
            Self::F32 | Self::F16 | Self::BF16 => None,
            Self::Q4_0 => form(4, 32, false),
            Self::Q5_0 | Self::Q8_0 => form(8, 32, false),
            Self::Q6K => form(8, 16, false),
            Self::Q4K | Self::Q5K => form(8, 32, true),
        }
    }
}

impl Packed {
    pub(super) fn new(form: PackedForm, rows: usize, columns: usize) -> Self {
        let blocks = rows * columns / form.block;
        Self {
            rows,
            columns,
            form,
            weights: Vec::with_capacity(rows * columns * form.bits / 8),
            scales: Vec::with_capacity(blocks),
            zero_points: Vec::with_capacity(if form.zero_points { blocks } else { 0 }),
        }
    }

    /// Whole blocks as the file has them, appended.
    pub(super) fn push(&mut self, stored: Stored, bytes: &[u8]) {
        groups(stored, bytes, |group| self.group(&group));
    }

    fn group(&mut self, group: &Group<'_>) {
        match group.offset {
            Offset::Centre(_) if self.form.bits == 4 => {
                self.weights.extend(group.quants.chunks_exact(2).map(|two| two[0] | two[1] << 4));
                self.scales.push(group.scale);
            }
            Offset::Centre(centre) => {
                let shift = 128 - centre;
                self.weights.extend(group.quants.iter().map(|quant| quant + shift));
                self.scales.push(group.scale);
            }
            Offset::Minimum(minimum) => self.with_minimum(group, minimum),
        }
    }

    fn with_minimum(&mut self, group: &Group<'_>, minimum: f32) {
        if !(group.scale.is_finite() && minimum.is_finite()) {
            // For `is_finite` to find.
            self.scales.push(f32::NAN);
            return;
        }
        let top = group.quants.iter().copied().max().unwrap_or(0).max(1);
        if group.scale == 0.0 {
            // All are `-minimum`, and so is (0 - 1) × minimum.
            self.weights.extend(group.quants.iter().map(|_| 0));
            self.scales.push(minimum);
            self.zero_points.push(1);
        } else if let Some((times, zero_point)) =
            closest_multiple(f64::from(minimum) / f64::from(group.scale), top)
        {
            self.weights.extend(group.quants.iter().map(|quant| quant * times));
            self.scales.push(group.scale / f32::from(times));
            self.zero_points.push(zero_point);
        } else {
            // No zero point reaches so far: rounded anew, to 1/254 of the largest.
            let mut numbers = Vec::with_capacity(group.quants.len());
            group.extend(&mut numbers);
            let scale = numbers.iter().fold(0f32, |most, number| most.max(number.abs())) / 127.0;
            let quant = |number: &f32| (number / scale).round().clamp(-127.0, 127.0) as i8;
            self.weights.extend(numbers.iter().map(|number| quant(number).cast_unsigned() ^ 128));
            self.scales.push(scale);
            self.zero_points.push(128);
        }
    }

    /// That every scale is a number: where one is not, the rest may be incomplete.
    pub(super) fn is_finite(&self) -> bool {
        self.scales.iter().all(|scale| scale.is_finite())
    }

    /// What the operators make of it.
    pub fn dequantise(&self) -> Vec<f32> {
        let PackedForm { bits, block, .. } = self.form;
        let quant = |at: usize| match bits {
            4 => self.weights[at / 2] >> (at % 2 * 4) & 15,
            _ => self.weights[at],
        };
        let number = |at: usize| {
            let zero_point = self.zero_points.get(at / block).copied().unwrap_or(1 << (bits - 1));
            f32::from(i16::from(quant(at)) - i16::from(zero_point)) * self.scales[at / block]
        };
        (0..self.rows * self.columns).map(number).collect()
    }
}

/// The whole number `times` that makes `ratio × times` most nearly whole, and what it makes; neither
/// it nor `times × top` beyond a byte. None where `ratio` is.
fn closest_multiple(ratio: f64, top: u8) -> Option<(u8, u8)> {
    let mut best: Option<(f64, u8, u8)> = None;
    for times in 1..=u8::MAX / top {
        let zero_point = (ratio * f64::from(times)).round();
        if !(0.0..=255.0).contains(&zero_point) {
            continue;
        }
        let error = (zero_point / f64::from(times) - ratio).abs();
        if best.is_none_or(|(least, ..)| error < least) {
            best = Some((error, times, zero_point as u8));
        }
    }
    best.map(|(_, times, zero_point)| (times, zero_point))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(quants: &[u8], scale: f32, minimum: f32) -> Packed {
        let form = PackedForm { bits: 8, block: 32, zero_points: true };
        let mut packed = Packed::new(form, 1, 32);
        packed.group(&Group { quants, scale, offset: Offset::Minimum(minimum) });
        packed
    }

    #[test]
    fn a_minimum_between_two_steps_is_met_closely() {
        let quants: Vec<u8> = (0..32).map(|at| at % 16).collect();
        for (scale, minimum) in [(0.5, 3.7), (0.01, 0.0), (0.013, 0.1), (1.0, 200.0), (-0.5, -3.3)] {
            let packed = packed(&quants, scale, minimum);
            assert_ne!(packed.zero_points, [128], "{scale} {minimum}");
            for (number, quant) in packed.dequantise().iter().zip(&quants) {
                let error = (number - (scale * f32::from(*quant) - minimum)).abs();
                let bound = if minimum.abs() > 15.0 * scale.abs() { 0.5 } else { 1.0 / 34.0 };
                assert!(error <= bound * scale.abs() + 1e-6, "{scale} {minimum}: {error}");
            }
        }
    }

    #[test]
    fn blocks_without_a_scale_or_with_a_distant_minimum_keep_their_numbers() {
        let quants: Vec<u8> = (0..32).map(|at| at % 16).collect();
        assert_eq!(packed(&quants, 0.0, 0.3).dequantise(), [-0.3; 32]);
        for (scale, minimum) in [(0.01, 5.0), (0.01, -0.5)] {
            let packed = packed(&quants, scale, minimum);
            assert_eq!(packed.zero_points, [128]);
            for (number, quant) in packed.dequantise().iter().zip(&quants) {
                let expected = scale * f32::from(*quant) - minimum;
                assert!((number - expected).abs() <= 5.0 / 250.0, "{number} {expected}");
            }
        }
        assert!(!packed(&quants, f32::NAN, 1.0).is_finite());
        assert!(!packed(&quants, f32::INFINITY, 1.0).is_finite());
    }
}
