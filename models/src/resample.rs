//! Bilinear resampling with antialias of 8-bit RGB, bit for bit as Pillow's `Image.resize(…, BILINEAR)`.
//!
//! Reference: Pillow `src/libImaging/Resample.c`: a triangle filter widened by the scale when
//! shrinking, weights rounded to 22 fractional bits, rows first, each pass rounded to 8 bits.

use crate::Picture;

const PRECISION_BITS: u32 = 32 - 8 - 2;

/// The inputs that one output sample is made of.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// Aspect ratio is not kept: the whole picture is squashed into `width` × `height`.
pub fn resize(picture: &Picture, width: u32, height: u32) -> Picture {
    let (from_width, from_height) = (picture.width() as usize, picture.height() as usize);
    let (to_width, to_height) = (width.max(1) as usize, height.max(1) as usize);
    let rows = if to_width == from_width {
        picture.rgb().to_vec()
    } else {
        across(picture.rgb(), from_width, from_height, &taps(from_width, to_width))
    };
    let rgb =
        if to_height == from_height { rows } else { down(&rows, to_width, &taps(from_height, to_height)) };
    Picture::from_pixels(to_width as u32, to_height as u32, rgb)
}

fn taps(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    // Only shrinking widens the filter; its support for a triangle is 1.
    let filter_scale = scale.max(1.0);
    let support = filter_scale;
    (0..to)
        .map(|at| {
            let center = (at as f64 + 0.5) * scale;
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let raw: Vec<f64> = (first..end)
                .map(|x| {
                    let distance = (x as f64 - center + 0.5) / filter_scale;
                    (1.0 - distance.abs()).max(0.0)
                })
                .collect();
            let total: f64 = raw.iter().sum();
            let weights = raw
                .iter()
                .map(|weight| {
                    let normal = if total == 0.0 { *weight } else { weight / total };
                    (normal * f64::from(1 << PRECISION_BITS) + 0.5) as i32
                })
                .collect();
            Taps { first, weights }
        })
        .collect()
}

fn rounded(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

const HALF: i32 = 1 << (PRECISION_BITS - 1);

fn across(rgb: &[u8], width: usize, height: usize, taps: &[Taps]) -> Vec<u8> {
    let mut out = Vec::with_capacity(taps.len() * height * 3);
    for row in rgb.chunks_exact(width * 3) {
        for tap in taps {
            let mut sum = [HALF; 3];
            let pixels = row.get(tap.first * 3..).unwrap_or_default().chunks_exact(3);
            for (pixel, weight) in pixels.zip(&tap.weights) {
                for (sum, value) in sum.iter_mut().zip(pixel) {
                    *sum += i32::from(*value) * weight;
                }
            }
            out.extend(sum.map(rounded));
        }
    }
    out
}

fn down(rgb: &[u8], width: usize, taps: &[Taps]) -> Vec<u8> {
    let stride = width * 3;
    let mut out = Vec::with_capacity(taps.len() * stride);
    let mut sums = vec![HALF; stride];
    for tap in taps {
        sums.fill(HALF);
        let rows = rgb.chunks_exact(stride).skip(tap.first);
        for (row, weight) in rows.zip(&tap.weights) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += i32::from(*value) * weight;
            }
        }
        out.extend(sums.iter().map(|sum| rounded(*sum)));
    }
    out
}
