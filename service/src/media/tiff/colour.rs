//! What a TIFF's samples mean: from grey, palettes, RGB and inks of up to 16 bits to 8-bit RGBA.

use super::directory::{COLOUR_MAP, Directory, EXTRA_SAMPLES, INK_SET};
use super::{corrupt, unsupported};
use crate::media::error::MediaError;

pub(super) struct Colour {
    base: Base,
    alpha: Alpha,
}

enum Base {
    Gray { white_is_zero: bool, max: u32 },
    Palette(Vec<[u8; 3]>),
    Rgb,
    Cmyk,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Alpha {
    Opaque,
    Straight,
    Premultiplied,
}

impl Colour {
    /// And whether there is a channel that does not say what it is.
    pub(super) fn of(
        directory: &Directory<'_>,
        photometric: u32,
        bits: u32,
        samples: u32,
    ) -> Result<(Self, bool), MediaError> {
        let (base, colours) = match photometric {
            0 | 1 => (Base::Gray { white_is_zero: photometric == 0, max: (1 << bits.min(8)) - 1 }, 1),
            2 => (Base::Rgb, 3),
            3 if bits <= 8 => (Base::Palette(palette(directory, bits)?), 1),
            5 if matches!(directory.number(INK_SET)?, None | Some(1)) => (Base::Cmyk, 4),
            5 => return Err(unsupported("inks other than cyan, magenta, yellow and black")),
            6 => return Err(unsupported("luma and chroma (YCbCr)")),
            8..=10 => return Err(unsupported("CIE L*a*b* colours")),
            _ => return Err(unsupported("an uncommon kind of colours")),
        };
        match bits {
            8 | 16 => {}
            1 | 2 | 4 if samples == 1 => {}
            _ => return Err(unsupported("an uncommon number of bits a sample")),
        }
        let extra =
            samples.checked_sub(colours).ok_or_else(|| corrupt("it has fewer samples than colours"))?;
        let (alpha, unstated) = match (extra, directory.entry(EXTRA_SAMPLES, 0)) {
            (0, _) => (Alpha::Opaque, false),
            (1, Some(1)) => (Alpha::Premultiplied, false),
            (1, Some(2)) => (Alpha::Straight, false),
            (1, _) => (Alpha::Opaque, true),
            _ => return Err(unsupported("several extra channels")),
        };
        Ok((Self { base, alpha }, unstated))
    }

    /// `samples` holds `each` a pixel: 8 bits, or fewer as they are.
    pub(super) fn rgba(&self, samples: &[u8], each: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(samples.len() / each * 4);
        for pixel in samples.chunks_exact(each) {
            let rgb = match &self.base {
                Base::Gray { white_is_zero, max } => {
                    let value = (u32::from(pixel[0]) * 255 / max) as u8;
                    [if *white_is_zero { 255 - value } else { value }; 3]
                }
                Base::Palette(colours) => colours.get(usize::from(pixel[0])).copied().unwrap_or_default(),
                Base::Rgb => [pixel[0], pixel[1], pixel[2]],
                Base::Cmyk => from_inks(pixel[0], pixel[1], pixel[2], pixel[3]),
            };
            let alpha = match self.alpha {
                Alpha::Opaque => u8::MAX,
                Alpha::Straight | Alpha::Premultiplied => pixel[each - 1],
            };
            let rgb = if self.alpha == Alpha::Premultiplied { rgb.map(|c| divided(c, alpha)) } else { rgb };
            out.extend_from_slice(&[rgb[0], rgb[1], rgb[2], alpha]);
        }
        out
    }
}

/// All reds, then all greens, then all blues, 16 bits each; the high byte counts.
fn palette(directory: &Directory<'_>, bits: u32) -> Result<Vec<[u8; 3]>, MediaError> {
    let entries = 1 << bits;
    if directory.count(COLOUR_MAP) != 3 * entries {
        return Err(corrupt("its palette has not as many colours as its pixels can name"));
    }
    // Old writers put 8-bit colours here. Some viewers take small numbers for such, others for black.
    let brightest = (0..3 * entries).filter_map(|i| directory.entry(COLOUR_MAP, i)).max().unwrap_or(0);
    if (1..256).contains(&brightest) {
        return Err(unsupported("a palette that may be of 8 bits or of 16"));
    }
    let level = |index| directory.entry(COLOUR_MAP, index).map(|value| (value >> 8) as u8);
    (0..entries)
        .map(|i| Some([level(i)?, level(entries + i)?, level(2 * entries + i)?]))
        .collect::<Option<_>>()
        .ok_or_else(|| corrupt("its palette is no list of numbers"))
}

/// No colour management: each ink takes away what it takes away, as Pillow has it.
fn from_inks(c: u8, m: u8, y: u8, k: u8) -> [u8; 3] {
    let left = 255 - u32::from(k);
    [c, m, y].map(|ink| {
        let product = u32::from(ink) * left + 128;
        (left - ((product + (product >> 8)) >> 8)) as u8
    })
}

/// Back to straight alpha, rounded to nearest.
fn divided(colour: u8, alpha: u8) -> u8 {
    match u32::from(alpha) {
        0 => 0,
        alpha => ((u32::from(colour) * 255 + alpha / 2) / alpha).min(255) as u8,
    }
}
