//! PNG and APNG: walk the chunks to IEND, then decode the first image without touching text chunks.

use std::io::Cursor;

use image::metadata::Orientation;

use super::error::MediaError;
use super::pixels::{Raster, fill_shared};
use super::{Layout, Limits};

pub(super) const TYPE: &str = "image/png";

pub(super) fn walk(bytes: &[u8], limits: &Limits) -> Result<Layout, MediaError> {
    let truncated = || MediaError::Truncated { media_type: TYPE };
    let corrupt = |fact: &str| MediaError::corrupt(TYPE, fact);
    let mut size = None;
    let mut orientation = Orientation::NoTransforms;
    let (mut animated, mut pictured, mut default_is_frame) = (false, false, false);
    let mut frame_controls: u32 = 0;
    let mut pos = 8; // past the signature
    loop {
        let length = u32_at(bytes, pos).ok_or_else(truncated)?;
        let kind = bytes.get(pos + 4..pos + 8).ok_or_else(truncated)?;
        if length > i32::MAX as u32 {
            return Err(corrupt("a chunk claims more than 2³¹ − 1 bytes"));
        }
        let body_end = pos + 8 + length as usize;
        // The size is wanted before the end is sought: a header alone may claim a picture too large.
        if size.is_none() {
            if kind != b"IHDR" || length != 13 {
                return Err(corrupt("it does not begin with an image header"));
            }
            let (width, height) =
                u32_at(bytes, pos + 8).zip(u32_at(bytes, pos + 12)).ok_or_else(truncated)?;
            limits.admit_size(width, height)?;
            size = Some((width, height));
        } else if kind == b"IHDR" {
            return Err(corrupt("it has two image headers"));
        }
        let body = bytes.get(pos + 8..body_end).ok_or_else(truncated)?;
        pos = body_end + 4; // past the checksum
        if pos > bytes.len() {
            return Err(truncated());
        }
        match kind {
            b"IDAT" => pictured = true,
            b"acTL" => animated = true,
            b"fcTL" => {
                frame_controls = frame_controls.saturating_add(1);
                if !pictured {
                    // The image data is then the animation's first frame, and must be a whole one.
                    let claims = u32_at(body, 4).zip(u32_at(body, 8));
                    let offset = u32_at(body, 12).zip(u32_at(body, 16));
                    if default_is_frame || claims != size || offset != Some((0, 0)) {
                        return Err(corrupt("its first animation frame does not fill the picture"));
                    }
                    default_is_frame = true;
                }
            }
            b"eXIf" => {
                if let Some(found) = Orientation::from_exif_chunk(body) {
                    orientation = found;
                }
            }
            b"CgBI" => {
                return Err(MediaError::UnsupportedVariant {
                    media_type: TYPE,
                    feature: "Apple's CgBI form",
                });
            }
            b"IEND" => break,
            _ => {}
        }
    }
    let (width, height) = size.ok_or_else(truncated)?;
    if !pictured {
        return Err(corrupt("it ends before any picture data"));
    }
    let frames_total = match (animated, default_is_frame) {
        (false, _) => 1,
        (true, true) => frame_controls.max(1),
        // The still picture is shown where animation is not, so it counts as one more.
        (true, false) => frame_controls.saturating_add(1),
    };
    let pixels = u64::from(width) * u64::from(height);
    // RGBA and two RGB views of it, or RGBA twice while it is turned.
    Ok(Layout { width, height, frames_total, orientation, end: pos, memory: pixels * 10 })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes)
}

pub(super) fn decode(bytes: &[u8], layout: &Layout, limits: &Limits) -> Result<Raster, MediaError> {
    let (width, height) = (layout.width, layout.height);
    let memory = usize::try_from(limits.memory_max).unwrap_or(usize::MAX);
    let mut decoder =
        ::png::Decoder::new_with_limits(Cursor::new(&bytes[..layout.end]), ::png::Limits { bytes: memory });
    // Nothing of theirs is wanted, and both inflate.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(::png::Transformations::EXPAND | ::png::Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(map_error)?;
    if reader.info().size() != (width, height) {
        return Err(MediaError::corrupt(TYPE, "two readers of its header disagree on its size"));
    }
    let (color, depth) = reader.output_color_type();
    let expected = layout.pixels() as usize * color.samples();
    if depth != ::png::BitDepth::Eight || reader.output_buffer_size() != Some(expected) {
        return Err(MediaError::corrupt(TYPE, "its pixels do not expand to 8 bits a sample"));
    }
    if color == ::png::ColorType::Rgb {
        let rgb = fill_shared(expected, |out| reader.next_frame(out).map(drop)).map_err(map_error)?;
        return Ok(Raster::rgb(width, height, rgb));
    }
    let mut out = vec![0; expected];
    reader.next_frame(&mut out).map_err(map_error)?;
    Ok(match color {
        ::png::ColorType::Rgba => Raster::rgba(width, height, out),
        ::png::ColorType::Grayscale => Raster::gray(width, height, &out),
        ::png::ColorType::GrayscaleAlpha => Raster::gray_alpha(width, height, &out),
        // EXPAND leaves no palette.
        ::png::ColorType::Rgb | ::png::ColorType::Indexed => {
            return Err(MediaError::corrupt(TYPE, "its palette is missing"));
        }
    })
}

fn map_error(error: ::png::DecodingError) -> MediaError {
    match error {
        ::png::DecodingError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            MediaError::Truncated { media_type: TYPE }
        }
        other => MediaError::corrupt(TYPE, other.to_string()),
    }
}
