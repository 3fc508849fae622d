//! PDQ, Meta's perceptual hash: 256 bits that differ little between pictures that look alike, and a
//! quality that says whether the picture has enough structure for the hash to mean anything.
//!
//! After the published description (T. Davis, *The PDQ photo-hashing algorithm*, 2019, Meta's
//! ThreatExchange project): luma, twice a box filter along both axes, every 64th of a side sampled, a
//! discrete cosine transform of which 16 × 16 coefficients are kept, each compared with their median. Sums
//! run in single precision and in the reference's order, so that the bits are the reference's. As Meta's
//! own tool does, a picture with a side over 512 is first sampled down to 512 × 512.

use serde::{Deserialize, Serialize};
use shieldgate_models::Picture;

/// Where the reference begins to sample, and the side it samples to.
const SAMPLED: usize = 512;
const BLOCK: usize = 64;
const KEPT: usize = 16;
/// What hashing needs at most, in bytes: two planes, and little beside.
pub(super) const MEMORY: u64 = (2 * SAMPLED * SAMPLED * 4 + 64 * 1024) as u64;
/// The reference hashes nothing smaller.
const SIDE_MIN: u32 = 5;

/// Matching against a list of hashes means a distance of at most 31 of 256 bits, at a quality of 50 or
/// more: below that, flat pictures match each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pdq {
    /// Most significant byte first, as the reference writes it.
    pub hash: [u8; 32],
    /// 0 to 100.
    pub quality: u8,
}

impl Pdq {
    /// `None` where a side is shorter than 5 pixels.
    pub fn of(picture: &Picture) -> Option<Self> {
        if picture.width().min(picture.height()) < SIDE_MIN {
            return None;
        }
        let mut plane = Plane::sampled(picture);
        let block = plane.block();
        let quality = quality(&block);
        Some(Self { hash: bits(&coefficients(&block)), quality })
    }

    /// Bits that differ.
    pub fn distance(&self, other: &Self) -> u32 {
        self.hash.iter().zip(other.hash).map(|(a, b)| (a ^ b).count_ones()).sum()
    }
}

/// 64 hex digits.
impl std::fmt::Display for Pdq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.hash.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

type Block = [[f32; BLOCK]; BLOCK];

/// Luma, rows top to bottom.
struct Plane {
    width: usize,
    height: usize,
    luma: Vec<f32>,
}

impl Plane {
    fn sampled(picture: &Picture) -> Self {
        let (from_width, from_height) = (picture.width() as usize, picture.height() as usize);
        let (width, height) = if from_width.max(from_height) > SAMPLED {
            (SAMPLED, SAMPLED)
        } else {
            (from_width, from_height)
        };
        let pixels = picture.rgb().as_chunks::<3>().0;
        let columns: Vec<usize> = (0..width).map(|x| x * from_width / width).collect();
        let mut luma = Vec::with_capacity(width * height);
        for y in 0..height {
            let row = &pixels[y * from_height / height * from_width..][..from_width];
            luma.extend(columns.iter().map(|&x| {
                let [r, g, b] = row[x];
                0.299 * f32::from(r) + 0.587 * f32::from(g) + 0.114 * f32::from(b)
            }));
        }
        Self { width, height, luma }
    }

    /// Blurred and decimated.
    fn block(&mut self) -> Block {
        if (self.width, self.height) != (BLOCK, BLOCK) {
            let mut other = vec![0.0; self.luma.len()];
            for _ in 0..2 {
                box_along_rows(&self.luma, &mut other, self.width);
                box_along_columns(&other, &mut self.luma, self.width, self.height);
            }
        }
        let centre = |i: usize, side: usize| ((i as f64 + 0.5) * side as f64 / BLOCK as f64) as usize;
        let mut block = [[0.0; BLOCK]; BLOCK];
        for (i, row) in block.iter_mut().enumerate() {
            let from = &self.luma[centre(i, self.height) * self.width..][..self.width];
            for (j, value) in row.iter_mut().enumerate() {
                *value = from[centre(j, self.width)];
            }
        }
        block
    }
}

/// Where a sliding window over `side` values stands for each output: what enters, what leaves, its size.
fn windows(side: usize) -> impl Iterator<Item = (std::ops::Range<usize>, Option<usize>, f32)> {
    let full = side.div_ceil(2 * BLOCK);
    let ahead = full.midpoint(2) - 1;
    let behind = full - 1 - ahead;
    (0..side).map(move |at| {
        let enters = if at == 0 {
            0..(ahead + 1).min(side)
        } else {
            (at + ahead).min(side)..(at + ahead + 1).min(side)
        };
        let leaves = (at > behind).then(|| at - behind - 1);
        let size = (at + ahead + 1).min(side) - at.saturating_sub(behind);
        (enters, leaves, size as f32)
    })
}

fn box_along_rows(from: &[f32], to: &mut [f32], width: usize) {
    for (from, to) in from.chunks_exact(width).zip(to.chunks_exact_mut(width)) {
        let mut sum = 0.0;
        for ((enters, leaves, size), out) in windows(width).zip(to) {
            enters.for_each(|i| sum += from[i]);
            if let Some(i) = leaves {
                sum -= from[i];
            }
            *out = sum / size;
        }
    }
}

/// All columns at once, so that memory is read in its order.
fn box_along_columns(from: &[f32], to: &mut [f32], width: usize, height: usize) {
    let mut sums = vec![0.0; width];
    let row = |y: usize| &from[y * width..][..width];
    for ((enters, leaves, size), out) in windows(height).zip(to.chunks_exact_mut(width)) {
        for y in enters {
            sums.iter_mut().zip(row(y)).for_each(|(sum, value)| *sum += value);
        }
        if let Some(y) = leaves {
            sums.iter_mut().zip(row(y)).for_each(|(sum, value)| *sum -= value);
        }
        out.iter_mut().zip(&sums).for_each(|(out, sum)| *out = sum / size);
    }
}

/// How much neighbours differ, counted in whole hundredths so that faint noise does not count.
fn quality(block: &Block) -> u8 {
    let steps = |a: f32, b: f32| ((a - b) * 100.0 / 255.0).trunc().abs() as u32;
    let down = block.windows(2).flat_map(|rows| rows[0].iter().zip(&rows[1]).map(|(a, b)| steps(*a, *b)));
    let across = block.iter().flat_map(|row| row.windows(2).map(|pair| steps(pair[0], pair[1])));
    (down.chain(across).sum::<u32>() / 90).min(100) as u8
}

/// The cosine transform's coefficients 1 to 16 in both directions.
fn coefficients(block: &Block) -> [[f32; KEPT]; KEPT] {
    let scale = f64::from((2.0 / BLOCK as f64).sqrt() as f32);
    let mut matrix = [[0f32; BLOCK]; KEPT];
    for (i, row) in matrix.iter_mut().enumerate() {
        for (j, value) in row.iter_mut().enumerate() {
            let angle = std::f64::consts::PI / 2.0 / BLOCK as f64 * (i + 1) as f64 * (2 * j + 1) as f64;
            *value = (scale * angle.cos()) as f32;
        }
    }
    let mut rows = [[0f32; BLOCK]; KEPT];
    for (row, weights) in rows.iter_mut().zip(&matrix) {
        for (weight, from) in weights.iter().zip(block) {
            row.iter_mut().zip(from).for_each(|(sum, value)| *sum += weight * value);
        }
    }
    rows.map(|row| matrix.map(|weights| row.iter().zip(weights).fold(0.0, |sum, (a, b)| sum + a * b)))
}

fn bits(coefficients: &[[f32; KEPT]; KEPT]) -> [u8; 32] {
    let mut sorted = coefficients.as_flattened().to_vec();
    // The lower of the two in the middle, as the reference's algorithm finds it.
    let middle = sorted.len() / 2 - 1;
    let (_, median, _) = sorted.select_nth_unstable_by(middle, f32::total_cmp);
    let median = *median;
    let mut hash = [0; 32];
    for (k, value) in coefficients.as_flattened().iter().enumerate() {
        if *value > median {
            hash[31 - k / 8] |= 1 << (k % 8);
        }
    }
    hash
}
