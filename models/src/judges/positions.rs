//! Where positions are and what they see: rotary tables and additive masks for one pass of the decoder.
//!
//! Reference: transformers 5.23, `Gemma3RotaryEmbedding` and `create_masks_for_vision_model`.

use std::ops::Range;

use crate::checkpoint::config::{LayerKind, Rope, TextConfig};

/// Added to the scores of what may not be seen; every row sees at least itself, so no row is all masked.
const UNSEEN: f32 = f32::MIN;

/// A run of positions with those before it.
#[derive(Debug, Clone)]
pub(super) struct Span {
    /// Positions whose keys and values are known already.
    pub(super) past: usize,
    /// Positions of this pass.
    pub(super) length: usize,
    /// Where the image is among all positions.
    pub(super) image: Range<usize>,
}

impl Span {
    /// [length, past + length]. Global layers: OR(causal, same image); local layers: AND(window, that).
    pub(super) fn mask(&self, kind: LayerKind, window: usize) -> Vec<f32> {
        let total = self.past + self.length;
        let mut mask = Vec::with_capacity(self.length * total);
        for query in self.past..total {
            let in_image = self.image.contains(&query);
            mask.extend((0..total).map(|key| {
                let seen = key <= query || (in_image && self.image.contains(&key));
                let near = kind == LayerKind::Global || key + window > query;
                if seen && near { 0.0 } else { UNSEEN }
            }));
        }
        mask
    }

    /// Cosines and sines of every position of this pass, [length, head_dim / 2] each.
    pub(super) fn rotations(&self, rope: Rope, head_dim: usize) -> [Vec<f32>; 2] {
        let frequencies = frequencies(rope, head_dim);
        let angles = (self.past..self.past + self.length).flat_map(|position| {
            // Single precision, as the reference multiplies.
            frequencies.iter().map(move |frequency| f64::from(position as f32 * frequency))
        });
        let (cos, sin) = angles.map(|angle| (angle.cos() as f32, angle.sin() as f32)).unzip();
        [cos, sin]
    }
}

/// `1 / base^(2i / head_dim) / factor`, rounded to single precision where the reference rounds.
fn frequencies(rope: Rope, head_dim: usize) -> Vec<f32> {
    (0..head_dim / 2)
        .map(|at| {
            let exponent = (2 * at) as f32 / head_dim as f32;
            1.0 / (rope.base.powf(f64::from(exponent)) as f32) / rope.factor as f32
        })
        .collect()
}

/// The two kinds of layers' tables.
pub(super) struct Tables {
    pub(super) cos: Vec<f32>,
    pub(super) sin: Vec<f32>,
    pub(super) mask: Vec<f32>,
}

impl Tables {
    pub(super) fn of(span: &Span, kind: LayerKind, text: &TextConfig) -> Self {
        let rope = match kind {
            LayerKind::Global => text.global_rope,
            LayerKind::Local => text.local_rope,
        };
        let [cos, sin] = span.rotations(rope, text.head_dim);
        Self { cos, sin, mask: span.mask(kind, text.window) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(span: &Span, kind: LayerKind, window: usize) -> Vec<String> {
        let mask = span.mask(kind, window);
        mask.chunks(span.past + span.length)
            .map(|row| row.iter().map(|seen| if *seen == 0.0 { 'x' } else { '.' }).collect())
            .collect()
    }

    #[test]
    fn image_tokens_see_each_other_and_windows_cut_only_the_past() {
        let whole = Span { past: 0, length: 6, image: 1..4 };
        assert_eq!(
            seen(&whole, LayerKind::Global, 2),
            ["x.....", "xxxx..", "xxxx..", "xxxx..", "xxxxx.", "xxxxxx"]
        );
        assert_eq!(
            seen(&whole, LayerKind::Local, 2),
            ["x.....", "xxxx..", ".xxx..", "..xx..", "...xx.", "....xx"]
        );
    }

    #[test]
    fn a_span_after_a_past_sees_what_the_whole_would() {
        let whole = Span { past: 0, length: 9, image: 2..5 };
        let rest = Span { past: 6, length: 3, image: 2..5 };
        for kind in [LayerKind::Global, LayerKind::Local] {
            assert_eq!(seen(&whole, kind, 4)[6..], seen(&rest, kind, 4));
        }
        let rope = Rope { base: 10_000.0, factor: 8.0 };
        assert_eq!(whole.rotations(rope, 8)[1][6 * 4..], rest.rotations(rope, 8)[1]);
    }
}
