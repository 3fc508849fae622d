//! BMP: compute from the header where the pixels end, then decode with `image`.

use std::io::Cursor;

use image::codecs::bmp::BmpDecoder;
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageError};

use super::error::MediaError;
use super::pixels::{Raster, fill_shared};
use super::{Layout, Limits};

pub(super) const TYPE: &str = "image/bmp";

pub(super) fn walk(bytes: &[u8], limits: &Limits) -> Result<Layout, MediaError> {
    let truncated = || MediaError::truncated(TYPE);
    let corrupt = |fact: &str| MediaError::corrupt(TYPE, fact);
    let offset = u32_at(bytes, 10).ok_or_else(truncated)? as usize;
    let header = u32_at(bytes, 14).ok_or_else(truncated)?;
    let (width, height, depth, compression) = match header {
        12 => (u16_at(bytes, 18), u16_at(bytes, 20), u16_at(bytes, 24), Some(0)),
        40 | 52 | 56 | 108 | 124 => {
            let width = u32_at(bytes, 18).ok_or_else(truncated)?;
            if width > i32::MAX as u32 {
                return Err(corrupt("its width is negative"));
            }
            // A negative height means rows from the top down.
            let height = u32_at(bytes, 22).ok_or_else(truncated)?.cast_signed().unsigned_abs();
            (Some(width), Some(height), u16_at(bytes, 28), u32_at(bytes, 30))
        }
        _ => {
            return Err(MediaError::variant(TYPE, "an uncommon header"));
        }
    };
    let (width, height) = width.zip(height).ok_or_else(truncated)?;
    let (depth, compression) = depth.zip(compression).ok_or_else(truncated)?;
    limits.admit_size(width, height)?;
    if !matches!(depth, 1 | 2 | 4 | 8 | 16 | 24 | 32) {
        return Err(corrupt("it has an impossible number of bits a pixel"));
    }
    let end = match compression {
        0 | 3 => {
            let stride = (u64::from(width) * u64::from(depth)).div_ceil(32) * 4;
            let end = offset as u64 + stride * u64::from(height);
            usize::try_from(end).ok().filter(|end| *end <= bytes.len()).ok_or_else(truncated)?
        }
        1 | 2 => run_length_end(bytes, offset, compression == 2).ok_or_else(truncated)?,
        4 | 5 => {
            return Err(MediaError::variant(TYPE, "embedded JPEG or PNG"));
        }
        _ => {
            return Err(MediaError::variant(TYPE, "an uncommon compression"));
        }
    };
    let pixels = u64::from(width) * u64::from(height);
    Ok(Layout {
        width,
        height,
        frames_total: 1,
        orientation: Orientation::NoTransforms,
        // Where the pixels end. Not where the file-size field says: nothing checks that one, so an
        // archive could hide behind it.
        end,
        memory: pixels * 10,
        doubts: Vec::new(),
    })
}

/// Just past the end-of-bitmap code.
fn run_length_end(bytes: &[u8], offset: usize, four_bits: bool) -> Option<usize> {
    let mut pos = offset;
    loop {
        let (count, value) = (*bytes.get(pos)?, *bytes.get(pos + 1)?);
        pos += 2;
        match (count, value) {
            (0, 0) => {}                // end of a row
            (0, 1) => return Some(pos), // end of the bitmap
            (0, 2) => pos += 2,         // move
            (0, literal) => {
                let literal = usize::from(literal);
                let len = if four_bits { literal.div_ceil(2) } else { literal };
                pos += len.next_multiple_of(2);
            }
            _ => {}
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map(u16::from_le_bytes).map(u32::from)
}

pub(super) fn decode(bytes: &[u8], layout: &Layout) -> Result<Raster, MediaError> {
    let (width, height) = (layout.width, layout.height);
    let decoder = BmpDecoder::new(Cursor::new(&bytes[..layout.end])).map_err(map_error)?;
    if decoder.dimensions() != (width, height) {
        return Err(MediaError::corrupt(TYPE, "two readers of its header disagree on its size"));
    }
    let pixels = layout.pixels() as usize;
    match decoder.color_type() {
        ColorType::Rgb8 => {
            let rgb = fill_shared(pixels * 3, |out| decoder.read_image(out)).map_err(map_error)?;
            Ok(Raster::rgb(width, height, rgb))
        }
        ColorType::Rgba8 => {
            let mut rgba = vec![0; pixels * 4];
            decoder.read_image(&mut rgba).map_err(map_error)?;
            // Many writers leave the alpha field zero; viewers then show the picture as opaque.
            if rgba.chunks_exact(4).all(|p| p[3] == 0) {
                rgba.chunks_exact_mut(4).for_each(|p| p[3] = u8::MAX);
            }
            Ok(Raster::rgba(width, height, rgba))
        }
        other => Err(MediaError::corrupt(TYPE, format!("its pixels decode to {other:?}"))),
    }
}

fn map_error(error: ImageError) -> MediaError {
    match error {
        ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            MediaError::truncated(TYPE)
        }
        ImageError::Unsupported(_) => MediaError::variant(TYPE, "a coding that our decoder does not know"),
        other => MediaError::corrupt(TYPE, other.to_string()),
    }
}
