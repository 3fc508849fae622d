//! Bilinear resampling with antialias of 8-bit RGB, bit for bit as Pillow or as torch does it.
//!
//! Both use a triangle filter widened by the scale when shrinking, rows first, each pass rounded to 8
//! bits. They differ in how weights are rounded: Pillow (`Image.resize(…, BILINEAR)`,
//! `src/libImaging/Resample.c`) to 22 fractional bits, torch (`interpolate(…, antialias=True)` of bytes,
//! which transformers' image processors use; `aten/src/ATen/native/cpu/UpSampleKernel.cpp`) to as many
//! as keep an axis' largest weight within 15 bits.

use crate::Picture;

const PILLOW_BITS: u32 = 32 - 8 - 2;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rounding {
    Pillow,
    Torch,
}

/// The taps of one axis and the fractional bits of their weights.
struct Axis {
    taps: Vec<Taps>,
    bits: u32,
}

/// The inputs that one output sample is made of.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// As Pillow. Aspect ratio is not kept: the whole picture is squashed into `width` × `height`.
pub fn resize(picture: &Picture, width: u32, height: u32) -> Picture {
    squashed(picture, width, height, Rounding::Pillow)
}

/// As torch. Up to one level in some hundredth of the samples off from [`resize`].
pub fn resize_like_torch(picture: &Picture, width: u32, height: u32) -> Picture {
    squashed(picture, width, height, Rounding::Torch)
}

fn squashed(picture: &Picture, width: u32, height: u32, rounding: Rounding) -> Picture {
    let (from_width, from_height) = (picture.width() as usize, picture.height() as usize);
    let (to_width, to_height) = (width.max(1) as usize, height.max(1) as usize);
    if (to_width, to_height) == (from_width, from_height) {
        return picture.clone();
    }
    let rows = if to_width == from_width {
        picture.rgb().to_vec()
    } else {
        across(picture.rgb(), from_width, from_height, &axis(from_width, to_width, rounding))
    };
    let rgb = if to_height == from_height {
        rows
    } else {
        down(&rows, to_width, &axis(from_height, to_height, rounding))
    };
    Picture::from_pixels(to_width as u32, to_height as u32, rgb)
}

fn axis(from: usize, to: usize, rounding: Rounding) -> Axis {
    let scale = from as f64 / to as f64;
    // Only shrinking widens the filter; its support for a triangle is 1.
    let support = scale.max(1.0);
    let narrowing = 1.0 / support;
    let exact: Vec<(usize, Vec<f64>)> = (0..to)
        .map(|at| {
            let center = (at as f64 + 0.5) * scale;
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let raw: Vec<f64> = (first..end)
                .map(|x| (1.0 - ((x as f64 - center + 0.5) * narrowing).abs()).max(0.0))
                .collect();
            let total: f64 = raw.iter().sum();
            let normal = |weight: f64| if total == 0.0 { weight } else { weight / total };
            (first, raw.into_iter().map(normal).collect())
        })
        .collect();
    let bits = match rounding {
        Rounding::Pillow => PILLOW_BITS,
        Rounding::Torch => {
            let largest = exact.iter().flat_map(|(_, weights)| weights).fold(0.0, |a: f64, b| a.max(*b));
            let fits = |bits: &u32| 0.5 + largest * f64::from(1 << (bits + 1)) < f64::from(1 << 15);
            (0..PILLOW_BITS).take_while(fits).count() as u32
        }
    };
    let rounded = |weight: f64| (weight * f64::from(1 << bits) + 0.5) as i32;
    let taps = exact
        .into_iter()
        .map(|(first, weights)| Taps { first, weights: weights.into_iter().map(rounded).collect() })
        .collect();
    Axis { taps, bits }
}

fn rounded(sum: i32, bits: u32) -> u8 {
    (sum >> bits).clamp(0, 255) as u8
}

fn across(rgb: &[u8], width: usize, height: usize, axis: &Axis) -> Vec<u8> {
    let half = 1 << (axis.bits - 1);
    let mut out = Vec::with_capacity(axis.taps.len() * height * 3);
    for row in rgb.chunks_exact(width * 3) {
        for tap in &axis.taps {
            let [mut r, mut g, mut b] = [half; 3];
            let pixels = row.get(tap.first * 3..).unwrap_or_default().as_chunks::<3>().0;
            for (&[red, green, blue], weight) in pixels.iter().zip(&tap.weights) {
                r += i32::from(red) * weight;
                g += i32::from(green) * weight;
                b += i32::from(blue) * weight;
            }
            out.extend_from_slice(&[rounded(r, axis.bits), rounded(g, axis.bits), rounded(b, axis.bits)]);
        }
    }
    out
}

fn down(rgb: &[u8], width: usize, axis: &Axis) -> Vec<u8> {
    let stride = width * 3;
    let half = 1 << (axis.bits - 1);
    let mut out = Vec::with_capacity(axis.taps.len() * stride);
    let mut sums = vec![half; stride];
    for tap in &axis.taps {
        sums.fill(half);
        let rows = rgb.chunks_exact(stride).skip(tap.first);
        for (row, weight) in rows.zip(&tap.weights) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += i32::from(*value) * weight;
            }
        }
        out.extend(sums.iter().map(|sum| rounded(*sum, axis.bits)));
    }
    out
}
